"""Conversations in the form of OpenAI's API and of trl, from a file of the user's own.

Source: `messages`, `tools`, `tool_calls`, `weight`: platform.openai.com/docs/guides/fine-tuning; `prompt` and
`completion`: huggingface.co/docs/trl, dataset formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litft.data.reading.faults import absent_field, kind_of, missing_field, nested_fault, shown
from litft.data.reading.json_text import NotJsonError, parse_whole_json
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Row, Rows, Source
from litft.data.reading.turns import Told, messages_of, row_of
from litft.text.conversation import ASSISTANT, USER

# Fields of a message that chat templates ask for, beside role and content.
TEMPLATE_FIELDS = ("tool_calls", "tool_call_id", "name", "reasoning_content")


def read_messages(path: Path) -> Rows:
    """Gives the conversations of a file.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield _read_row(line, values)


def _read_row(line: int, values: dict[str, object]) -> Row | Rejected:
    """Reads `messages`, or `prompt` and `completion`."""
    tools = _tools(values)
    if isinstance(tools, str):
        return Rejected(line, tools)
    if values.get("messages") is not None:
        return row_of(line, _listed(values, "messages"), tools=tools)
    if "completion" not in values:
        return Rejected(line, absent_field("messages", values, "a list of messages"))
    messages: list[Told] = []
    for name, role in (("prompt", USER), ("completion", ASSISTANT)):
        if name not in values:
            return Rejected(line, missing_field(name, values))
        part = _listed(values, name) if isinstance(values[name], list) else [Told(role, values[name])]
        if isinstance(part, str):
            return Rejected(line, part)
        messages += part
    return row_of(line, messages, tools=tools)


def _tools(values: Mapping[str, object]) -> tuple[Mapping[str, Any], ...] | str:
    """Gives the tools that the model may call, or what is wrong with them."""
    tools = values.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return '"tools" is not a list of objects'
    return nested_fault(tools, '"tools"') or tuple(tools)


def _listed(values: dict[str, object], name: str) -> list[Told] | str:
    """Gives the messages of a list, or what is wrong with them."""
    listed = values[name]
    # A message that calls a tool may come without words.
    spoken = (
        [
            {"content": None, **message} if isinstance(message, dict) and message.get("tool_calls") else message
            for message in listed
        ]
        if isinstance(listed, list)
        else listed
    )
    messages = messages_of({name: spoken}, name, "role", "content", {})
    if isinstance(messages, str) or not isinstance(listed, list):
        return messages
    made = []
    for number, (told, message) in enumerate(zip(messages, listed, strict=True), start=1):
        weight = message.get("weight", 1)
        if weight not in (0, 1, None):
            return (
                f'"weight" of message {number} of "{name}" is {shown(weight)}; 0 leaves it without loss, 1 is the rule'
            )
        fault = _fields_fault(message, f'message {number} of "{name}"')
        if fault is not None:
            return fault
        calls = message.get("tool_calls")
        fields = {field: message[field] for field in TEMPLATE_FIELDS if message.get(field)}
        if calls:
            fields["tool_calls"] = [_with_object(call) for call in calls]
        made.append(told._replace(fields=fields, learn=weight != 0))
    return made


def _fields_fault(message: Mapping[str, Any], which: str) -> str | None:
    """Says which field beside role and content a template could not write; None where it can."""
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        what = f"a list that holds {next(kind_of(call) for call in calls if not isinstance(call, dict))}"
        return (
            f'"tool_calls" of {which} is {what if isinstance(calls, list) else kind_of(calls)}, not a list of objects'
        )
    for field in TEMPLATE_FIELDS:
        value = message.get(field)
        if field != "tool_calls" and not isinstance(value, str | None):
            return f'"{field}" of {which} is {kind_of(value)}, not text'
        if (fault := nested_fault(value, f'"{field}" of {which}')) is not None:
            return fault
    return None


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a call whose arguments are an object: OpenAI writes them as JSON in a text, templates want them so."""
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = parse_whole_json(function["arguments"])
    except NotJsonError:
        return dict(call)
    if nested_fault(arguments, "") is not None:
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}


SOURCE = Source(
    name="messages",
    repo_id=None,
    files=(),
    licence="your own",
    origin="unknown",
    rows=None,
    schema=(
        'JSON Lines, a JSON list or parquet of {"messages": [{"role": "system", "user", "assistant" or "tool", '
        '"content"}, ...]} or {"prompt", "completion"}'
    ),
    read=read_messages,
    folder_files=("*.parquet", "*.json", "*.jsonl"),
)
