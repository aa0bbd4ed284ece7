"""Lists of messages, as most datasets of conversations hold them, become conversations. Knows no dataset.

The one place where messages get their order: a source names the roles of its messages as `ROLES` does and leaves the
rest to `row_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from litft.data.reading.faults import kind_of, missing_field, shown, text_fault
from litft.data.reading.rows import Rejected, Row
from litft.text.conversation import ASSISTANT, ROLES, SYSTEM, TOOL, USER, Conversation, Message

OPEN_QUESTION = "the last question has no answer and was left out"

# What may stand before a message of each role.
_BEFORE = {USER: (SYSTEM, ASSISTANT), ASSISTANT: (USER, TOOL), TOOL: (ASSISTANT, TOOL)}


class Told(NamedTuple):
    """A message as a file has it.

    Attributes:
        role: its role, by our names where it has one.
        text: its text, or what stands in the place of one.
        fields: what else a chat template may ask for.
        learn: whether it may carry loss.
    """

    role: str
    text: object
    fields: Mapping[str, Any] = {}
    learn: bool = True


def row_of(
    line: int,
    messages: Sequence[tuple[str, object] | Told] | str,
    notes: tuple[str, ...] = (),
    tools: tuple[Mapping[str, Any], ...] = (),
) -> Row | Rejected:
    """Gives the row of a list of messages, noting a last question that was left out.

    Args:
        line: where the row begins.
        messages: role and text of each, or why there are none, as `messages_of` gives it.
        notes: what the source left out before.
        tools: that the model may call.
    """
    if isinstance(messages, str):
        return Rejected(line, messages)
    told = [message if isinstance(message, Told) else Told(*message) for message in messages]
    conversation = conversation_of(told, tools)
    if isinstance(conversation, str):
        return Rejected(line, conversation)
    return Row(line, conversation, (*notes, OPEN_QUESTION) if told[-1].role != ASSISTANT else notes)


def conversation_of(messages: Sequence[Told], tools: tuple[Mapping[str, Any], ...] = ()) -> Conversation | str:
    """Gives the conversation of a list of messages, or the reason why it is none.

    Questions and answers must alternate; what tools say stands between an answer that calls them and the next. One
    system message may stand first; an empty one counts as none. Messages behind the last answer are dropped, and the
    list is refused only where nothing remains.

    Args:
        messages: in their order.
        tools: that the model may call.
    """
    numbered = list(enumerate(messages, start=1))
    while numbered and numbered[-1][1].role in (USER, TOOL):
        numbered.pop()
    fault = next((fault for number, message in numbered if (fault := _message_fault(number, message))), None)
    if fault is not None:
        return fault
    if not [message for _, message in numbered if message.role != SYSTEM]:
        return f"no answer ({len(messages)} message{'s' * (len(messages) != 1)})"
    fault = _order_fault([(number, message.role) for number, message in numbered])
    if fault is not None:
        return fault
    kept = [message for _, message in numbered if message.role != SYSTEM or str(message.text).strip()]
    made = (
        Message(message.role, str(message.text or ""), learn=message.learn, fields=message.fields) for message in kept
    )
    return Conversation(tuple(made), tools)


def messages_of(
    values: Mapping[str, object], name: str, role: str, text: str, roles: Mapping[str, str]
) -> list[Told] | str:
    """Gives role and text of each message of a row's list, or the reason why that is impossible.

    Args:
        values: the row's fields.
        name: the field that holds the list.
        role, text: the fields of a message.
        roles: what the dataset calls a role -> ours. Other roles stay as they are, for `conversation_of` to refuse.
    """
    if name not in values:
        return missing_field(name, values)
    listed = values[name]
    if not isinstance(listed, list):
        return f'"{name}" is {kind_of(listed)}, not a list of messages'
    messages: list[Told] = []
    for number, message in enumerate(listed, start=1):
        if not isinstance(message, dict):
            return f'message {number} of "{name}" is {kind_of(message)}, not an object with "{role}" and "{text}"'
        absent = next((field for field in (role, text) if field not in message), None)
        if absent is not None:
            return f'message {number} of "{name}" has {missing_field(absent, message)}'
        named = message[role]
        if not isinstance(named, str):
            return f'"{role}" of message {number} of "{name}" is {kind_of(named)}, not text'
        messages.append(Told(roles.get(named, named), message[text]))
    return messages


def _message_fault(number: int, message: Told) -> str | None:
    """Says what is wrong with one message; None where nothing is."""
    if message.role not in ROLES:
        expected = f"expected one of {', '.join(ROLES)}"
        return f"message {number} has the role {shown(message.role)}; {expected}"
    if message.fields.get("tool_calls") and not message.text:
        return None  # a call needs no words
    return text_fault(message.text, f"message {number} ({message.role})", may_be_empty=message.role in (SYSTEM, TOOL))


def _order_fault(roles: list[tuple[int, str]]) -> str | None:
    """Says where messages are out of their order; None where they are not.

    Args:
        roles: number and role of each message.
    """
    misplaced = next((number for number, role in roles[1:] if role == SYSTEM), None)
    if misplaced is not None:
        return f"message {misplaced} (system) does not stand first"
    number, first = next(pair for pair in roles if pair[1] != SYSTEM)
    if first != USER:
        return f"message {number} ({first}) stands where a question (user) is expected"
    for (_, before), (number, role) in pairwise(roles):
        if role == before != TOOL:
            return f"two messages of the {role} in a row (the second is message {number})"
        if role != SYSTEM and before not in _BEFORE[role]:
            return f"message {number} ({role}) stands behind one of the {before}"
    return None
