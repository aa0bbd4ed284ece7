"""ROUGE-L between short texts: how much of two texts is one sequence of words. Knows no models.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"; words and F-measure as in google-research's
`rouge_score` without stemming, which Self-Instruct uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WORD = re.compile("[a-z0-9]+")


def words_of(text: str) -> list[str]:
    """Gives the words of a text: runs of a-z and 0-9, in lower case."""
    return _WORD.findall(text.lower())


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """Gives the F-measure of ROUGE-L, from 0 to 1.

    Args:
        first, second: words, as `words_of` gives them.
    """
    total = len(first) + len(second)
    return 2 * common_length(first, second) / total if total else 0.0


def nearest(words: Sequence[str], others: Iterable[Sequence[str]]) -> float:
    """Gives the highest ROUGE-L of a text with any of the others; 0 where there are none."""
    best = 0.0
    for other in others:
        shorter, total = min(len(words), len(other)), len(words) + len(other)
        if total and 2 * shorter / total > best:  # else its lengths alone keep it below
            best = max(best, rouge_l(words, other))
    return best


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Gives how many words the longest common subsequence has.

    The table of the usual algorithm is kept a row at a time, as bits: a 0 is a place where the length grows.
    Source: Hyyrö 2004, "Bit-Parallel LCS-length Computation Revisited".
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        same = row & places.get(word, 0)
        row = (row + same | row - same) & full
    return len(first) - row.bit_count()
