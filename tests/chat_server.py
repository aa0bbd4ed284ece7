"""A small OpenAI-compatible server on 127.0.0.1 whose replies a test gives. `with ChatServer(answer) as server:`."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# The last message's text -> the reply: a text, or (status, headers, body).
Answer = Callable[[str], "str | tuple[int, dict[str, str], Any]"]


class ChatServer:
    """Serves `/v1/chat/completions`.

    Attributes:
        bodies: the requests, in the order they came.
        headers: theirs.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"chat": self}))

    @property
    def url(self) -> str:
        """The address for --endpoint."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def prompts(self) -> list[str]:
        """What was asked."""
        return [body["messages"][-1]["content"] for body in self.bodies]

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer

    def do_POST(self) -> None:
        """Answers one request; 10 tokens of prompt and one a word of the reply."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.chat.headers.append(dict(self.headers))
        self.chat.bodies.append(body)
        assert self.path == "/v1/chat/completions", self.path
        reply = self.chat.answer(body["messages"][-1]["content"])
        if isinstance(reply, str):
            is_cut = reply.endswith("[cut]")
            choice = {
                "message": {"role": "assistant", "content": reply.removesuffix("[cut]")},
                "finish_reason": "length" if is_cut else "stop",
            }
            usage = {"prompt_tokens": 10, "completion_tokens": len(reply.split())}
            reply = 200, {}, {"choices": [choice], "usage": usage}
        status, headers, values = reply
        content = values if isinstance(values, bytes) else json.dumps(values).encode()
        with contextlib.suppress(ConnectionError):  # who asked may not have waited
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""
