"""Magpie: instructions that an aligned model wrote by itself, with its answers, of one turn or several.

Source: huggingface.co/datasets/Magpie-Align/Magpie-Llama-3.1-Pro-MT-300K-Filtered, and the files that
github.com/magpie-align/magpie writes on the way, where an instruction may have several answers with rewards.
"""

from __future__ import annotations

import math
from pathlib import Path

from litft.data.reading.faults import absent_field, kind_of, missing_field
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Row, Rows, Source, read_fields
from litft.data.sources.sharegpt import read_conversations


def read_magpie(path: Path) -> Rows:
    """Gives the rows of a file: its conversations, else its instructions with their (best) answers.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield _read_row(line, values)


def _read_row(line: int, values: dict[str, object]) -> Row | Rejected:
    """Reads one row by the fields that it has."""
    if values.get("conversations") is not None:
        return read_conversations(line, values)
    if values.get("responses") is None:
        return read_fields(line, values, instruction="instruction", response="response")
    if "instruction" not in values:
        return Rejected(line, missing_field("instruction", values))
    chosen = _best_response(values)
    if isinstance(chosen, str):
        return Rejected(line, chosen)
    name = f"responses[{chosen[0]}]"
    return read_fields(line, {**values, name: chosen[1]}, instruction="instruction", response=name)


def _best_response(values: dict[str, object]) -> tuple[int, object] | str:
    """Gives index and text of the answer with the highest reward, the first where there are none; or what is wrong."""
    responses = values["responses"]
    if not isinstance(responses, list) or not responses:
        return absent_field("responses", values, "a list of texts")
    name = next((name for name in ("rewards", "reward") if values.get(name) is not None), None)
    if name is None:
        return 0, responses[0]
    rewards = [values[name]] if _is_number(values[name]) else values[name]
    if not isinstance(rewards, list):
        return absent_field(name, values, "a list of numbers")
    if len(rewards) != len(responses):
        return f'"{name}" has {len(rewards)} numbers for {len(responses)} responses'
    wrong = [reward for reward in rewards if not _is_number(reward)]
    if wrong:
        return f'"{name}" holds {kind_of(wrong[0])}, not numbers alone'
    best = max(range(len(rewards)), key=lambda index: rewards[index])
    return best, responses[best]


def _is_number(value: object) -> bool:
    """Says whether a value can be compared with another reward."""
    return type(value) is int or (isinstance(value, float) and not math.isnan(value))


SOURCE = Source(
    name="magpie",
    repo_id="Magpie-Align/Magpie-Llama-3.1-Pro-MT-300K-Filtered",
    files=("data/train-*.parquet",),
    licence="Llama 3.1 Community License",
    origin="model",
    rows=300_000,
    schema=(
        'parquet, a JSON list or JSON Lines of {"conversations": [{"from", "value"}, ...]}, {"instruction", "response"}'
        ' or {"instruction", "responses", "rewards"}'
    ),
    read=read_magpie,
    folder_files=("*.parquet", "data/*.parquet", "*.json", "*.jsonl"),
)
