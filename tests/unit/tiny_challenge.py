"""A small server of the challenge's API that does not use litft, with the faults that servers have."""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BOS = 1
FIRST_ID = 10  # a character is its code point and this
LIKELIEST = -0.25
WORDS = ("mill", "lake", "heron", "rye", "kite", "violin", "quince", "day")


class TinyServer(ThreadingHTTPServer):
    """Answers with words that depend on the prompt alone; each character is a token."""

    daemon_threads = True

    def __init__(self, fault: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fault, self.running, self.released = fault, 0, threading.Event()
        self.lock, self.heat = threading.Lock(), 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a handler that broke."""

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Gives the reply of /process."""
        prompt, fault = body["prompt"], self.fault
        text = _text_for(prompt) if fault != "chance" else _text_for(f"{time.perf_counter_ns()}")
        text = text[: int(body.get("max_new_tokens") or 50)]
        for stop in body.get("stop_sequences") or []:
            place = text.find(stop)
            if place >= 0 and fault != "no stops":
                text = text[: place + (len(stop) if fault == "keeps stops" else 0)]
        if fault == "echo" or (body.get("echo_prompt") and fault != "never echoes"):
            text = prompt + text
        many = int(body.get("top_k_per_token", 1))
        candidates = {} if fault == "no candidates" else {str(number): LIKELIEST - number for number in range(many)}
        pieces = [letter.strip() if fault == "spelling" else letter for letter in text]
        tokens = [{"text": piece, "logprob": LIKELIEST, "top_logprob": candidates} for piece in pieces]
        if fault == "no top_logprob":
            tokens = [{"text": piece, "logprob": LIKELIEST} for piece in pieces]
        return {"text": text, "tokens": tokens, "logprob": LIKELIEST * len(text), "request_time": 0.01}

    def tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        """Gives the reply of /tokenize."""
        ids = [ord(letter) + FIRST_ID for letter in body["text"]]
        ids = [BOS, *ids] if self.fault == "bos" else ids
        if body.get("truncation", True) and self.fault != "no truncation":
            ids = ids[: body.get("max_length", 2048)]
        return {"tokens": ids, "request_time": 0.01}

    def decode(self, body: dict[str, Any]) -> dict[str, Any]:
        """Gives the reply of /decode."""
        text = "".join(chr(number - FIRST_ID) for number in body["tokens"] if number != BOS)
        return {"text": text.lstrip() if self.fault == "loses spaces" else text, "request_time": 0.01}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: TinyServer

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        content, tiny = self.rfile.read(int(self.headers["Content-Length"])), self.server
        try:
            body = json.loads(content)
            reply = self._reply(body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if tiny.fault == "crash":
                raise
            if tiny.fault == "dies":
                tiny.shutdown()
                tiny.server_close()
                raise
            self._send(500 if tiny.fault == "500" else 422, {"detail": f"{error}"})
            return
        status = 404 if reply is None else 200
        if reply is not None and tiny.fault == "no request_time":
            del reply["request_time"]
        self._send(status, reply or {"detail": "Not Found"})

    def _reply(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Gives what a path answers; None where there is nothing."""
        tiny = self.server
        with tiny.lock:
            tiny.running += 1
        try:
            time.sleep(0.002)
            if tiny.running > 1 and tiny.fault == "one at a time":
                tiny.released.wait(30)
            return self._answer(body)
        finally:
            with tiny.lock:
                tiny.running -= 1

    def _answer(self, body: dict[str, Any]) -> dict[str, Any] | None:
        tiny = self.server
        if self.path == "/process":
            if tiny.fault == "required":
                _ = body["echo_prompt"]
            _ = body["prompt"] + "", float(body.get("temperature", 0.8))
            return tiny.answer(body)
        if self.path == "/tokenize":
            return tiny.tokenize(body)
        if self.path == "/decode" and tiny.fault != "no decode":
            return tiny.decode(body)
        return None

    def _send(self, status: int, values: dict[str, Any]) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _text_for(prompt: str) -> str:
    """Gives the answer to a prompt."""
    number = zlib.crc32(re.sub(r"\s+", " ", prompt).encode())
    chosen = [WORDS[number >> shift & 7] for shift in range(0, 24, 3)]
    return f" {' '.join(chosen[:4])}.\n{' '.join(chosen[4:])}, and so on until it ends at last."


@contextmanager
def tiny_server(fault: str = "") -> Iterator[str]:
    """Gives the address of a server with one fault, or none."""
    server = TinyServer(fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
