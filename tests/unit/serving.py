"""The demo's model behind a real server on 127.0.0.1, and the real weights of stories260K where they are."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from challenge_client import call

import litft.demo
from litft import LLM
from litft.cli import main
from litft.config.serve import ServeConfig
from litft.generate.engine import Engine
from litft.serve.app import build_app
from litft.serve.connections import Patience
from litft.serve.run import build_served, room_of
from litft.serve.server import Server, listen

STORIES = Path(__file__).parents[2] / ".." / "shared" / "data" / "models" / "stories260K-hf"
DEMO = Path(litft.demo.__file__).parent / "model"
NAME = "quince"

# What the demo's model was made for: a word and what it asks of it.
WORDS = ("cold", "tall", "empty", "happy", "early", "strong", "open", "rich", "soft", "wide")
PROMPTS = [f"{begin} {word}" for word in WORDS for begin in ("The opposite of", "Not at all", "It was", "How", "He is")]


@functools.cache
def folder_of(name: str) -> Path:
    """Converts the `demo` or `stories` model into a folder of its own."""
    folder = Path(tempfile.mkdtemp()) / name
    atexit.register(shutil.rmtree, folder.parent)
    shutil.copytree(DEMO if name == "demo" else STORIES, folder, copy_function=shutil.copyfile)
    assert main(["convert", "from_hf", "--checkpoint_dir", str(folder)]) == 0
    return folder


@functools.cache
def load(name: str) -> LLM:
    """Opens the `demo` or `stories` model."""
    return LLM.load(folder_of(name))


@dataclass
class Running:
    """A server that runs.

    Attributes:
        url: where.
        llm: its model.
        said: what it reported.
    """

    url: str
    llm: LLM
    server: Server
    said: list[str]

    def post(self, path: str, body: Any, **options: Any) -> Any:
        """Posts to a path."""
        return call(self.url + path, body, **options)

    def metrics(self) -> dict[str, float]:
        """Gives the numbers of /metrics by name and labels."""
        lines = call(f"{self.url}/metrics").content.decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(number) for name, _, number in pairs}

    def wait_for(self, name: str, number: float) -> None:
        """Waits until a metric has a value."""
        wait_until(lambda: self.metrics().get(name) == number)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def stream(self, path: str, body: dict[str, Any], receive_buffer: int | None = None) -> socket.socket:
        """Sends a request and gives the socket from which its reply can be read."""
        host, port = self.url.removeprefix("http://").split(":")
        opened = socket.socket()
        if receive_buffer is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        opened.settimeout(30)
        opened.connect((host, int(port)))
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
        opened.sendall(head.encode() + content)
        return opened


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Waits until something holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.01)


def read_all(opened: socket.socket) -> bytes:
    """Reads a socket to its end, and closes it."""
    with opened:
        return b"".join(iter(lambda: opened.recv(65536), b""))


@contextmanager
def serving(
    model: str = "demo",
    key: str | None = None,
    most_connections: int | None = None,
    patience: Patience | None = None,
    **config: Any,
) -> Iterator[Running]:
    """Serves a model with the settings of `litft serve`."""
    torch.set_num_threads(1)
    llm, said = load(model), list[str]()
    made = ServeConfig(checkpoint_dir=DEMO, **{"name": NAME, "port": 0, **config})
    engine = Engine(llm.model, llm.tokenizer, made.slots, room_of(made, llm.model.config.block_size))
    app = build_app(build_served(made, llm, engine, said.append), made.api, key, said.append)
    server = Server(app, listen(made.host, made.port), most_connections, patience)
    server.start()
    try:
        yield Running(server.url, llm, server, said)
    finally:
        server.stop(0)


def assert_greedy(llm: LLM, prompt: str, text: str, expected: str) -> None:
    """Asserts that two greedy answers are the same, or first differ where two logits are as good as equal."""
    if text == expected:
        return
    same = next(place for place in range(len(text) + 1) if text[: place + 1] != expected[: place + 1])
    ids = llm.tokenizer.encode(prompt + expected[:same].rpartition(" ")[0])
    best = llm.logits([ids])[0, -1].topk(2).values
    assert best[0] - best[1] < 1e-4, (prompt, text, expected)
