"""Scores that stand in a field beside what is learned. Knows no dataset."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from litft.data.reading.cells import find_mark, iter_cells
from litft.data.reading.faults import listed
from litft.data.reading.kinds import plain_suffix
from litft.data.reading.places import place_fields
from litft.data.reading.records import iter_records
from litft.errors import DataError


class Scores(dict[tuple[int, ...], float]):
    """The scores of the rows of a file, by their places."""

    def of(self, place: int) -> float | None:
        """Gives the score of the row at a place; None where it has none."""
        return self.get(tuple(place_fields(place).values()))


def read_scores(path: Path, field: str) -> Scores:
    """Reads the numbers in one field of all rows.

    Args:
        path: a file of rows with fields.
        field: its name.

    Raises:
        DataError: the file cannot be read, or no row has a number there.
    """
    scores, first = Scores(), dict[str, Any]()
    for place, values in _records(path, field):
        first = first or dict(values)
        number = _number(values.get(field))
        if number is not None:
            scores[tuple(place_fields(place).values())] = number
    if not scores:
        raise DataError(f'score_field is "{field}", but no row of {path} has a number there; found {listed(first)}.')
    return scores


def _records(path: Path, field: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Gives the rows with their places."""
    if plain_suffix(path) != ".csv":
        yield from iter_records(path)
        return
    rows = iter_cells(path, find_mark(path, [field]))
    _, header = next(rows, (1, []))
    for line, cells in rows:
        yield line, dict(zip(header, cells, strict=False))


def _number(value: object) -> float | None:
    """Gives a value as a number; None where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
