"""LIMA: JSON Lines of conversations, each a list of texts that alternate between user and assistant.

Source: huggingface.co/datasets/GAIR/lima (gated: its licence is to be accepted there).
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.faults import absent_field, text_fault
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Row, Rows, Source
from litft.text.conversation import dialogue


def read_lima(path: Path) -> Rows:
    """Gives the conversations of a file, each of one or more turns.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield _read_row(line, values)


def _read_row(line: int, values: dict[str, object]) -> Row | Rejected:
    """Pairs the texts of one row to turns."""
    texts = values.get("conversations")
    if not isinstance(texts, list) or not texts:
        return Rejected(line, absent_field("conversations", values, "a list of texts"))
    for number, text in enumerate(texts, start=1):
        reason = text_fault(text, f"text {number} of the conversation")
        if reason is not None:
            return Rejected(line, reason)
    if len(texts) % 2:
        # The published test split is 300 questions without answers.
        return Rejected(line, f"{len(texts)} text{'s' * (len(texts) > 1)}, so the last question has no answer")
    return Row(line, dialogue(*texts))


SOURCE = Source(
    name="lima",
    repo_id="GAIR/lima",
    files=("train.jsonl",),
    licence="CC BY-NC-SA 4.0, or stricter where a source text is",
    origin="human",
    rows=1_030,
    schema='JSON Lines of {"conversations": [question, answer, question, answer, ...], "source"}',
    read=read_lima,
)
