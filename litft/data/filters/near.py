"""Rows that say almost the same: of those that do, one stays. Knows texts and ranks, no files.

Two texts are as near as their sets of runs of words overlap (Jaccard). MinHash finds pairs that may be near enough, and
the sets themselves decide: what leaves is as near as it says. A pair at the threshold is found with `SURENESS`, a
nearer one more surely. Source: Broder 1997, On the resemblance and containment of documents; bands as in Lee et al.
2022, Deduplicating Training Data Makes Language Models Better, arXiv 2107.06499, appendix A.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from litft.config.filters import NearConfig
from litft.data.filters.words import runs_of, words_of
from litft.errors import DataError

SURENESS = 0.99

# A text of fewer words, such as "D" or "Not enough information", is the same in rows that have nothing in common.
FEWEST_WORDS = 8
NOT_COMPARED = f"near: texts under {FEWEST_WORDS} words; not compared"

Runs = NDArray[np.uint32]


class Near(NamedTuple):
    """The text that another one is near to.

    Attributes:
        place: of it among the texts.
        overlap: share of their runs of words that both have.
    """

    place: int
    overlap: float


def runs_in(text: str, length: int) -> Runs:
    """Gives the different runs of words in a text, as sorted hashes; a text of fewer words is one run."""
    words = words_of(text)
    runs = runs_of(words, min(length, len(words))) if words else ()
    return np.unique(np.fromiter((zlib.crc32(run.encode()) for run in runs), dtype=np.uint32))


def compared_runs(text: str, length: int) -> Runs:
    """Gives what is compared of a row: `runs_in` its text, and none of a text too short to tell rows apart by it."""
    return runs_in(text if len(words_of(text)) >= FEWEST_WORDS else "", length)


def overlap_of(one: Runs, other: Runs) -> float:
    """Gives the Jaccard similarity of two texts, from 0 to 1; texts without words are near to nothing."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both) if both else 0.0


def bands_of(threshold: float, num_perm: int) -> tuple[int, int]:
    """Gives how many bands of how many permutations find a pair at the threshold with `SURENESS`.

    Args:
        threshold: overlap of the pair, from above 0 to 1.
        num_perm: permutations in all.

    Returns:
        Bands, and permutations of each: as many as may be, because fewer compare more pairs in vain.
    """
    sizes = [
        size for size in range(1, num_perm // 2 + 1) if 1 - (1 - threshold**size) ** (num_perm // size) >= SURENESS
    ]
    size = max(sizes, default=1)
    return num_perm // size, size


def find_near(config: NearConfig, texts: Sequence[Runs], first: int, order: Sequence[int]) -> dict[int, Near]:
    """Finds texts that are near to one that stays.

    Args:
        config: threshold and permutations.
        texts: all of them, as `runs_in` gives them.
        first: how many of them, from the first on, stay whatever they are near to.
        order: the others, those first that are to stay rather than what is near to them.

    Returns:
        For each that leaves the nearest of those that stay.

    Raises:
        DataError: the library is not installed.
    """
    threshold = config.threshold or 1.0
    minhash, index = _library(threshold, config.num_perm)
    found: dict[int, Near] = {}
    for number in (*range(first), *order):
        signature = minhash.copy()
        signature.update_batch(texts[number].tolist())
        if number >= first and (near := _nearest(texts, number, index.query(signature))).overlap >= threshold:
            found[number] = near
        elif len(texts[number]):
            index.insert(number, signature)
    return found


def _nearest(texts: Sequence[Runs], number: int, candidates: Sequence[int]) -> Near:
    """Gives the nearest of some texts, the first of equals."""
    pairs = [Near(other, overlap_of(texts[number], texts[other])) for other in sorted(candidates)]
    return max(pairs, key=lambda near: near.overlap, default=Near(-1, 0.0))


def _library(threshold: float, num_perm: int) -> tuple[Any, Any]:
    """Gives an empty MinHash to copy, whose permutations do not change from run to run, and an index."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise DataError("filters.near.threshold needs datasketch; pip install 'litft[mix]' brings it.") from error
    return MinHash(num_perm=num_perm, hashfunc=int), MinHashLSH(num_perm=num_perm, params=bands_of(threshold, num_perm))
