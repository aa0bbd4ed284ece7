"""Parquet files, each row with its number. Knows no dataset, and needs pyarrow only when such a file is read."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from litft.data.reading.faults import seen, shown_text
from litft.data.reading.kinds import other_form
from litft.data.reading.places import RowPlace
from litft.errors import DataError

SUFFIX = ".parquet"

# Rows turned into Python values at once, so that a large file never stands in memory as a whole.
BATCH_ROWS = 1000

# The same where values stand within lists or structs: how large they become is known only once they are read.
NESTED_ROWS = 16

# Bytes that rows may become at once; a file may say a million times with a few bytes that a long text stands there.
BATCH_BYTES = 2**26


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
            columns = [file.schema.column(place) for place in range(len(file.schema))]
            flat = [each for each in columns if "." not in each.path]
            texts = [each.path for each in flat if each.physical_type == "BYTE_ARRAY"]
            most = BATCH_ROWS if len(flat) == len(columns) else NESTED_ROWS
            count, schema = _batch_rows(file.metadata, most), file.schema_arrow
        with parquet.ParquetFile(path, read_dictionary=texts) as file:  # texts that stand often are read once
            # Group by group: arrow joins columns of lists wrongly where others are read so.
            groups = (file.iter_batches(count, row_groups=[group]) for group in range(file.num_row_groups))
            for batch in chain.from_iterable(groups):
                for values in values_of(path, batch, number, schema):
                    number += 1
                    yield RowPlace(number), values
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} holds text that is not UTF-8, in row {number + 1} or soon behind it; fetch the file again."
        ) from error
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise unreadable(path, "parquet", number, error, "fetch the file again") from error


def values_of(path: Path, batch: Any, before: int, schema: Any = None) -> Iterator[dict[str, Any]]:
    """Gives the rows of a batch of arrow's, so many at once as memory has room for.

    Args:
        path: of the file; before: how many rows were read of it.
        batch: the rows, texts that stand in it often perhaps but once.
        schema: where they do not; None where it is the batch's own.

    Raises:
        DataError: one row is larger than all may be.
    """
    place = 0
    while place < len(batch):
        count = len(batch) - place
        while count and sum(map(_unpacked_bytes, batch.slice(place, count).columns)) > BATCH_BYTES:
            count //= 2
        if not count:
            raise DataError(
                f"{path}, row {before + place + 1} has more than {BATCH_BYTES >> 20} MiB unpacked, which is no row of "
                "a dataset; fetch the file again, or take the row out."
            )
        yield from _plain(batch.slice(place, count), schema).to_pylist()
        place += count


def _plain(batch: Any, schema: Any) -> Any:
    """Gives a batch with each text where it stands, which is read ten times as fast."""
    if schema is None:
        return batch
    columns = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return importlib.import_module("pyarrow").RecordBatch.from_arrays(columns, schema=schema)


def _unpacked_bytes(column: Any) -> int:
    """Gives about how many bytes the values of a column of arrow's have once each is written out."""
    types, compute = importlib.import_module("pyarrow.types"), importlib.import_module("pyarrow.compute")
    if not types.is_dictionary(column.type) or types.is_primitive(column.dictionary.type):
        return int(column.nbytes)
    return len(column) * int(compute.max(compute.binary_length(column.dictionary)).as_py() or 0)


def _batch_rows(metadata: Any, most: int) -> int:
    """Gives how many rows to read at once, by what the file says of their size, and no more than so many."""
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    largest = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
    return max(1, min(most, BATCH_BYTES // max(largest, 1)))


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
