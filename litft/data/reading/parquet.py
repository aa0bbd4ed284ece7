"""Parquet files, each row with its number. Knows no dataset, and needs pyarrow only when such a file is read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from litft.data.reading.faults import seen, shown_text
from litft.data.reading.kinds import other_form
from litft.data.reading.places import RowPlace
from litft.errors import DataError

SUFFIX = ".parquet"

# Rows turned into Python values at once, so that a large file never stands in memory as a whole.
BATCH_ROWS = 1000


def iter_parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Gives the rows of a file with their numbers, from 1, reading one group of rows after the other.

    Raises:
        DataError: the file is no parquet, holds text that is not UTF-8, or pyarrow is not installed.
    """
    require_pyarrow(str(path))
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            _refuse_twins(path, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield RowPlace(number), values
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} holds text that is not UTF-8, in row {number + 1} or soon behind it; fetch the file again."
        ) from error
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise unreadable(path, "parquet", number, error, "fetch the file again") from error


def unreadable(path: Path, form: str, number: int, error: Exception, advice: str) -> DataError:
    """Builds the error of a file that arrow cannot read.

    Args:
        path: of the file.
        form: what it was read as.
        number: how many rows were read before.
        error: what arrow says.
        advice: what to do where nothing speaks for another form.
    """
    reason = seen(str(error).partition("\n")[0].rstrip("."))
    behind = f" after row {number}" if number else ""
    hint = other_form(path, form)
    return DataError(f"{path} cannot be read as {form}{behind} ({reason}){'.' + hint if hint else f'; {advice}.'}")


def _refuse_twins(path: Path, names: Sequence[str]) -> None:
    """Refuses two columns of one name, of which only one would be read."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path} has the column {shown_text(twice)} {names.count(twice)} times; rename one of them.")


def require_pyarrow(name: str) -> None:
    """Makes sure that a parquet file can be read, before it is fetched.

    Args:
        name: of the file, for the sentence.

    Raises:
        DataError: pyarrow is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DataError(
            f"{name} is parquet, and pyarrow, which reads it, is not installed; install it with `pip install pyarrow`, "
            "or name a JSON file with --data_file."
        ) from error
