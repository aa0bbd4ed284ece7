"""What becomes of a row that is longer than the model may read. Knows no files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from litft.data.encode import Encoding, Example, cut_example
from litft.text.conversation import SYSTEM, USER, Conversation, Message

# A text is cut where a word begins, if one begins within so many characters.
_WORD_CHARACTERS = 40


@dataclass(frozen=True)
class Fitted:
    """What a row became.

    Attributes:
        examples: the rows that are short enough; none where it was left out, several where it was divided.
        cut: what was cut away of it: `prompt`, `answer` or nothing.
        lost_turns: of a divided row, answers that fit in no part.
    """

    examples: tuple[Example, ...] = ()
    cut: str = ""
    lost_turns: int = 0


def fit(encoding: Encoding, conversation: Conversation | None, example: Example, longest: int, too_long: str) -> Fitted:
    """Brings a row to the length allowed.

    Args:
        encoding: what made the example.
        conversation: what it was made of; None for ids, of which only the end can be cut.
        example: the row.
        longest: tokens it may have.
        too_long: as `PrepareConfig` has it.
    """
    if len(example.input_ids) <= longest:
        return Fitted((example,))
    if too_long == "truncate_response":
        short = cut_example(example, longest)
        return Fitted((short,), "answer") if short else Fitted()
    if too_long == "drop" or conversation is None:
        return Fitted()
    if too_long == "split_turns":
        return _split(encoding, conversation, longest)
    shorter = _with_less_prompt(encoding, conversation, example, longest)
    return Fitted((shorter,), "prompt") if shorter else Fitted()


def _with_less_prompt(encoding: Encoding, conversation: Conversation, example: Example, longest: int) -> Example | None:
    """Cuts from the left what a question is about; where there is nothing of that kind, the longest question.

    Frame, system text and answers stay whole. None where they alone are too long.
    """
    while (over := len(example.input_ids) - longest) > 0:
        found = _longest_text(conversation)
        if found is None:
            return None
        index, field = found
        message = conversation.messages[index]
        cut = replace(message, **{field: _from_right(encoding, getattr(message, field), over)})  # type: ignore[arg-type]
        messages = (*conversation.messages[:index], cut, *conversation.messages[index + 1 :])
        conversation = replace(conversation, messages=messages)
        example = encoding.example(conversation)
    return example


def _longest_text(conversation: Conversation) -> tuple[int, str] | None:
    """Gives the message, and its field, to cut; None where each is but a word."""
    asked = [(index, message) for index, message in enumerate(conversation.messages) if message.role == USER]
    for field in ("input", "text"):
        choices = [(len(text), index) for index, message in asked if " " in (text := _said(message, field))]
        if choices:
            return max(choices)[1], field
    return None


def _said(message: Message, field: str) -> str:
    """Gives a field of a message without the space around it."""
    text: str = getattr(message, field)
    return text.strip()


def _from_right(encoding: Encoding, text: str, over: int) -> str:
    """Gives the end of a text, about `over` tokens shorter; never less than its last word."""
    text = text.strip()
    count = len(encoding.tokenizer.encode_batch([text])[0])
    begin = math.ceil(len(text) * min(over / count, 1.0))
    word = text.find(" ", begin, begin + _WORD_CHARACTERS)
    begin = max(begin, 1) if word < 0 else word
    kept = text[begin:].strip()
    return kept if kept else text.rpartition(" ")[2]


def _split(encoding: Encoding, conversation: Conversation, longest: int) -> Fitted:
    """Divides a conversation between turns; each part begins with the system text, and no answer is in two parts."""
    turns = list(_turns(conversation))
    made: list[Example] = []
    lost = start = 0
    while start < len(turns):
        part, count = None, 0
        for end in range(start + 1, len(turns) + 1):
            longer = encoding.example(_joined(conversation, turns[start:end]))
            if len(longer.input_ids) > longest:
                break
            part, count = longer, end - start
        if part is None:
            lone = _joined(conversation, turns[start : start + 1])
            part, count = _with_less_prompt(encoding, lone, encoding.example(lone), longest), 1
        if part is None or not part.target_tokens:
            lost += count
        else:
            made.append(part)
        start += count
    return Fitted(tuple(made), "", lost)


def _turns(conversation: Conversation) -> Iterator[tuple[Message, ...]]:
    """Gives each answer with the messages before it."""
    first = 1 if conversation.messages[0].role == SYSTEM else 0
    for index in conversation.answers:
        yield conversation.messages[first : index + 1]
        first = index + 1


def _joined(conversation: Conversation, turns: list[tuple[Message, ...]]) -> Conversation:
    """Gives a conversation of some of the turns, behind the system text."""
    system = tuple(message for message in conversation.messages[:1] if message.role == SYSTEM)
    return replace(conversation, messages=(*system, *(message for turn in turns for message in turn)))
