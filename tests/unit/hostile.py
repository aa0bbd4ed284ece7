"""What no friendly client sends: requests as bytes, and what a server may answer. Used by the tests and by the soak."""

from __future__ import annotations

import gzip
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

JSON = "application/json"
REFUSED = frozenset({400})
ANSWERED = frozenset({200})
# What an error's body must not have: a trace, a folder, a library's file.
LEAKS = re.compile(rb"Traceback|File \"|line \d+, in|site-packages|/litft/|/tmp/|/root|/home|\.py\b|object at 0x")


@dataclass(frozen=True)
class Case:
    """A request.

    Attributes:
        name: of it.
        raw: what is sent.
        statuses: what may be answered; -1 where the connection may end without an answer.
        replies: how many answers are wanted.
        is_half_closed: whether the client says that it has said all.
    """

    name: str
    raw: bytes
    statuses: frozenset[int] = REFUSED
    replies: int = 1
    is_half_closed: bool = False


def post(path: str, body: bytes, kind: str = JSON, head: str = "", version: str = "1.1") -> bytes:
    """Gives a request that ends its connection."""
    lines = [f"POST {path} HTTP/{version}", "Host: a", "Connection: close", f"Content-Type: {kind}"]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", *([head] if head else []), "", ""]).encode() + body


def head_of(*lines: str) -> bytes:
    """Gives a request's head as it is written."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def cases() -> Iterator[Case]:
    """Gives all requests."""
    ask = json.dumps({"prompt": "The kite", "max_new_tokens": 1}).encode()
    yield from _bodies(ask)
    yield from _heads(ask)
    yield from _fields()


def _bodies(ask: bytes) -> Iterator[Case]:
    """Bodies that are not what they should be."""
    both = frozenset({200, 400})
    yield Case("nothing", post("/process", b""))
    yield Case("bad UTF-8", post("/process", b'{"prompt": "\xff\xfe\xc3"}'))
    yield Case("UTF-16", post("/process", ask.decode().encode("utf-16")), both)
    yield Case("half a character", post("/process", b'{"prompt": "\\ud800", "max_new_tokens": 1}'), ANSWERED)
    yield Case("lists in lists", post("/process", b"[" * 2**19))
    yield Case("objects in objects", post("/process", b'{"a":' * 2**17))
    yield Case("deep, yet whole", post("/v1/completions", b'{"prompt":' + b"[" * 900 + b"]" * 900 + b"}"))
    yield Case("deep, in a field nobody knows", post("/v1/completions", b'{"x":' + b"[" * 900 + b"]" * 900 + b"}"))
    yield Case("gzip", post("/process", gzip.compress(ask), head="Content-Encoding: gzip"))
    yield Case("gzip of a gigabyte's beginning", post("/process", gzip.compress(b" " * 2**24)))
    yield Case("a form", post("/process", b"prompt=The+kite", "application/x-www-form-urlencoded"))
    yield Case("multipart", post("/process", b"--a\r\n\r\nx\r\n--a--", "multipart/form-data; boundary=a"))
    yield Case("JSON under another name", post("/process", ask, "text/plain; charset=klingon"), ANSWERED)
    yield Case("XML", post("/process", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "application/xml"))
    yield Case("two values", post("/process", ask + ask))
    yield Case("a byte order mark", post("/process", b"\xef\xbb\xbf" + ask), both)
    yield Case("zero bytes", post("/process", b"\0" * 1000))


def _heads(ask: bytes) -> Iterator[Case]:
    """Heads that are not what they should be, and unusual ones that are."""
    length = f"Content-Length: {len(ask)}"
    to = ("POST /process HTTP/1.1", "Host: a", "Connection: close")
    chunk = f"{len(ask):x}\r\n".encode() + ask + b"\r\n0\r\n\r\n"
    chunked = head_of(*to, "Transfer-Encoding: chunked")
    yield Case("chunks", chunked + chunk, ANSWERED)
    yield Case("chunks, one of them no number", chunked + b"zz\r\nabc\r\n")
    yield Case("a chunk of sixteen exabytes", chunked + b"ffffffffffffffffff\r\nabc\r\n", frozenset({400, -1}), 1, True)
    yield Case("chunks and a length", head_of(*to, "Transfer-Encoding: chunked", length) + chunk, frozenset({200, 400}))
    yield Case("two lengths", head_of(*to, length, "Content-Length: 3") + ask)
    yield Case("a length below zero", head_of(*to, "Content-Length: -1") + ask)
    yield Case(
        "an unknown transfer coding", head_of(*to, "Transfer-Encoding: gzip, chunked") + chunk, frozenset({400, 501})
    )
    yield Case("many headers", head_of(*to, *(f"X-{number}: 1" for number in range(20000)), length) + ask)
    yield Case("one long header", head_of(*to, "X: " + "a" * 2**20, length) + ask)
    yield Case("a long path", head_of(f"GET /{'a' * 2**17} HTTP/1.1", "Host: a", "Connection: close"))
    yield Case("a folded header", head_of(*to, "X: a", " b", length) + ask, frozenset({200, 400}))
    yield Case("a zero byte in a header", head_of(*to, "X: a\0b", length) + ask)
    yield Case("a header without a name", head_of(*to, ": a", length) + ask)
    yield Case("no host", head_of("GET /health HTTP/1.1"))
    yield Case("a beginning of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n")
    yield Case("no HTTP", b"EHLO quince\r\n\r\n")
    yield Case(
        "another version", head_of("GET /health HTTP/9.9", "Host: a", "Connection: close"), frozenset({200, 400})
    )
    yield Case("HTTP/1.0", b"GET /health HTTP/1.0\r\n\r\n", ANSWERED)
    yield Case("HTTP/1.0 with a body", post("/process", ask, version="1.0"), ANSWERED)
    yield Case("an unknown method", head_of("BREW /process HTTP/1.1", "Host: a", "Connection: close"), frozenset({405}))
    yield Case(
        "an upgrade",
        head_of("GET /health HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: websocket"),
        frozenset({200, 400, 426}),
        1,
        True,
    )
    yield Case("100-continue", post("/process", ask, head="Expect: 100-continue"), frozenset({100, 200}), 2)
    yield Case("a way out", head_of("GET /../../etc/passwd HTTP/1.1", "Host: a", "Connection: close"), frozenset({404}))
    yield Case(
        "a written way out",
        head_of("GET /v1/models/%2e%2e%2f%00%ff HTTP/1.1", "Host: a", "Connection: close"),
        frozenset({404}),
    )
    several = head_of("GET /health HTTP/1.1", "Host: a") * 49 + head_of(
        "GET /health HTTP/1.1", "Host: a", "Connection: close"
    )
    yield Case("fifty at once", several, ANSWERED, 50)
    # who says that he has said all has left, as far as a server can know: his answer is not computed
    yield Case("half closed", post("/process", ask), frozenset({-1}), 1, True)
    yield Case("half closed within a body", head_of(*to, "Content-Length: 1000") + ask, frozenset({400, -1}), 1, True)
    yield Case("half closed within a head", b"POST /process HTT", frozenset({400, -1}), 1, True)


def _fields() -> Iterator[Case]:
    """Fields whose values are out of all bounds."""
    big, huge = b"1" * 4000, b"1" * 6000
    for name in (b"seed", b"temperature", b"num_samples", b"top_p"):
        yield Case(f"a large {name.decode()}", post("/process", b'{"prompt":"a","%s":%s}' % (name, big)))
    yield Case("too large to be read", post("/process", b'{"prompt":"a","seed":%s}' % huge))
    yield Case("not a number", post("/process", b'{"prompt":"a","temperature":NaN}'))
    yield Case("no end", post("/process", b'{"prompt":"a","temperature":1e999}'))
    yield Case("a list that cannot be a key", post("/v1/completions", b'{"prompt":"a","logit_bias":[[1]]}'))
    yield Case(
        "very many stop texts", post("/process", json.dumps({"prompt": "a", "stop_sequences": ["q"] * 10**5}).encode())
    )
    yield Case(
        "very many prompts",
        post("/v1/completions", json.dumps({"prompt": ["a"] * 10**5, "max_tokens": 0, "echo": True}).encode()),
    )
    yield Case(
        "very many messages",
        post("/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": "a"}] * 10**4}).encode()),
    )
    yield Case("ids that are no tokens", post("/v1/completions", json.dumps({"prompt": [-1, 10**30]}).encode()))
    yield Case("ids of nothing", post("/decode", json.dumps({"tokens": [-1, 10**30, 2**31]}).encode()), ANSWERED)


def exchange(port: int, case: Case, seconds: float = 20.0) -> list[tuple[int, bytes]]:
    """Sends a request and gives the statuses and bodies that come; -1 for a connection that ended without."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as opened:
        received = b""
        try:
            opened.sendall(case.raw)
            if case.is_half_closed:
                opened.shutdown(socket.SHUT_WR)
            while piece := opened.recv(2**16):
                received += piece
        except (ConnectionError, BrokenPipeError):
            received += _rest(opened)
    return replies_in(received)


def _rest(opened: socket.socket) -> bytes:
    """Gives what came before the other side cut the connection."""
    received = b""
    try:
        while piece := opened.recv(2**16):
            received += piece
    except ConnectionError:
        return received
    return received


def replies_in(received: bytes) -> list[tuple[int, bytes]]:
    """Gives the statuses and bodies of replies that stand behind one another."""
    pieces = re.split(rb"HTTP/1\.1 (\d{3})[^\r]*\r\n", received)[1:]
    found = [
        (int(status), rest.partition(b"\r\n\r\n")[2]) for status, rest in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    return found or [(-1, b"")]
