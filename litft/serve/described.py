"""What replies look like, for `/openapi.json`. Only described by these: replies are made elsewhere.

Source: those that `openai_shapes.py` and `challenge.py` name.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Finish = Literal["stop", "length"]


class Reply(BaseModel):
    """A JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Why(Reply):
    """Why there is no answer: a sentence, its kind, the field to blame, and a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class Refused(Reply):
    """A request that gets no answer."""

    error: Why


class Health(Reply):
    """Whether requests are taken."""

    status: str


class Model(Reply):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(Reply):
    """All models that are served, which is one."""

    object: Literal["list"]
    data: list[Model]


class Usage(Reply):
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Logprobs(Reply):
    """What the tokens of a completion are worth."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None] | None
    text_offset: list[int]


class Choice(Reply):
    """One answer of a completion."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: Finish


class Completion(Reply):
    """The reply of /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Candidate(Reply):
    """A token that could have stood at a place of a chat's answer."""

    token: str
    logprob: float | None
    bytes: list[int] | None


class ChatToken(Candidate):
    """A token of a chat's answer."""

    top_logprobs: list[Candidate]


class ChatLogprobs(Reply):
    """What the tokens of a chat's answer are worth."""

    content: list[ChatToken]
    refusal: None


class Said(Reply):
    """What the model says in a chat."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Reply):
    """One answer of a chat."""

    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(Reply):
    """The reply of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Spelled(Reply):
    """A token of an answer to /process."""

    text: str
    logprob: float
    top_logprob: dict[str, float]


class Answered(Reply):
    """One answer to /process."""

    text: str
    tokens: list[Spelled]
    logprob: float


class Processed(Answered):
    """The reply of /process: its first answer, and all where several were asked for."""

    request_time: float
    completions: list[Answered] = []


class Tokenized(Reply):
    """The reply of /tokenize."""

    tokens: list[int]
    request_time: float


class Decoded(Reply):
    """The reply of /decode."""

    text: str
    request_time: float


def responses_of(reply: type[Reply] | None, is_streamed: bool = False) -> dict[int | str, dict[str, Any]]:
    """Gives a route's replies as FastAPI wants them described.

    Args:
        reply: of status 200; None where that is no JSON.
        is_streamed: whether it may come as server-sent events too.
    """
    refusals: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": Refused, "description": "The request cannot be answered; the sentence says why."},
        500: {"model": Refused, "description": "The model failed on this request."},
        503: {"model": Health if reply is Health else Refused, "description": "Nothing is answered at the moment."},
    }
    if reply is None:
        return refusals
    streamed = {"content": {"text/event-stream": {"schema": {"type": "string"}}}} if is_streamed else {}
    return {200: {"model": reply, "description": "The answer.", **streamed}, **refusals}
