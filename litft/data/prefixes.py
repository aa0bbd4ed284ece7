"""Which rows of a micro-batch begin alike, so that what they share need be computed once. Knows token ids alone."""

from __future__ import annotations

from collections.abc import Sequence

LEAST_TOKENS = 8  # a shorter beginning is not worth a document of its own


def shared_beginnings(rows: Sequence[list[int]]) -> list[tuple[int, list[int]]]:
    """Divides rows by how they begin, so that the most tokens are left out when each beginning stands once.

    Args:
        rows: of each the tokens that may be shared.

    Returns:
        Tokens shared, 0 for none, and the places of the rows that share them, in the order given; every row once.
    """
    order = sorted(range(len(rows)), key=lambda place: rows[place])
    found = _divide([rows[place] for place in order])[1]
    groups, start = [], 0
    for shared, count in found:
        groups.append((shared, sorted(order[start : start + count])))
        start += count
    alone = sorted(place for shared, places in groups if not shared for place in places)
    return [(shared, places) for shared, places in groups if shared] + ([(0, alone)] if alone else [])


def _divide(rows: Sequence[list[int]]) -> tuple[int, list[tuple[int, int]]]:
    """Gives the tokens saved in sorted rows, and of each run of them the tokens shared and how many they are."""
    shared = _alike(rows[0], rows[-1])  # of sorted rows the first and the last differ most
    shared = shared if shared >= LEAST_TOKENS else 0
    whole = shared * (len(rows) - 1), [(shared, len(rows))]
    if len(rows) == 1:
        return 0, [(0, 1)]
    where = min(range(1, len(rows)), key=lambda place: _alike(rows[place - 1], rows[place]))
    left, right = _divide(rows[:where]), _divide(rows[where:])
    apart = left[0] + right[0], left[1] + right[1]
    return max(whole, apart, key=lambda each: each[0])


def _alike(one: list[int], other: list[int]) -> int:
    """Counts the tokens with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
