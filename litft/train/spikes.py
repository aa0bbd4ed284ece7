"""Which loss jumps: by the median of the losses before it, which one odd step does not move. Knows no model.

The loss of a step is that of its rows, and these differ; so what is odd is told from how much they differ as a rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from litft.data.store import PreparedData
from litft.train.row_losses import RowLoss, source_name

REMEMBERED = 50  # steps
KNOWN = 20  # steps before which nothing is called odd
DEVIATIONS = 6.0  # so far above the median a loss must be
# The median distance from the median, as a standard deviation. Source: 1 / the third quartile of a normal distribution.
NORMAL = 1.4826
LEAST_DEVIATION = 0.02  # of the median: where losses hardly differ, not every small step up is a jump
WORST_ROWS = 10


def spike_limit(before: Sequence[float]) -> float | None:
    """Gives the loss above which the next one jumps, or None as long as too few are known.

    Args:
        before: losses of the steps before it.
    """
    if len(before) < KNOWN:
        return None
    middle = median(before)
    deviation = NORMAL * median(abs(loss - middle) for loss in before)
    return middle + DEVIATIONS * max(deviation, LEAST_DEVIATION * abs(middle))


def remember(before: list[float], loss: float) -> None:
    """Adds a loss to those of the last steps."""
    before.append(loss)
    del before[:-REMEMBERED]


def describe_spike(
    data: PreparedData, step: int, loss: float, before: Sequence[float], rows: Iterable[RowLoss]
) -> dict[str, Any]:
    """Gives what is written down of a loss that jumped, with the rows that lifted it most.

    Args:
        data: the training file.
        step: counted from 1.
        loss: of the step.
        before: of the steps before it.
        rows: of the step.
    """
    usual = median(before)
    worst = sorted(rows, key=lambda row: row.total - usual * row.targets, reverse=True)[:WORST_ROWS]
    found = [
        {
            "row": row.row,
            "source": source_name(data, row.row),
            "target_tokens": row.targets,
            "loss": row.total / max(row.targets, 1),
        }
        for row in worst
    ]
    return {"step": step, "loss": loss, "median": usual, "limit": spike_limit(before), "rows": found}
