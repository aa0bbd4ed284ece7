"""Curves of a run as few enough points to be drawn: groups of steps, each with its mean, lowest and highest value.

Pure numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from litft.report.read import Points

MOST_POINTS = 500  # more than a chart has pixels on a phone; ten runs of so many are a page of half a megabyte
SMOOTH_FROM = 40  # points below which each step is drawn as it is
SMOOTHED = 25  # a smoothed value is the mean of one part in so many of the curve
DIGITS = 5
NOISY = ("loss", "grad_norm", "tokens_per_second", "padding_share")  # which differ much from step to step
RANGED = ("loss", "grad_norm")  # of which lowest and highest values are kept too


@dataclass
class Curves:
    """What is drawn of one run.

    Attributes:
        step, tokens: where each point stands: the last step of its group.
        columns: name -> values; also `loss:smooth`, and `loss:low` and `loss:high` where steps were grouped.
        group: how many steps a point stands for, 1 where each is drawn.
    """

    step: list[int] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    columns: dict[str, list[float | None]] = field(default_factory=dict)
    group: int = 1

    def to_dict(self) -> dict[str, list[float | None] | list[int] | list[float]]:
        """Gives plain types for the page, numbers to five digits."""
        columns = {name: [_short(value) for value in values] for name, values in self.columns.items()}
        return {"step": self.step, "tokens": [round(each) for each in self.tokens], **columns}


def thin(points: Points, most: int = MOST_POINTS) -> Curves:
    """Gives the curves of a run.

    Args:
        points: as they were measured.
        most: points of a curve.
    """
    group = -(-len(points.step) // most) if points.step else 1
    ends = [min(start + group, len(points.step)) - 1 for start in range(0, len(points.step), group)]
    curves = Curves([points.step[end] for end in ends], [points.tokens[end] for end in ends], group=group)
    for name, values in points.values.items():
        groups = [values[end - end % group : end + 1] for end in ends]
        means = curves.columns[name] = [_mean(each) for each in groups]
        if name in RANGED and group > 1:
            for what, choose in (("low", min), ("high", max)):
                known = ([value for value in each if value is not None] for each in groups)
                curves.columns[f"{name}:{what}"] = [choose(each, default=None) for each in known]
        if name in NOISY and len(ends) >= SMOOTH_FROM:
            curves.columns[f"{name}:smooth"] = smooth(means)
    return curves


def smooth(values: Sequence[float | None]) -> list[float | None]:
    """Gives running means over a part of the curve, the point itself in their middle."""
    reach = max(len(values) // SMOOTHED // 2, 1)
    near = (values[max(at - reach, 0) : at + reach + 1] for at in range(len(values)))
    return [_mean(each) for each in near]


def _mean(values: Sequence[float | None]) -> float | None:
    """Gives the mean of what was measured."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _short(value: float | None) -> float | None:
    """Gives a number that takes few letters."""
    return None if value is None else float(f"{value:.{DIGITS}g}")
