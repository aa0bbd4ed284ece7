"""From exchanges to ids: the one door between a conversation and what a model reads, for training and for serving.

Knows no datasets and no masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

from litft.errors import ConfigError, TokenizerError
from litft.text.conversation import Conversation, Exchange, Piece, StyleError
from litft.text.tokenizer import Tokenizer

Encoded = tuple[list[int], list[int]]


class Style(Protocol):
    """How a conversation is framed.

    Attributes:
        name: for people.
        end: text of the special token that ends an answer; empty for the tokenizer's EOS.
        stop: texts at which generation ends, beside that token.
    """

    @property
    def name(self) -> str:
        """See the class."""

    @property
    def end(self) -> str:
        """See the class."""

    @property
    def stop(self) -> tuple[str, ...]:
        """See the class."""

    def exchanges(self, conversation: Conversation) -> list[Exchange]:
        """Gives each answer and what stands before it; raises StyleError where the style has no place for it."""

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types, ready for YAML."""


def encode_exchanges(tokenizer: Tokenizer, rows: Sequence[Sequence[Exchange]]) -> list[list[Encoded]]:
    """Gives, for each exchange of each conversation, the ids of its prompt, and of its answer with what ends it.

    An answer that is yet to be given has no ids. Texts are encoded in threads of the library. Prompt and answer are
    encoded apart: joined, the pieces at the border could merge, and then the prompt that generation feeds would not be
    the one that was trained.

    Raises:
        TokenizerError: the tokenizer lacks an end token, or a text has half a character.
    """
    texts: list[tuple[Piece, ...]] = []
    after: list[str] = []
    for exchanges in rows:
        end = ""
        for exchange in exchanges:
            texts += [exchange.prompt, exchange.answer]
            after += ["" if exchange.bos else end, tail_of(tokenizer, exchange.prompt)]
            end = text_of_end(tokenizer, exchange)
    ids = iter(tokenizer.encode_pieces(texts, after))
    return [[_finish(tokenizer, exchange, next(ids), next(ids)) for exchange in exchanges] for exchanges in rows]


def tail_of(tokenizer: Tokenizer, prompt: tuple[Piece, ...]) -> str:
    """Gives what an answer's first piece stands behind: a special token, or the end of a line for any other text."""
    if not any(piece.text for piece in prompt):
        return ""
    return _tail_of_frame(tokenizer, prompt[-1].text) if prompt[-1].message is None else "\n"


@lru_cache(maxsize=256)
def _tail_of_frame(tokenizer: Tokenizer, text: str) -> str:
    """Gives the special token that ends a text of the frame; the end of a line where none does."""
    return tokenizer.special_at_end(text) or "\n"


def text_of_end(tokenizer: Tokenizer, exchange: Exchange) -> str:
    """Gives the text of the token that ends an answer."""
    return exchange.end or tokenizer.token_text(tokenizer.require_eos())


def _finish(tokenizer: Tokenizer, exchange: Exchange, prompt: list[int], answer: list[int]) -> Encoded:
    """Adds BOS and the end."""
    if exchange.bos and tokenizer.adds_bos:
        prompt = tokenizer.with_bos(prompt)
    return prompt, [*answer, _id_of_end(tokenizer, exchange.end)] if exchange.answer else []


def _id_of_end(tokenizer: Tokenizer, end: str | None) -> int:
    """Gives the id of a token that ends answers."""
    found = tokenizer.id_of(end) if end else tokenizer.require_eos()
    if found is None:
        raise TokenizerError(
            f"The prompt style ends answers with {end}, which is no token of this tokenizer; choose another "
            "--prompt_style."
        )
    return found


def encode_conversation(tokenizer: Tokenizer, style: Style, conversation: Conversation) -> list[Encoded]:
    """Gives the ids of the prompt and the answer of each exchange.

    Raises:
        ConfigError: the style has no place for the conversation.
        TokenizerError: as `encode_exchanges`.
    """
    try:
        exchanges = style.exchanges(conversation)
    except StyleError as error:
        raise ConfigError(f'The prompt style "{style.name}" cannot frame this conversation: {error}.') from error
    return encode_exchanges(tokenizer, [exchanges])[0]


def encode_prompt(tokenizer: Tokenizer, style: Style, conversation: Conversation) -> list[int]:
    """Gives the ids to generate from: all before the answer that is yet to be given.

    Args:
        tokenizer: of the model that answers.
        style: the one it was trained with.
        conversation: ends with a question.

    Raises:
        ConfigError, TokenizerError: as `encode_conversation`.
    """
    exchanges = encode_conversation(tokenizer, style, conversation)
    assert not exchanges[-1][1], "the conversation ends with an answer"
    return [number for prompt, answer in exchanges for number in (*prompt, *answer)]


def end_id(tokenizer: Tokenizer, style: Style) -> int:
    """Gives the id that ends an answer.

    Raises:
        TokenizerError: the tokenizer has no such token.
    """
    return _id_of_end(tokenizer, style.end or None)


def stop_ids(tokenizer: Tokenizer, style: Style | None) -> list[int]:
    """Gives every id at which an answer ends, that of the style first: also stop texts that are one special token."""
    if style is None:
        return sorted(tokenizer.stop_ids, key=lambda number: (number != tokenizer.eos_id, number))
    texts = [tokenizer.encode(text, bos=False) for text in style.stop]
    single = {ids[0] for ids in texts if len(ids) == 1}
    end = tokenizer.id_of(style.end) if style.end else tokenizer.eos_id
    known = {*tokenizer.stop_ids, *single, *([end] if end is not None else [])}
    return sorted(known, key=lambda number: (number != end, number))
