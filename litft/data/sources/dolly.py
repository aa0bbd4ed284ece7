"""Databricks Dolly 15k: JSON Lines of instruction, context and response.

Source: huggingface.co/datasets/databricks/databricks-dolly-15k.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rows, Source, read_fields


def read_dolly(path: Path) -> Rows:
    """Gives the rows of a file, each one turn; the context is the turn's input.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield read_fields(line, values, instruction="instruction", response="response", context="context")


SOURCE = Source(
    name="dolly",
    repo_id="databricks/databricks-dolly-15k",
    files=("databricks-dolly-15k.jsonl",),
    licence="CC BY-SA 3.0",
    origin="human",
    rows=15_011,
    schema='JSON Lines of {"instruction", "context", "response", "category"}; context may be empty or absent',
    read=read_dolly,
)
