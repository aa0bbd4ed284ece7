"""Dialogues in the form of ShareGPT, from a file of the user's own.

Source: the form that github.com/lm-sys/FastChat trains on; `bing` and `bard` stand for other assistants in the wild.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Row, Rows, Source
from litft.data.reading.turns import messages_of, row_of

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}

LEADING_ANSWER = "the first message was an answer to nothing and was left out"


def read_sharegpt(path: Path) -> Rows:
    """Gives the conversations of a file; of one that begins with an answer, that first message is left out.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield read_conversations(line, values)


def read_conversations(line: int, values: dict[str, object]) -> Row | Rejected:
    """Gives the row of a list `conversations` of `from` and `value`."""
    messages = messages_of(values, "conversations", "from", "value", ROLES)
    if isinstance(messages, str):
        return Rejected(line, messages)
    first = next((index for index, message in enumerate(messages) if message.role != "system"), None)
    if first is None or messages[first].role != "assistant":
        return row_of(line, messages)
    return row_of(line, messages[:first] + messages[first + 1 :], (LEADING_ANSWER,))


SOURCE = Source(
    name="sharegpt",
    repo_id=None,
    files=(),
    licence="your own",
    origin="model",
    rows=None,
    schema='a JSON list, JSON Lines or parquet of {"conversations": [{"from": "human" or "gpt", "value"}, ...]}',
    read=read_sharegpt,
    folder_files=("*.parquet", "*.json", "*.jsonl"),
)
