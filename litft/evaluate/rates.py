"""Counts of outcomes, and how sure the rate of wins is. Knows no models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from litft.evaluate.verdicts import FLIP, TIE, UNANSWERED, UNREADABLE, A, B, Outcome

Z = 1.959964  # of a normal distribution: 95% lie within so many standard deviations of its mean


class Tally(NamedTuple):
    """What many pairs came to.

    Attributes:
        wins, losses, ties: pairs in which both orders say the same, as a sees it.
        flips: pairs in which the orders contradict each other; they count for nobody.
        first, second: of these, in which the answer in this place was preferred both times.
        unreadable, unanswered: pairs without two verdicts, and without two answers.
    """

    wins: int
    losses: int
    ties: int
    flips: int
    first: int
    second: int
    unreadable: int
    unanswered: int

    @property
    def counted(self) -> int:
        """Pairs that count."""
        return self.wins + self.losses + self.ties

    @property
    def rate(self) -> float | None:
        """The share of counted pairs that a wins, a tie being half of one; None where none counts."""
        return (self.wins + self.ties / 2) / self.counted if self.counted else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the rate; with ties it is somewhat wider than it need be."""
        return None if self.rate is None else wilson(self.rate, self.counted)


def tally(outcomes: Sequence[Outcome]) -> Tally:
    """Counts outcomes."""
    kinds = Counter(outcome.kind for outcome in outcomes)
    places = Counter(outcome.favoured for outcome in outcomes)
    counts = (kinds[A], kinds[B], kinds[TIE], kinds[FLIP], places[1], places[2], kinds[UNREADABLE], kinds[UNANSWERED])
    return Tally(*counts)


def wilson(rate: float, count: int) -> tuple[float, float]:
    """Gives the 95% interval of a rate.

    Args:
        rate: from 0 to 1.
        count: of what it was found in, at least 1.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference"; it holds for few pairs
        too, and stays within 0 and 1 (Brown, Cai and DasGupta 2001).
    """
    middle = rate + Z**2 / (2 * count)
    spread = Z * math.sqrt(rate * (1 - rate) / count + Z**2 / (4 * count**2))
    return max((middle - spread) / (1 + Z**2 / count), 0.0), min((middle + spread) / (1 + Z**2 / count), 1.0)
