"""Stanford Alpaca and every file of its form: a JSON list, JSON Lines or parquet of instruction, input and output.

Source: github.com/tatsu-lab/stanford_alpaca. Its own repository on the hub (tatsu-lab/alpaca) has parquet only, so the
cleaned edition is fetched; a local alpaca_data.json of any edition is read with `--data_file`.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rows, Source, read_fields


def read_alpaca(path: Path) -> Rows:
    """Gives the rows of a file, each one turn.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield read_fields(line, values, instruction="instruction", response="output", context="input")


SOURCE = Source(
    name="alpaca",
    repo_id="yahma/alpaca-cleaned",
    files=("alpaca_data_cleaned.json",),
    licence="CC BY-NC 4.0",
    origin="model",
    rows=51_760,
    schema='a JSON list (or JSON Lines) of {"instruction", "input", "output"}; input may be empty or absent',
    read=read_alpaca,
)
