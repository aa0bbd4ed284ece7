"""How near an answer comes to the one that is expected: the same text, or the same words in order. Knows no models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from litft.text.rouge import rouge_l, words_of


class Match(NamedTuple):
    """How near one answer comes.

    Attributes:
        is_exact: whether both are the same text, spaces at their ends left out.
        rouge_l: F-measure from 0 to 1 of the words a-z and 0-9; texts in other scripts have none, and 0.
    """

    is_exact: bool
    rouge_l: float


class Matches(NamedTuple):
    """How near many answers come: the share that is exact, and the mean ROUGE-L."""

    answers: int
    exact_match: float
    rouge_l: float


def match(answer: str, expected: str) -> Match:
    """Compares an answer with the one that is expected."""
    return Match(answer.strip() == expected.strip(), rouge_l(words_of(answer), words_of(expected)))


def summarise(found: Iterable[Match]) -> Matches:
    """Gives the means of at least one match."""
    matches = list(found)
    exact, nearness = (sum(parts) / len(matches) for parts in zip(*matches, strict=True))
    return Matches(len(matches), exact, nearness)
