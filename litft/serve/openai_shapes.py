"""What OpenAI's clients read: choices, log-probabilities, chunks of a stream. Knows nothing of how answers are made.

Source: OpenAI's API reference, "The completion object", "The chat completion object" and the chunks of the latter.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from litft.generate.request import Token
from litft.serve.refusal import to_json

LEAST_LOGPROB = -9999.0  # what stands for minus infinity, which JSON does not have. Source: OpenAI's API reference

TokenText = Callable[[int], str]


@dataclass(frozen=True)
class Shape:
    """How the replies of one request look.

    Attributes:
        model: as the client called it.
        is_chat: of the two kinds, which.
        token_text: gives the text of one token by its id.
        candidates: how many are told at each token; None where no log-probabilities are told.
        has_usage: whether each chunk has a place for the counts.
    """

    model: str
    is_chat: bool
    token_text: TokenText
    candidates: int | None
    has_usage: bool = False
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(
        cls, model: str, is_chat: bool, token_text: TokenText, candidates: int | None, has_usage: bool = False
    ) -> Shape:
        """Begins a reply under a new id."""
        name = f"{'chatcmpl' if is_chat else 'cmpl'}-{secrets.token_hex(12)}"
        return cls(model, is_chat, token_text, candidates, has_usage, name)

    def whole(self, choices: Sequence[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """Gives a reply that comes at once."""
        return {**self._head("chat.completion" if self.is_chat else "text_completion", choices), "usage": usage}

    def chunk(self, choices: Sequence[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        """Gives one event of a stream."""
        body = self._head("chat.completion.chunk" if self.is_chat else "text_completion", choices)
        return event(body | ({"usage": usage} if self.has_usage else {}))

    def _head(self, kind: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": list(choices)
        }  # fmt: skip

    def choice(
        self, index: int, text: str, tokens: Sequence[Token], finish: str | None, offset: int = 0
    ) -> dict[str, Any]:
        """Gives one whole choice.

        Args:
            index: which.
            text: of the answer, with the prompt where that was asked for.
            tokens: that are told, with their log-probabilities.
            finish: `stop` or `length`.
            offset: characters before the first token.
        """
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.is_chat else {"text": text}
        return {"index": index, **said, "logprobs": self._logprobs(tokens, offset), "finish_reason": finish}

    def delta(
        self,
        index: int,
        text: str,
        tokens: Sequence[Token],
        finish: str | None,
        offset: int = 0,
        is_first: bool = False,
    ) -> dict[str, Any]:
        """Gives one choice of a chunk; the arguments are those of `choice`."""
        said: dict[str, Any] = {"text": text}
        if self.is_chat:
            delta = {**({"role": "assistant"} if is_first else {}), **({"content": text} if text or is_first else {})}
            said = {"delta": delta}
        logprobs = self._logprobs(tokens, offset) if tokens else None
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, tokens: Sequence[Token], offset: int) -> dict[str, Any] | None:
        """Gives the log-probabilities in the shape of this kind."""
        if self.candidates is None:
            return None
        if self.is_chat:
            return {"content": [self._chat_token(token) for token in tokens], "refusal": None}
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(token.text)
        return {
            "tokens": [self.token_text(token.id) for token in tokens],
            "token_logprobs": [logprob(token.logprob) for token in tokens],
            "top_logprobs": [self._top(token) for token in tokens] if self.candidates else None,
            "text_offset": offsets,
        }

    def _top(self, token: Token) -> dict[str, float | None] | None:
        """Gives the candidates at a token by their texts; of two with one text the likelier."""
        pairs = {self.token_text(other.id): logprob(other.logprob) for other in reversed(token.top)}
        return pairs or None

    def _chat_token(self, token: Token) -> dict[str, Any]:
        """Gives one token as chat completions tell it."""
        top = [self._named(other.id, other.logprob) for other in token.top]
        return {**self._named(token.id, token.logprob), "top_logprobs": top}

    def _named(self, number: int, value: float) -> dict[str, Any]:
        text = self.token_text(number)
        whole = None if "\ufffd" in text else list(text.encode())  # part of a character has no text of its own
        return {"token": text, "logprob": logprob(value), "bytes": whole}


def event(values: Any) -> bytes:
    """Writes one server-sent event."""
    return b"data: " + to_json(values) + b"\n\n"


def logprob(value: float) -> float | None:
    """Gives a log-probability that JSON can carry; nothing for that of a first token, which nothing foretells."""
    return None if math.isnan(value) else max(value, LEAST_LOGPROB)


def usage_of(prompt_tokens: int, answer_tokens: int) -> dict[str, int]:
    """Gives the counts of tokens."""
    total = prompt_tokens + answer_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": answer_tokens, "total_tokens": total}
