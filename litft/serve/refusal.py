"""Why a request gets no answer: a status, one sentence, and what OpenAI's clients read of it. Knows no framework."""

from __future__ import annotations

import json
from typing import Any

from litft.errors import LitftError

SERVER_ERROR = 500
TOO_MANY = 429
_KINDS = {TOO_MANY: "rate_limit_error", 401: "authentication_error"}


class Refusal(LitftError):  # noqa: N818 - a reply, though it is raised
    """A request that gets no answer.

    Attributes:
        status: of HTTP.
        param: which field is to blame.
        code: for programs, such as `model_not_found`.
        retry_after: when another attempt may be of use, in seconds; None where it is not.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers beside the status."""
        named = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return {**named, "WWW-Authenticate": "Bearer"} if self.status == 401 else named

    @property
    def body(self) -> dict[str, Any]:
        """The body. Source: OpenAI's API reference, "Error codes"; other clients of ours read the sentence alone."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= SERVER_ERROR else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def to_json(values: Any) -> bytes:
    """Writes JSON in ASCII, which carries half characters too: a client may have sent some."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).encode("ascii")
