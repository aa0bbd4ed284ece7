"""uvicorn in a thread of its own, so that whoever started it decides how it ends. Knows no API."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import cast

import uvicorn

from litft.errors import ConfigError
from litft.serve.connections import Connections, Patience, most_connections
from litft.serve.door import Door

LONGEST_START_SECONDS = 30.0
BACKLOG = 1024  # connections that may wait to be accepted
LOOK_SECONDS = 0.1  # how often a server that ends looks whether it is to hurry
KEPT_OPEN_SECONDS = 75  # an idle connection: longer than clients keep it, or one may send just as it is closed
LAST_WORDS_SECONDS = 5  # for replies that are whole, to clients that read slowly


def listen(host: str, port: int) -> socket.socket:
    """Opens the address.

    Raises:
        ConfigError: it cannot be had.
    """
    opened: socket.socket | None = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sends small pieces at once (TCP_NODELAY) on sockets that name their protocol, and on no others:
        # without it the first token waits 40 ms for the client's acknowledgement.
        opened = socket.socket(family, kind, socket.IPPROTO_TCP)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
        return opened
    except OSError as error:
        if opened is not None:
            opened.close()
        reason = error.strerror or error
        raise ConfigError(f"{host}:{port} cannot be listened at: {reason}; choose --host and --port.") from error


class Server:
    """An application at an address.

    Attributes:
        url: where it is.
    """

    def __init__(
        self, app: Door, opened: socket.socket, most: int | None = None, patience: Patience | None = None
    ) -> None:
        """Takes the application and an open socket, which `stop` closes.

        Args:
            app: what answers.
            opened: listens.
            most: connections that are held at the same time; None for `most_connections`.
            patience: with clients that are slow.
        """
        host, port = opened.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._app, self._socket = app, opened
        connections = Connections(most or most_connections(), patience or Patience(), app.metrics)
        protocol = cast("type[asyncio.Protocol]", connections)  # uvicorn only calls it
        config = uvicorn.Config(
            app, http=protocol, log_config=None, access_log=False, server_header=False, ws="none", lifespan="off",
            timeout_graceful_shutdown=LAST_WORDS_SECONDS, timeout_keep_alive=KEPT_OPEN_SECONDS,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([opened],), name="litft-http", daemon=True)

    def start(self) -> None:
        """Starts to answer; returns when it does.

        Raises:
            ConfigError: it does not.
        """
        self._app.worker.start()
        self._thread.start()
        until = time.monotonic() + LONGEST_START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise ConfigError(f"The server at {self.url} did not start.")
            time.sleep(0.01)

    def stop(self, seconds: float, hurry: threading.Event | None = None) -> bool:
        """Ends: new requests get 503 while running ones go on for so long, and then everything stops.

        Args:
            seconds: for running requests.
            hurry: ends that time at once.

        Returns:
            Whether all requests were answered.
        """
        worker, until = self._app.worker, time.monotonic() + seconds
        worker.drain()
        while not (is_whole := worker.wait_until_idle(min(LOOK_SECONDS, max(until - time.monotonic(), 0)))):
            if time.monotonic() >= until or (hurry is not None and hurry.is_set()):
                break
        worker.stop()
        self._server.should_exit = True
        self._thread.join()
        return is_whole
