"""What OpenAI's clients may ask: the fields of completions and chat completions, and which of them are refused.

Source: OpenAI's API reference, "Create completion" and "Create chat completion"; `top_k`, `min_p` and
`repetition_penalty` are vLLM's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from litft.generate.sample import Sampling
from litft.serve.fields import Fields
from litft.serve.refusal import Refusal
from litft.serve.served import sampling_of

MOST_STOPS = 16
MOST_CANDIDATES = 20
MOST_CHOICES = 128
NO_PENALTY = (0,)


class StreamOptions(Fields):
    """How a stream is written."""

    include_usage: bool = False


class Asked(Fields):
    """What both kinds of completion have."""

    model: str | None = None
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    seed: int | None = None
    stop: Any = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=0)
    top_k: int = 0
    min_p: float | None = None
    repetition_penalty: float | None = None

    ignored: ClassVar[frozenset[str]] = frozenset(
        {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
    )
    refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "presence_penalty": NO_PENALTY,
        "frequency_penalty": NO_PENALTY,
        "logit_bias": ({},),
    }

    def sampling(self) -> Sampling:
        """Gives the rule of sampling."""
        others = {"min_p": self.min_p, "repetition_penalty": self.repetition_penalty}
        return sampling_of(self.temperature, self.top_p, self.top_k, **others)

    def stops(self) -> tuple[str, ...]:
        """Gives the texts at which an answer ends.

        Raises:
            Refusal: it is neither a text nor a list of texts, or one is empty.
        """
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if not isinstance(given, list) or not all(isinstance(text, str) and text for text in given):
            raise Refusal(400, "stop must be a text or a list of texts, none of them empty.", "stop")
        if len(given) > MOST_STOPS:
            raise Refusal(400, f"stop has {len(given)} texts; {MOST_STOPS} are the most.", "stop")
        return tuple(given)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.get("include_usage"))


class CompletionFields(Asked):
    """A text, or several, to be continued."""

    prompt: Any = None
    logprobs: int | None = Field(None, ge=0, le=MOST_CANDIDATES)
    echo: bool = False
    max_tokens: int | None = Field(16, ge=0)

    refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {**Asked.refused, "best_of": (1,), "suffix": ("",)}

    def prompts(self) -> list[str] | list[list[int]]:
        """Gives the prompts: all texts, or all ids.

        Raises:
            Refusal: it is something else.
        """
        given = self.prompt if isinstance(self.prompt, list) else [self.prompt]
        if given and all(_is_id(number) for number in given):
            given = [given]
        if given and all(isinstance(text, str) for text in given):
            return list(given)
        if given and all(isinstance(ids, list) and ids and all(map(_is_id, ids)) for ids in given):
            return [list(ids) for ids in given]
        raise Refusal(400, "prompt must be a text, a list of texts, a list of ids or a list of such lists.", "prompt")


class ChatFields(Asked):
    """A conversation to be answered."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_CANDIDATES)

    ignored: ClassVar[frozenset[str]] = Asked.ignored | {"prediction", "parallel_tool_calls"}
    refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **Asked.refused,
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "reasoning_effort": (),
        "verbosity": (),
        "web_search_options": (),
    }

    def told(self) -> list[dict[str, Any]]:
        """Gives the messages with plain texts.

        Raises:
            Refusal: one has no role, or no text.
        """
        if not self.messages:
            raise Refusal(400, "messages is empty; give at least one.", "messages")
        return [_plain(number, message) for number, message in enumerate(self.messages)]


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(number: int, message: dict[str, Any]) -> dict[str, Any]:
    """Gives one message with its text as one piece; a developer is a system."""
    where, role = f"messages[{number}]", message.get("role")
    if not isinstance(role, str):
        raise Refusal(400, f"{where} has no role.", where)
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_text_of(part, where) for part in content)
    if not isinstance(content, str) and not (content is None and role == "assistant"):
        raise Refusal(400, f"The content of {where} must be a text or a list of parts of text.", where)
    return {**message, "role": "system" if role == "developer" else role, "content": content}


def _text_of(part: Any, where: str) -> str:
    """Gives the text of a part of a message."""
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Refusal(400, f"{where} has a part that is no text; this model reads text alone.", where)
