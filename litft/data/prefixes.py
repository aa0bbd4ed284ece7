"""Which rows of a micro-batch begin alike, so that what they share need be computed once. Knows token ids alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LEAST_TOKENS = 8  # a shorter beginning is not worth a document of its own


def shared_beginnings(rows: Sequence[list[int]]) -> list[tuple[int, list[int]]]:
    """Divides rows by how they begin, so that the most tokens are left out when each beginning stands once.

    Args:
        rows: of each the tokens that may be shared.

    Returns:
        Tokens shared, 0 for none, and the places of the rows that share them, in the order given; every row once.
    """
    order = sorted(range(len(rows)), key=lambda place: rows[place])
    groups, start = [], 0
    for shared, count in _divide([rows[place] for place in order]):
        groups.append((shared, sorted(order[start : start + count])))
        start += count
    alone = sorted(place for shared, places in groups if not shared for place in places)
    return [(shared, places) for shared, places in groups if shared] + ([(0, alone)] if alone else [])


@dataclass(frozen=True)
class _Run:
    """Neighbours among sorted rows.

    Attributes:
        rows: how many.
        saved: tokens left out when each beginning stands once.
        groups: tokens shared, and by how many rows, in their order.
    """

    rows: int
    saved: int
    groups: tuple[tuple[int, int], ...]


def _divide(rows: Sequence[list[int]]) -> tuple[tuple[int, int], ...]:
    """Gives the groups of sorted rows.

    What a run of sorted rows begins with is the least that two neighbours in it have alike. So runs are joined from the
    most alike neighbours to the least, and each keeps the better of two ways: one group, or those of its halves.
    """
    alone = _Run(1, 0, ((0, 1),))
    waiting: list[tuple[int, _Run]] = []  # (tokens alike with what follows, run), the least alike first
    last = alone
    for one, other in pairwise(rows):
        alike = _alike(one, other)
        while waiting and waiting[-1][0] > alike:
            last = _join(*waiting.pop(), last)
        waiting.append((alike, last))
        last = alone
    while waiting:
        last = _join(*waiting.pop(), last)
    return last.groups


def _join(alike: int, left: _Run, right: _Run) -> _Run:
    """Gives two runs as one: as one group that shares what all begin with, or as the groups they are."""
    shared = alike if alike >= LEAST_TOKENS else 0
    rows, apart = left.rows + right.rows, left.saved + right.saved
    whole = shared * (rows - 1)
    if whole >= apart:
        return _Run(rows, whole, ((shared, rows),))
    return _Run(rows, apart, left.groups + right.groups)


def _alike(one: list[int], other: list[int]) -> int:
    """Counts the tokens with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
