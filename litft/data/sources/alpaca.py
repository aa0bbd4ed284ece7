"""Stanford Alpaca and every file of its form: a JSON list, or JSON Lines, of instruction, input and output.

Source: github.com/tatsu-lab/stanford_alpaca. Its own repository on the hub (tatsu-lab/alpaca) has parquet only, so the
cleaned edition is fetched; a local alpaca_data.json of any edition is read with `--data_file`.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.lines import is_json_list, iter_json_lines, iter_json_list
from litft.data.reading.rows import Rows, Source, read_fields


def read_alpaca(path: Path) -> Rows:
    """Gives the rows of a file, each one turn.

    Raises:
        DataError: the file is not JSON of this form; naming the line.
    """
    rows = iter_json_list(path) if is_json_list(path) else iter_json_lines(path)
    for line, values in rows:
        yield read_fields(line, values, instruction="instruction", response="output", context="input")


SOURCE = Source(
    name="alpaca",
    repo_id="yahma/alpaca-cleaned",
    file="alpaca_data_cleaned.json",
    licence="CC BY-NC 4.0",
    origin="model",
    rows=51_760,
    schema='a JSON list (or JSON Lines) of {"instruction", "input", "output"}; input may be empty or absent',
    read=read_alpaca,
)
