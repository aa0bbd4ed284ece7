"""Lists of messages as conversations: what is taken, what is dropped with a note, and why the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_rows import talk

from litft.data.reading.rows import Rejected
from litft.data.reading.turns import OPEN_QUESTION, Told, conversation_of, messages_of, row_of
from litft.text.conversation import Conversation, Message

S, U, A, T = "system", "user", "assistant", "tool"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([(U, "a"), (A, "b")], talk(1, "a", "b").conversation),
        ([(U, " a\n"), (A, "b "), (U, "c"), (A, "d")], talk(1, " a\n", "b ", "c", "d").conversation),
        ([(S, "s"), (U, "a"), (A, "b")], talk(1, "a", "b", system="s").conversation),
        ([(S, " "), (U, "a"), (A, "b")], talk(1, "a", "b").conversation),
        ([(U, "a"), (A, "b"), (U, "c")], talk(1, "a", "b").conversation),
        ([(U, "a"), (A, "b"), (U, None), (U, "")], talk(1, "a", "b").conversation),
    ],
)
def test_conversations(messages: list[tuple[str, object]], expected: Conversation) -> None:
    assert conversation_of([Told(*message) for message in messages]) == expected


def test_tools_stand_between_two_answers() -> None:
    call = Told(A, None, {"tool_calls": [{"name": "add"}]})
    told = [Told(U, "a"), call, Told(T, "3"), Told(T, ""), Told(A, "b"), Told(U, "c"), Told(T, "d")]
    found = conversation_of(told, ({"name": "add"},))
    calling = Message(A, "", fields=call.fields)
    assert found == Conversation(
        (Message(U, "a"), calling, Message(T, "3"), Message(T, ""), Message(A, "b")), ({"name": "add"},)
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no answer (0 messages)"),
        ([(U, "a")], "no answer (1 message)"),
        ([(S, "s"), (U, "a"), (U, "b")], "no answer (3 messages)"),
        ([(S, "s")], "no answer (1 message)"),
        ([(U, "a"), (A, "")], "message 2 (assistant) is empty"),
        ([(U, "a"), (A, None)], "message 2 (assistant) is null, not text"),
        ([(U, " \n"), (A, "b")], "message 1 (user) is empty"),
        ([(U, ["a"]), (A, "b")], "message 1 (user) is list, not text"),
        ([(S, None), (U, "a"), (A, "b")], "message 1 (system) is null, not text"),
        ([(U, "a"), (A, "\ud83d")], "message 2 (assistant) holds half a character (a lone surrogate)"),
        ([(U, "a"), ("critic", "b")], 'message 2 has the role "critic"; expected one of user, assistant, system, tool'),
        ([(U, "a"), (A, "b"), (T, "c"), (U, "d"), (A, "e")], "message 4 (user) stands behind one of the tool"),
        ([(U, "a"), (T, "c"), (A, "d")], "message 2 (tool) stands behind one of the user"),
        ([(A, "b"), (U, "a"), (A, "b")], "message 1 (assistant) stands where a question (user) is expected"),
        ([(S, "s"), (A, "b")], "message 2 (assistant) stands where a question (user) is expected"),
        ([(U, "a"), (A, "b"), (A, "c")], "two messages of the assistant in a row (the second is message 3)"),
        ([(U, "a"), (U, "b"), (A, "c")], "two messages of the user in a row (the second is message 2)"),
        ([(U, "a"), (S, "s"), (A, "c")], "message 2 (system) does not stand first"),
        ([(S, "s"), (S, "t"), (U, "a"), (A, "b")], "message 2 (system) does not stand first"),
        ([(U, "a"), (A, "b"), (S, "s")], "message 3 (system) does not stand first"),
    ],
)  # fmt: skip
def test_reasons(messages: list[tuple[str, object]], reason: str) -> None:
    assert conversation_of([Told(*message) for message in messages]) == reason


def test_a_dropped_question_is_noted() -> None:
    assert row_of(4, [(U, "a"), (A, "b"), (U, "c")], ("first",)) == talk(4, "a", "b", notes=("first", OPEN_QUESTION))
    assert row_of(4, [(U, "a"), (A, "b")], ("first",)) == talk(4, "a", "b", notes=("first",))
    assert row_of(4, [(U, "a")]) == Rejected(4, "no answer (1 message)")
    assert row_of(4, "as told") == Rejected(4, "as told")


def test_messages_of_a_list() -> None:
    values = {"said": [{"by": "human", "what": "a", "id": 1}, {"by": "gpt", "what": None}, {"by": "x", "what": "b"}]}
    found = messages_of(values, "said", "by", "what", {"human": U, "gpt": A})
    assert found == [Told(U, "a"), Told(A, None), Told("x", "b")]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"a": 1}, 'no "said" (found "a")'),
        ({}, 'no "said" (found nothing)'),
        ({"said": None}, '"said" is null, not a list of messages'),
        ({"said": {"by": "human"}}, '"said" is dict, not a list of messages'),
        ({"said": ["a"]}, 'message 1 of "said" is str, not an object with "by" and "what"'),
        ({"said": [{"by": "human", "what": "a"}, {"by": "gpt", "text": "b"}]},
         'message 2 of "said" has no "what" (found "by", "text")'),
        ({"said": [{"what": "a"}]}, 'message 1 of "said" has no "by" (found "what")'),
        ({"said": [{"by": None, "what": "a"}]}, '"by" of message 1 of "said" is null, not text'),
    ],
)  # fmt: skip
def test_lists_that_hold_no_messages(values: dict[str, Any], reason: str) -> None:
    assert messages_of(values, "said", "by", "what", {}) == reason
