"""P3, the prompts that T0 was trained on: each row a prompt and its answer.

Source: huggingface.co/datasets/bigscience/P3, of which a data set is one of 660 parts to be chosen and named with
`--data_file`. Its texts stand in `inputs_pretokenized` and `targets_pretokenized`; the token ids beside them are T5's.
Files for GPT-3 hold `prompt` and `completion` instead, whose end is marked by a literal <|endoftext|>.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Row, Rows, Source, read_fields

# Source: the end mark of OpenAI's guide to finetuning GPT-3, as github.com/yizhongw/self-instruct writes it. EOS ends
# an answer; these characters would be learnt as text.
END_MARK = "<|endoftext|>"
END_NOTE = f"the literal {END_MARK} at the end of the answer was left out"


def read_p3(path: Path) -> Rows:
    """Gives the rows of a file, each one turn.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield _read_row(line, values)


def _read_row(line: int, values: dict[str, object]) -> Row | Rejected:
    """Reads one row by the fields that it has."""
    if values.get("is_correct") is False:
        return Rejected(line, "it is a wrong choice (is_correct is false)", is_fault=False)
    if "prompt" in values and "completion" in values:
        return _read_completion(line, values)
    answer = values.get("targets_pretokenized")
    # T5's vocabulary has no line ends, so T0 never saw those that stand around an answer.
    told = {**values, "targets_pretokenized": answer.strip()} if isinstance(answer, str) else values
    return read_fields(line, told, instruction="inputs_pretokenized", response="targets_pretokenized")


def _read_completion(line: int, values: dict[str, object]) -> Row | Rejected:
    """Reads a prompt and its completion, without the mark at its end."""
    answer = values["completion"]
    if not isinstance(answer, str) or not answer.rstrip().endswith(END_MARK):
        return read_fields(line, values, instruction="prompt", response="completion")
    told = {**values, "completion": answer.rstrip().removesuffix(END_MARK)}
    row = read_fields(line, told, instruction="prompt", response="completion")
    return replace(row, notes=(END_NOTE,)) if isinstance(row, Row) else row


SOURCE = Source(
    name="p3",
    repo_id=None,
    files=(),
    licence="Apache-2.0; the prompted datasets keep their own",
    origin="human",
    rows=None,
    schema=(
        "a part of bigscience/P3 as JSON Lines, a JSON list or parquet: "
        '{"inputs_pretokenized", "targets_pretokenized"}, or {"prompt", "completion"}'
    ),
    read=read_p3,
    folder_files=("*.parquet", "*.jsonl", "*.json"),
)
