"""Parquet files, each row with its number. Knows no dataset, and needs pyarrow only when such a file is read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except UnicodeDecodeError as error:
        raise DataError(f"{path} holds text that is not UTF-8 after row {number}; fetch the file again.") from error
    except (arrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(f"{path} cannot be read as parquet ({reason}); fetch the file again.") from error


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
