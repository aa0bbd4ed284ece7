"""What the tests of datasets share: writing a small file, reading it, and naming the rows it should give."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from litft.data.reading.rows import Rejected, Row
from litft.data.sources import SOURCES
from litft.text.conversation import ASSISTANT, Conversation, completion, dialogue


def write(path: Path, content: str | bytes) -> Path:
    """Writes a file and gives its path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    """Writes JSON Lines."""
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, *rows: dict[str, Any], row_group_size: int = 2) -> Path:
    """Writes parquet of a few row groups; skips the test where pyarrow is not installed."""
    arrow = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    parquet.write_table(arrow.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)
    return path


def rows_of(name: str, path: Path, **options: Any) -> list[Row | Rejected]:
    """Reads a file as a dataset."""
    return list(SOURCES[name].read(path, **options))


def talk(line: int, *texts: str, system: str = "", notes: tuple[str, ...] = ()) -> Row:
    """Names a row of questions and answers in turn."""
    assert len(texts) % 2 == 0
    return Row(line, dialogue(*texts, system=system), notes)


def one_turn(line: int, instruction: str, input: str, response: str, notes: tuple[str, ...] = ()) -> Row:
    """Names a row of one question and its answer."""
    return Row(line, completion(instruction, response, input), notes)


class Turn(NamedTuple):
    """A question and its answer, to be looked at."""

    instruction: str
    input: str
    response: str


def turns_in(conversation: Conversation) -> list[Turn]:
    """Gives the questions of a conversation with their answers."""
    told = [message for message in conversation.messages if message.role != "system"]
    if conversation.is_document:
        return [Turn("", "", told[0].text)]
    assert [message.role for message in told[1::2]] == [ASSISTANT] * (len(told) // 2)
    return [Turn(a.text, a.input, b.text) for a, b in zip(told[::2], told[1::2], strict=True)]


def reasons(rows: list[Row | Rejected]) -> list[tuple[int, str]]:
    """Gives line and reason of each rejected row."""
    return [(row.line, row.reason) for row in rows if isinstance(row, Rejected)]
