"""Lists of messages, as most datasets of conversations hold them, become conversations. Knows no dataset.

The one place where messages turn into turns: a source names the roles of its messages `system`, `user` and `assistant`
and leaves the rest to `conversation_of`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from litft.data.reading.rows import Rejected, Row, missing_field, text_fault
from litft.text.prompts import Conversation, Turn

ROLES = ("system", "user", "assistant")

OPEN_QUESTION = "the last question has no answer and was left out"


def row_of(line: int, messages: Sequence[tuple[str, object]] | str, notes: tuple[str, ...] = ()) -> Row | Rejected:
    """Gives the row of a list of messages, noting a last question that was left out.

    Args:
        line: where the row begins.
        messages: role and text of each, or why there are none, as `messages_of` gives it.
        notes: what the source left out before.
    """
    if isinstance(messages, str):
        return Rejected(line, messages)
    conversation = conversation_of(messages)
    if isinstance(conversation, str):
        return Rejected(line, conversation)
    return Row(line, conversation, (*notes, OPEN_QUESTION) if messages[-1][0] == "user" else notes)


def conversation_of(messages: Sequence[tuple[str, object]]) -> Conversation | str:
    """Gives the conversation of a list of messages, or the reason why it is none.

    Questions and answers must alternate. One system message may stand first; an empty one counts as none. Messages of
    the user at the end have no answer: they are dropped, and the list is refused only where nothing remains.

    Args:
        messages: role (`system`, `user` or `assistant`) and text of each, in their order.
    """
    numbered = list(enumerate(messages, start=1))
    while numbered and numbered[-1][1][0] == "user":
        numbered.pop()
    fault = next((fault for number, message in numbered if (fault := _message_fault(number, *message))), None)
    if fault is not None:
        return fault
    told = [(number, role, str(text)) for number, (role, text) in numbered]
    system = told.pop(0)[2] if told and told[0][1] == "system" else ""
    if not told:
        return f"no answer ({len(messages)} message{'s' * (len(messages) != 1)})"
    fault = _order_fault([(number, role) for number, role, _ in told])
    if fault is not None:
        return fault
    texts = [text for _, _, text in told]
    turns = (Turn(question, response=answer) for question, answer in zip(texts[::2], texts[1::2], strict=True))
    return Conversation(tuple(turns), system if system.strip() else "")


def messages_of(
    values: Mapping[str, object], name: str, role: str, text: str, roles: Mapping[str, str]
) -> list[tuple[str, object]] | str:
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
        return f'"{name}" is {_kind(listed)}, not a list of messages'
    messages: list[tuple[str, object]] = []
    for number, message in enumerate(listed, start=1):
        if not isinstance(message, dict):
            return f'message {number} of "{name}" is {_kind(message)}, not an object with "{role}" and "{text}"'
        absent = next((field for field in (role, text) if field not in message), None)
        if absent is not None:
            return f'message {number} of "{name}" has {missing_field(absent, message)}'
        named = message[role]
        if not isinstance(named, str):
            return f'"{role}" of message {number} of "{name}" is {_kind(named)}, not text'
        messages.append((roles.get(named, named), message[text]))
    return messages


def _message_fault(number: int, role: str, text: object) -> str | None:
    """Says what is wrong with one message; None where nothing is."""
    if role == "tool":
        return f'message {number} has the role "tool", for which no prompt style has a place'
    if role not in ROLES:
        return f'message {number} has the role "{role}"; expected one of {", ".join(ROLES)}'
    return text_fault(text, f"message {number} ({role})", may_be_empty=role == "system")


def _order_fault(roles: list[tuple[int, str]]) -> str | None:
    """Says where questions and answers do not alternate; None where they do.

    Args:
        roles: number and role of each message after the system message, the last of them no question.
    """
    misplaced = next((number for number, role in roles if role == "system"), None)
    if misplaced is not None:
        return f"message {misplaced} (system) does not stand first"
    number, first = roles[0]
    if first != "user":
        return f"message {number} ({first}) stands where a question (user) is expected"
    for (_, before), (number, role) in pairwise(roles):
        if role == before:
            return f"two messages of the {role} in a row (the second is message {number})"
    return None


def _kind(value: object) -> str:
    """Names a value's type, as a person with a JSON file knows it."""
    return "null" if value is None else type(value).__name__
