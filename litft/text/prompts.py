"""How a conversation becomes text by frames that are written out: the prompt styles with a name. Knows no tokenizer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from litft.errors import ConfigError, did_you_mean
from litft.text.conversation import (
    SYSTEM,
    TOOL,
    USER,
    Conversation,
    Exchange,
    Message,
    Piece,
    StyleError,
    bare_exchange,
)

Filled = tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class PromptStyle:
    """The frame around a conversation.

    The frames hold `{instruction}` and `{input}`, the first also `{system}` if it stands elsewhere than before it; all
    else stands as it is, and braces in a user's text stay theirs. Special tokens written in a frame are tokens, those
    that a person writes are plain characters.

    Attributes:
        name: as the command line names it.
        first: the frame of the first turn; first_with_input: the same where the turn has an input.
        later, later_with_input: the frames of the turns after it.
        system: the frame of a system text, which holds `{system}`; default_system: the text where none is given.
        answer: the frame of an answer, which holds `{response}`; all of it is learned.
        end: the special token that ends an answer; empty for the tokenizer's EOS.
        after: what stands between that token and the next turn; not learned.
        bos_each_turn: BOS stands before every turn, not before the first alone.
        stop: texts at which generation ends, beside the end token.
    """

    name: str
    first: str
    first_with_input: str
    later: str
    later_with_input: str
    system: str = "{system}\n\n"
    default_system: str = ""
    answer: str = "{response}"
    end: str = ""
    after: str = ""
    bos_each_turn: bool = False
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses frames that lose the user's text.

        Raises:
            ConfigError: a field is no text, or a frame lacks a placeholder.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "str" and not isinstance(value, str):
                raise ConfigError(f"{field.name} of the prompt style is {value!r}; it must be text.")
        for name, placeholders in _PLACEHOLDERS.items():
            for placeholder in placeholders:
                if placeholder not in getattr(self, name):
                    raise ConfigError(f'{name} of the prompt style "{self.name}" lacks {placeholder}.')

    def exchanges(self, conversation: Conversation) -> list[Exchange]:
        """Gives each answer in its frame; the last one open where the conversation ends with a question.

        Raises:
            StyleError: the messages are not question and answer in turn, or a tool takes part.
        """
        if conversation.is_document:
            return [bare_exchange(conversation)]
        messages = conversation.messages
        first = 1 if messages and messages[0].role == SYSTEM else 0
        _refuse_order(messages, first)
        system = Piece(messages[0].text, 0) if first and messages[0].text.strip() else Piece(self.default_system)
        made = []
        for asked in range(first, len(messages), 2):
            answered = asked + 1 < len(messages)
            made.append(
                Exchange(
                    prompt=self._prompt(messages[asked], asked, system if asked == first else None),
                    answer=fill(self.answer, {RESPONSE: (Piece(messages[asked + 1].text, asked + 1),)})
                    if answered
                    else (),
                    message=asked + 1,
                    end=self.end or None,
                    bos=asked == first or self.bos_each_turn,
                )
            )
        return made

    def _prompt(self, message: Message, index: int, system: Piece | None) -> Filled:
        """Gives one question's frame, filled in one pass so that a placeholder in a user's text stays text.

        Args:
            message, index: the question.
            system: the system text, before the first question only.
        """
        is_first = system is not None
        plain, with_input = (self.first, self.first_with_input) if is_first else (self.later, self.later_with_input)
        frame = with_input if message.input.strip() else plain
        texts = {INSTRUCTION: (Piece(message.text, index),), INPUT: (Piece(message.input, index),)}
        if system is None:
            return (*_frame(self.after), *fill(frame, texts))
        framed_system = fill(self.system, {SYSTEM_TEXT: (system,)}) if system.text else ()
        if SYSTEM_TEXT not in frame:
            return framed_system + fill(frame, texts)
        return fill(frame, {**texts, SYSTEM_TEXT: framed_system})

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types, ready for YAML; `from_dict` reads them back."""
        return {**dataclasses.asdict(self), "stop": list(self.stop)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PromptStyle:
        """Builds from plain types.

        Raises:
            ConfigError: a key is unknown, missing or not of its type.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigError(f'Unknown field "{key}" of a prompt style.{did_you_mean(str(key), known)}')
        needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
        missing = sorted(needed - values.keys())
        if missing:
            raise ConfigError(f"The prompt style lacks {', '.join(missing)}.")
        stop = values.get("stop") or []
        if not isinstance(stop, list | tuple) or not all(isinstance(text, str) for text in stop):
            raise ConfigError(f"stop of the prompt style is {stop!r}; it must be a list of texts.")
        return cls(**{**values, "stop": tuple(stop)})


INSTRUCTION, INPUT, RESPONSE, SYSTEM_TEXT = "{instruction}", "{input}", "{response}", "{system}"
_PLACEHOLDERS = {
    "first": (INSTRUCTION,),
    "first_with_input": (INSTRUCTION, INPUT),
    "later": (INSTRUCTION,),
    "later_with_input": (INSTRUCTION, INPUT),
    "system": (SYSTEM_TEXT,),
    "answer": (RESPONSE,),
}


def fill(frame: str, values: Mapping[str, Filled]) -> Filled:
    """Puts pieces in the places of a frame.

    Args:
        frame: text with placeholders such as `{instruction}`.
        values: what stands for each.
    """
    made: list[Piece] = []
    for part in _parts(frame, tuple(values)):
        made += values[part] if part in values else _frame(part)
    return tuple(made)


@lru_cache(maxsize=256)
def _parts(frame: str, placeholders: tuple[str, ...]) -> list[str]:
    """Gives a frame in its texts and placeholders, by turns."""
    return re.split("(" + "|".join(map(re.escape, placeholders)) + ")", frame)


def _frame(text: str) -> Filled:
    """Gives a text of the frame, nothing for an empty one."""
    return (Piece(text),) if text else ()


def _refuse_order(messages: Sequence[Message], first: int) -> None:
    """Refuses messages that are not question and answer in turn: frames have no other places."""
    for number, message in enumerate(messages[first:], start=first + 1):
        if message.role == TOOL or message.fields.get("tool_calls"):
            what = "is a tool's" if message.role == TOOL else "calls a tool"
            raise StyleError(f"message {number} {what}; only a chat template has a place for that")
        if message.role == SYSTEM:
            raise StyleError(f"message {number} (system) does not stand first")
    if len(messages) == first:
        raise StyleError("there is no question")
    if messages[first].role != USER:
        raise StyleError(f"message {first + 1} ({messages[first].role}) stands where a question (user) is expected")
    for number, (before, message) in enumerate(pairwise(messages[first:]), start=first + 2):
        if message.role == before.role:
            raise StyleError(f"two messages of the {message.role} in a row (the second is message {number})")
