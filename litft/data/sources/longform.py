"""LongForm: long texts of people, with the instructions that a model found for them.

Source: huggingface.co/datasets/akoksal/LongForm. Its `input` is the instruction.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rows, Source, read_fields


def read_longform(path: Path) -> Rows:
    """Gives the rows of a file, each one turn.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield read_fields(line, values, instruction="input", response="output")


SOURCE = Source(
    name="longform",
    repo_id="akoksal/LongForm",
    files=("data/train-00000-of-00001-367270308b568067.parquet",),
    licence="MIT; the texts keep their own",
    origin="human",
    rows=23_652,
    schema='parquet, a JSON list or JSON Lines of {"input", "output", "source", "subset"}; input is the instruction',
    read=read_longform,
)
