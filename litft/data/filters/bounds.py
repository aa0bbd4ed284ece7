"""Filters by numbers: tokens, tokens with loss, score. No text is read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from litft.config.filters import FiltersConfig
from litft.data.filters.row import Filter, Row

NO_SCORE = "no score"

_VALUES: dict[str, Callable[[Row], float | None]] = {
    "tokens": lambda row: row.tokens,
    "target_tokens": lambda row: row.target_tokens,
    "score": lambda row: row.score,
}


def build(config: FiltersConfig) -> list[Filter]:
    """Gives a filter for each number that has a bound."""
    made = []
    for name, value in _VALUES.items():
        low, high = getattr(config, f"min_{name}"), getattr(config, f"max_{name}")
        if low is not None or high is not None:
            judge = partial(_judge, value, low, high, config.unscored == "keep")
            made.append(Filter(name, judge, reads_text=False))
    return made


def _judge(
    value_of: Callable[[Row], float | None], low: float | None, high: float | None, keeps_unknown: bool, row: Row
) -> str | None:
    """Says on which side of the bounds a row is."""
    value = value_of(row)
    if value is None:
        return None if keeps_unknown else NO_SCORE
    if low is not None and value < low:
        return f"{value:.6g}, below {low:.6g}"
    if high is not None and value > high:
        return f"{value:.6g}, above {high:.6g}"
    return None
