"""Connections of the server: how many there may be, and how long each may take. Knows no API.

uvicorn waits for ever for a request's head, for the rest of a body that nobody reads and for a client that reads
nothing. Here each has its time, and where no connection is left the one that has waited longest makes room.
"""

from __future__ import annotations

import asyncio
import resource
from dataclasses import dataclass, field
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from litft.serve.metrics import Metrics
from litft.serve.refusal import Refusal, to_json

MOST_CONNECTIONS = 1000
SHARE_OF_FILES = 3  # of the files that a process may open, one part in so many is for connections
LEAST_AGE_SECONDS = 2.0  # a younger connection does not make room: its request may be on the way


@dataclass(frozen=True)
class Patience:
    """Seconds that a client has.

    Attributes:
        head: from a connection, or the first byte after a reply, to the end of a request's head.
        rest: for the rest of a body that was refused; a client that is cut off at once never sees why.
        reading: to read what is written for it, before more is.
    """

    head: float = 15.0
    rest: float = 2.0
    reading: float = 60.0


def most_connections() -> int:
    """Gives how many connections are held at the same time: fewer where the process may open few files."""
    return max(min(MOST_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // SHARE_OF_FILES), 1)


@dataclass(frozen=True)
class Connections:
    """The connections of one server; uvicorn calls it for each new one.

    Attributes:
        most: that are held at the same time.
        patience: with each of them.
        metrics: told which were ended, and why.
        waiting: those whose client has yet to send a whole request, the longest waiting first.
        refused: those that were too many, while their client reads so.
    """

    most: int
    patience: Patience
    metrics: Metrics
    waiting: dict[Connection, None] = field(default_factory=dict)
    refused: set[Connection] = field(default_factory=set)

    def __call__(self, **given: Any) -> Connection:
        """Begins a connection with what uvicorn gives it."""
        return Connection(self, **given)

    def make_room(self, now: float) -> bool:
        """Ends the connection that has waited longest for a whole request; gives whether there is one."""
        oldest = next(iter(self.waiting), None)
        if oldest is None or now - oldest.waits_since < LEAST_AGE_SECONDS:
            return False
        oldest.end("room")
        return True


class Connection(H11Protocol):
    """One connection, with an end to all that it may wait for.

    Attributes:
        waits_since: when its client could begin to send the request that is not whole, in seconds of the event loop.
    """

    def __init__(self, all: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._all, self.waits_since = all, 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a connection, where need be in place of another; else its client is told that there are too many."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self._all.most and not self._all.make_room(self.loop.time()):
            self._refuse()
            return
        self._wait()
        self._expect("head", self._all.patience.head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets a connection that is no more."""
        self._all.waiting.pop(self, None)
        self._all.refused.discard(self)
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what a client sent, and looks how far its request is."""
        if self in self._all.refused:
            return
        super().data_received(data)
        if not self._is_answered:
            if not self.cycle.more_body:
                self._all.waiting.pop(self, None)
            if not self.flow.write_paused:
                self._expect(None)
        elif self._timer is None and not self.transport.is_closing():
            self._expect("head", self._all.patience.head)

    def on_response_complete(self) -> None:
        """Goes from one request to the next."""
        super().on_response_complete()
        self._expect(None)
        if self.transport.is_closing():
            self._expect("reading", self._all.patience.reading)
        elif self._is_answered:  # else the next request has come already
            self._wait()
            if self.conn.their_state is h11.SEND_BODY:
                self._expect("rest", self._all.patience.rest)

    def pause_writing(self) -> None:
        """Waits for a client that reads slowly."""
        super().pause_writing()
        self._expect("reading", self._all.patience.reading)

    def resume_writing(self) -> None:
        """Goes on: the client has read."""
        super().resume_writing()
        self._expect(None)

    def timeout_keep_alive_handler(self) -> None:
        """Closes an idle connection, also one whose client has not read the last reply."""
        super().timeout_keep_alive_handler()
        self._expect("reading", self._all.patience.reading)

    def end(self, why: str) -> None:
        """Ends the connection at once."""
        self._all.metrics.count("litft_connections_ended_total", why=why)
        self._all.waiting.pop(self, None)
        self.connections.discard(self)
        self.transport.abort()

    @property
    def _is_answered(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        """Waits for a request, as the last of those that do."""
        self.waits_since = self.loop.time()
        self._all.waiting.pop(self, None)
        self._all.waiting[self] = None

    def _expect(self, what: str | None, seconds: float = 0.0) -> None:
        """Ends the connection after a time, which takes the place of the one set before; None sets none."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if what is None else self.loop.call_later(seconds, self.end, what)

    def _refuse(self) -> None:
        """Tells a client that there are too many; what it sends is thrown away until it has read so."""
        self._all.metrics.count("litft_connections_ended_total", why="full")
        message = f"The server holds {self._all.most} connections, which are all it can; ask again later."
        refusal = Refusal(503, message, code="unavailable", retry_after=1)
        content = to_json(refusal.body)
        named = {"Content-Type": "application/json", "Content-Length": len(content), **refusal.headers}
        lines = [f"{name}: {value}\r\n" for name, value in {**named, "Connection": "close"}.items()]
        self.transport.write(f"HTTP/1.1 503 Service Unavailable\r\n{''.join(lines)}\r\n".encode() + content)
        self.connections.discard(self)
        if len(self._all.refused) >= self._all.most:
            self.transport.close()
            return
        self.transport.write_eof()
        self._all.refused.add(self)
        self._timer = self.loop.call_later(self._all.patience.rest, self.transport.abort)
