"""The FLAN collection: JSON Lines of inputs and targets, or its own files of questions with chains of thought.

Source: huggingface.co/datasets/Muennighoff/flan (one file for each task, of which those wanted are named with
`--data_file`), and github.com/google-research/FLAN, `flan/v2/cot_data/*.tsv`.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.kinds import plain_suffix
from litft.data.reading.lines import iter_lines
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Found, Rejected, Row, Rows, Source, read_fields
from litft.errors import DataError

# Source: the first of the patterns `cot_gsm8k` in FLAN's `flan/v2/templates.py`.
COT_TARGET = "{chain_of_thought}\nTherefore, the answer is {answer}."

COLUMNS = ("question", "answer", "chain_of_thought")


def read_flan(path: Path, answers: str = "chain_of_thought") -> Rows:
    """Gives the rows of a file, each one turn; `.tsv` holds questions, answers and chains of thought.

    Args:
        path: the file.
        answers: what a row of a `.tsv` teaches: `chain_of_thought` and then the answer, or `answer` alone.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    if plain_suffix(path) == ".tsv":
        taught = "the chain of thought and then the answer" if answers == "chain_of_thought" else "the answer alone"
        yield Found(f"The rows are questions with chains of thought; taught is {taught} (--answers).")
        for line, text in iter_lines(path):
            if text.strip():
                yield _read_cells(path, line, text.rstrip("\r\n"), answers)
        return
    for line, values in iter_records(path):
        yield read_fields(line, values, instruction="inputs", response="targets")


def _read_cells(path: Path, line: int, text: str, answers: str) -> Row | Rejected:
    """Reads one line of a `.tsv`, which has no header and no quotes."""
    cells = text.split("\t")
    if tuple(cell.strip().lower() for cell in cells) == COLUMNS:
        return Rejected(line, "a header, which the published files do not have", is_fault=False)
    if sorted(cell.strip().lower() for cell in cells) == sorted(COLUMNS):
        raise DataError(f"{path}, line {line} is a header in another order; expected are {', '.join(COLUMNS)}.")
    if len(cells) != len(COLUMNS):
        count = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
        return Rejected(line, f"{count} between tabs; expected {len(COLUMNS)}: {', '.join(COLUMNS)}")
    # Source: `simple_cot_tsv` of FLAN's `flan/v2/preprocessors.py`: a line end stands as backslash and n.
    values: dict[str, object] = dict(zip(COLUMNS, (cell.replace("\\n", "\n") for cell in cells), strict=True))
    if answers == "answer":
        return read_fields(line, values, instruction="question", response="answer")
    for response in ("answer", "chain_of_thought"):
        row = read_fields(line, values, instruction="question", response=response)
        if isinstance(row, Rejected):
            return row
    return read_fields(line, {**values, "target": _cot_target(values)}, instruction="question", response="target")


def _cot_target(values: dict[str, object]) -> str:
    """Gives the chain and then the answer; a full stop that the answer has already is not doubled."""
    answer, chain = str(values["answer"]), str(values["chain_of_thought"])
    return COT_TARGET.format(chain_of_thought=chain, answer=answer.rstrip().removesuffix("."))


SOURCE = Source(
    name="flan",
    repo_id=None,
    files=(),
    licence="Apache-2.0; the tasks keep their own",
    origin="human",
    rows=None,
    schema=(
        'JSON Lines (or parquet) of {"inputs", "targets", "task"}, as in Muennighoff/flan, or a .tsv without a header: '
        "question, answer, chain of thought"
    ),
    read=read_flan,
    folder_files=("*.jsonl", "*.tsv", "*.parquet", "*.jsonl.gz"),
    has_fields=False,
)
