"""Filters by regular expressions."""

from __future__ import annotations

import re
from functools import partial

from litft.config.filters import FiltersConfig, Side
from litft.data.filters.row import Filter, Row
from litft.data.reading.faults import shown_text


def build(config: FiltersConfig) -> list[Filter]:
    """Gives a filter for each expression."""
    wanted = config.match.patterns("filters.match").items()
    unwanted = config.leave_out.patterns("filters.leave_out").items()
    return [
        *(Filter(f"match.{side}", partial(_lacks, side, pattern)) for side, pattern in wanted),
        *(Filter(f"leave_out.{side}", partial(_has, side, pattern)) for side, pattern in unwanted),
    ]


def _lacks(side: Side, pattern: re.Pattern[str], row: Row) -> str | None:
    """Says that a row does not match."""
    return None if pattern.search(row.side(side)) else "no match"


def _has(side: Side, pattern: re.Pattern[str], row: Row) -> str | None:
    """Gives what in a row matches."""
    found = pattern.search(row.side(side))
    return None if found is None else f"matches {shown_text(found[0])}"
