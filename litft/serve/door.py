"""What stands before every API: the key, the log line, the times, and the end of what a client that has gone asked for.

An ASGI application around another one. Knows no API.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from litft.serve.metrics import Metrics
from litft.serve.refusal import Refusal, to_json
from litft.serve.worker import Ticket, Worker

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

VISIT = "litft.visit"
OPEN_PATHS = ("/health",)  # asked by those that watch the server and have no key
GONE = 499  # the client left before it had an answer. Source: nginx's log


@dataclass
class Visit:
    """What is known of one request when it ends.

    Attributes:
        prompt: for the log, where prompts are logged.
        prompt_tokens, answer_tokens: of all its answers.
        tickets: what the worker was asked.
        status: of the reply; 499 where there was none.
    """

    prompt: str = ""
    prompt_tokens: int = 0
    answer_tokens: int = 0
    tickets: list[Ticket] = field(default_factory=list)
    status: int = GONE


@dataclass(frozen=True)
class Door:
    """Lets requests in.

    Attributes:
        app: what answers them.
        worker: told when a client has gone.
        metrics: told of each request.
        log: told of each request in one line; None where nobody wants to know.
        key: what clients must send; None where all may come.
        paths: what is counted under its own name.
    """

    app: App
    worker: Worker
    metrics: Metrics
    log: Callable[[str], None] | None
    key: str | None
    paths: frozenset[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit, started = Visit(), time.perf_counter()
        scope[VISIT] = visit

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
            await send(message)

        try:
            await (self.app if self._knows(scope) else _turn_away)(scope, receive, noting)
        finally:
            for ticket in visit.tickets:
                self.worker.cancel(ticket)
            self._note(scope, visit, time.perf_counter() - started)

    def _knows(self, scope: Scope) -> bool:
        """Whether the key is right; how long that takes says nothing of the key."""
        if self.key is None or scope["path"] in OPEN_PATHS:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given.removeprefix(b"Bearer ").strip(), self.key.encode())

    def _note(self, scope: Scope, visit: Visit, seconds: float) -> None:
        """Counts and logs a request that has ended."""
        path = scope["path"] if scope["path"] in self.paths else "other"
        self.metrics.count("litft_requests_total", path=path, status=str(visit.status))
        self.metrics.time("litft_request_seconds", seconds, path=path)
        if self.log is not None:
            client = (scope.get("client") or ("-",))[0]
            tokens = f", {visit.prompt_tokens}+{visit.answer_tokens} tokens" if visit.tickets else ""
            said = f" {visit.prompt!a}" if visit.prompt else ""
            self.log(f"{client} {scope['method']} {scope['path']!a:.80} {visit.status} {seconds:.3f} s{tokens}{said}")


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request without the right key."""
    message = "This server wants a key; send it as Authorization: Bearer KEY."
    await reply(send, Refusal(401, message, code="invalid_api_key"))


async def reply(send: Send, refusal: Refusal) -> None:
    """Sends a refusal."""
    content = to_json(refusal.body)
    named = {"content-type": "application/json", "content-length": str(len(content)), **refusal.headers}
    headers = [(name.lower().encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
