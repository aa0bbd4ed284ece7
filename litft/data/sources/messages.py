"""Conversations in the form of OpenAI's API and of trl, from a file of the user's own.

Source: `messages`: platform.openai.com/docs/guides/fine-tuning; `prompt` and `completion`: huggingface.co/docs/trl,
dataset formats.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Row, Rows, Source, missing_field
from litft.data.reading.turns import ROLES, messages_of, row_of

OUR_ROLES = {role: role for role in ROLES}


def read_messages(path: Path) -> Rows:
    """Gives the conversations of a file. What only tools can answer is rejected: no prompt style has a place for it.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield _read_row(line, values)


def _read_row(line: int, values: dict[str, object]) -> Row | Rejected:
    """Reads `messages`, or `prompt` and `completion`."""
    if values.get("messages") is not None:
        return row_of(line, _listed(values, "messages"))
    if "completion" not in values:
        return Rejected(line, missing_field("messages", values))
    messages: list[tuple[str, object]] = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        if name not in values:
            return Rejected(line, missing_field(name, values))
        part = _listed(values, name) if isinstance(values[name], list) else [(role, values[name])]
        if isinstance(part, str):
            return Rejected(line, part)
        messages += part
    return row_of(line, messages)


def _listed(values: dict[str, object], name: str) -> list[tuple[str, object]] | str:
    """Gives the messages of a list, or what is wrong with them."""
    messages = messages_of(values, name, "role", "content", OUR_ROLES)
    listed = values[name]
    if isinstance(messages, str) or not isinstance(listed, list):
        return messages
    calling = next((number for number, message in enumerate(listed, start=1) if message.get("tool_calls")), None)
    if calling is not None:
        return f'message {calling} of "{name}" calls a tool, for which no prompt style has a place'
    return messages


SOURCE = Source(
    name="messages",
    repo_id=None,
    files=(),
    licence="your own",
    origin="unknown",
    rows=None,
    schema=(
        'JSON Lines, a JSON list or parquet of {"messages": [{"role": "system", "user" or "assistant", "content"}, '
        '...]} or {"prompt", "completion"}'
    ),
    read=read_messages,
    folder_files=("*.parquet", "*.json", "*.jsonl"),
)
