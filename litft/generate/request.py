"""What is asked of a model and what comes back, token by token. Knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from litft.generate.sample import Sampling
from litft.text.conversation import Conversation
from litft.text.encoding import Style, encode_prompt
from litft.text.encoding import stop_ids as stop_ids_of
from litft.text.tokenizer import Tokenizer

Finish = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Request:
    """One prompt to be answered.

    Attributes:
        prompt_ids: what the model reads first, BOS included where it wants one.
        max_new_tokens: longest answer in tokens.
        sampling: how each token is chosen.
        stop_ids: tokens at which the answer ends.
        stop: texts at which the answer ends; they are never given.
        seed: the same seed gives the same answer on the same machine; None draws a fresh one.
        continues: the text goes on from the prompt's, so that a first space is kept.
        top_logprobs: how many candidates are reported at each token.
    """

    prompt_ids: tuple[int, ...]
    max_new_tokens: int
    sampling: Sampling
    stop_ids: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()
    seed: int | None = None
    continues: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True)
class Candidate:
    """A token that could have come, with its log-probability."""

    id: int
    logprob: float


@dataclass(frozen=True)
class Token:
    """One token of an answer.

    Attributes:
        id: which one; at the end of an answer maybe one of `stop_ids`.
        text: what is certain with it, often empty; the pieces of all tokens joined are the answer.
        logprob: natural, of the model's own distribution: before temperature, penalty and cuts.
        top: the likeliest tokens at this place, the likeliest first.
    """

    id: int
    text: str
    logprob: float
    top: tuple[Candidate, ...] = ()


@dataclass(eq=False)
class Answer:
    """An answer as it grows; the engine fills it.

    Attributes:
        request: what is answered.
        tokens: so far, with the stop token or those of a stop string, whose text is empty.
        finish: None while it grows; `stop` at a stop token or text, `length` at the longest, or `cancelled`.
    """

    request: Request
    tokens: list[Token] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def text(self) -> str:
        """The text so far, a stop text left out."""
        return "".join(token.text for token in self.tokens)


def to_continue(
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    seed: int | None = None,
) -> Request:
    """Gives the request to go on from a text, fed as it is (with BOS where the model was trained with one).

    Raises:
        TokenizerError: the text has half a character.
    """
    ids = tuple(tokenizer.encode(prompt))
    return Request(ids, max_new_tokens, sampling, tokenizer.stop_ids, tuple(stop), seed, continues=True)


def to_answer(
    tokenizer: Tokenizer,
    style: Style,
    conversation: Conversation,
    max_new_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    seed: int | None = None,
) -> Request:
    """Gives the request to answer the last turn; the ids fed are those that training would have fed.

    Raises:
        ConfigError, TokenizerError: the style has no place for the conversation, or a text has half a character.
    """
    ids = tuple(encode_prompt(tokenizer, style, conversation))
    ends = frozenset(stop_ids_of(tokenizer, style))
    return Request(ids, max_new_tokens, sampling, ends, (*style.stop, *stop), seed)
