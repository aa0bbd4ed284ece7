"""Rows of a file as plain dictionaries, whichever of the usual forms it has. Knows no dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litft.data.reading.lines import iter_json_lines
from litft.data.reading.lists import is_json_list, iter_json_list
from litft.data.reading.parquet import SUFFIX, iter_parquet_rows


def iter_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Gives the rows of a parquet file (by its name), of one JSON list or of JSON Lines, each with its line.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    if path.suffix == SUFFIX:
        return iter_parquet_rows(path)
    return iter_json_list(path) if is_json_list(path) else iter_json_lines(path)
