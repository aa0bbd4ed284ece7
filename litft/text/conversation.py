"""A conversation as messages, and as a model meets it: what stands before each answer, and the answer. Knows no style.

Datasets give conversations; a style turns one into exchanges; `encoding.py` turns exchanges into ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

USER, ASSISTANT, SYSTEM, TOOL = ROLES = ("user", "assistant", "system", "tool")

Span = tuple[int, int]


class StyleError(Exception):
    """Why a style has no place for a conversation: a reason to be shown with the row, not a sentence of its own."""


@dataclass(frozen=True)
class Message:
    """What one party says.

    Attributes:
        role: one of `ROLES`.
        text: what is said.
        input: what an instruction is about, where a dataset keeps that apart; `text` and it are one message elsewhere.
        learn: False leaves an answer without loss, whatever else is learned.
        targets: characters of `text` with loss, each from its first to behind its last; None for all of them.
        fields: what else a chat template may ask for, such as `tool_calls`.
    """

    role: str
    text: str
    input: str = ""
    learn: bool = True
    targets: tuple[Span, ...] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole_text(self) -> str:
        """The text with its input below it, after an empty line."""
        return f"{self.text}\n\n{self.input}" if self.input.strip() else self.text


@dataclass(frozen=True)
class Conversation:
    """Messages in their order, and the tools that the model may call, as JSON schemas."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()

    @property
    def answers(self) -> list[int]:
        """Which messages are the model's."""
        return [index for index, message in enumerate(self.messages) if message.role == ASSISTANT]

    @property
    def is_document(self) -> bool:
        """Whether it is a text that nobody asked for: it stands without a frame, in any style."""
        return [message.role for message in self.messages] == [ASSISTANT]

    def until(self, index: int) -> Conversation:
        """Gives what stands before a message."""
        return replace(self, messages=self.messages[:index])


def dialogue(*texts: str, system: str = "") -> Conversation:
    """Gives texts that alternate between user and assistant, behind a system text if there is one."""
    told = [Message(SYSTEM, system)] if system else []
    told += [Message((USER, ASSISTANT)[index % 2], text) for index, text in enumerate(texts)]
    return Conversation(tuple(told))


def completion(instruction: str, response: str, input: str = "") -> Conversation:
    """Gives one instruction, with what it is about, and its response."""
    return Conversation((Message(USER, instruction, input), Message(ASSISTANT, response)))


def document(text: str, targets: tuple[Span, ...] | None = None) -> Conversation:
    """Gives a text that nobody asked for, with loss on all of it or on some of its characters."""
    return Conversation((Message(ASSISTANT, text, targets=targets),))


class Piece(NamedTuple):
    """Part of a framed text: of the message with this number, or of the frame where `message` is None."""

    text: str
    message: int | None = None


@dataclass(frozen=True)
class Exchange:
    """One answer and what stands between it and the answer before.

    Attributes:
        prompt: what the model reads.
        answer: what it is to say, its end left out; empty where it is yet to be given.
        message: which message the answer is.
        end: text of the special token that ends the answer; None for the tokenizer's EOS.
        bos: whether BOS stands before the prompt where the model was trained with one. A chat template writes its own.
        found: how the answer was found in its frame.
        is_served: whether a model that is asked this way meets just this prompt.
    """

    prompt: tuple[Piece, ...]
    answer: tuple[Piece, ...]
    message: int
    end: str | None = None
    bos: bool = False
    found: str = "frame"
    is_served: bool = True


def bare_exchange(conversation: Conversation) -> Exchange:
    """Gives a document as it stands, between BOS and EOS."""
    return Exchange((), (Piece(conversation.messages[0].text, 0),), 0, bos=True)
