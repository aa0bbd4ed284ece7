"""The server among clients that mean no good: none of them gets a trace, holds others up or ends it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import hypothesis
import pytest
from challenge_client import call
from fuzzing import tried
from hostile import LEAKS, Case, cases, exchange, head_of
from hypothesis import strategies as st
from serving import Running, read_all, serving, wait_until

from litft.serve import connections, described, fields, long_texts
from litft.serve.connections import Patience, most_connections
from litft.serve.fields import Bodies
from litft.serve.long_texts import LongTexts
from litft.serve.refusal import Refusal
from litft.serve.server import listen

SECRET = "medlar tart"
HEALTH = head_of("GET /health HTTP/1.1", "Host: a")


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(slots=4, max_waiting=4, max_seq_length=64, max_new_tokens=8, max_body_mb=2) as made:
        yield made


def ended(running: Running, why: str) -> float:
    """Gives how many connections the server ended for this reason."""
    return running.metrics().get(f'litft_connections_ended_total{{why="{why}"}}', 0)


def connect(running: Running, sent: bytes = b"") -> socket.socket:
    """Opens a connection that says a beginning."""
    opened = socket.create_connection(("127.0.0.1", running.port), timeout=20)
    opened.sendall(sent)
    return opened


def is_ended(opened: socket.socket) -> bool:
    """Whether the server ends a connection within 20 s; what comes before is read."""
    with opened:
        try:
            while opened.recv(2**16):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            return True
    return True


def is_healthy(opened: socket.socket) -> bool:
    """Whether a reply of /health comes."""
    received = b""
    while b"}" not in received:
        received += opened.recv(2**16)
    return received.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.name)
def test_nothing_that_is_sent_does_harm(running: Running, case: Case) -> None:
    found = exchange(running.port, case)
    assert len(found) == case.replies
    for status, body in found:
        assert status in case.statuses, (status, body[:300])
        if status >= 400:
            assert not LEAKS.search(body) and len(body) < 10000
    assert call(f"{running.url}/health").status == 200


def test_a_prompt_is_in_no_error(running: Running) -> None:
    asked: tuple[tuple[str, Any], ...] = (
        ("/process", {"prompt": SECRET, "temperature": -1}),
        ("/v1/completions", {"prompt": f"{SECRET} " * 200}),
        ("/v1/completions", {"prompt": SECRET, "max_tokens": 10**6}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": SECRET}] * 2}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": f"{SECRET}\ud800"}]}),
        ("/process", {"prompt": [SECRET]}),
        ("/process", {"prompt": "a", "stop_sequences": SECRET}),
        ("/tokenize", {"text": {"a": SECRET}}),
        ("/v1/completions", {"prompt": {"a": SECRET}}),
        ("/v1/chat/completions", {"messages": [SECRET]}),
        ("/v1/chat/completions", {"messages": SECRET}),
        ("/process", SECRET),
        ("/process", [SECRET]),
        ("/nothing", {"prompt": SECRET}),
    )
    for path, body in asked:
        reply = running.post(path, body)
        assert 400 <= reply.status < 500 and "medlar" not in reply.content.decode(), reply.content


def test_a_slow_head_is_ended_and_others_are_answered() -> None:
    with serving(patience=Patience(head=0.4)) as running:
        slow = [connect(running, b"POST /process HTTP/1.1\r\nX: ") for _ in range(20)]
        silent = connect(running)
        for _ in range(3):
            for opened in slow:
                opened.sendall(b"a")
            assert running.post("/process", {"prompt": "a", "max_new_tokens": 1}).status == 200
        wait_until(lambda: ended(running, "head") == 21)
        assert all(is_ended(opened) for opened in [*slow, silent])


def test_a_second_request_has_its_time_too() -> None:
    with serving(patience=Patience(head=0.3)) as running, connect(running, HEALTH) as opened:
        assert is_healthy(opened)
        time.sleep(0.5)  # an idle connection is kept
        opened.sendall(HEALTH)
        assert is_healthy(opened)
        opened.sendall(HEALTH[:9])
        assert is_ended(opened) and ended(running, "head") == 1


def test_the_rest_of_a_refused_body_is_not_waited_for() -> None:
    with serving(patience=Patience(rest=0.3)) as running:
        opened = connect(running, head_of("POST /health HTTP/1.1", "Host: a", "Content-Length: 1000000") + b"a")
        assert b"405 " in opened.recv(2**16)
        assert is_ended(opened) and ended(running, "rest") == 1


def test_a_client_that_reads_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def listen_with_little_room(host: str, port: int) -> socket.socket:
        opened = listen(host, port)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return opened

    monkeypatch.setattr("serving.listen", listen_with_little_room)
    with serving(patience=Patience(reading=0.3)) as running:
        opened = running.stream("/tokenize", {"text": "a b " * 40_000, "truncation": False}, receive_buffer=4096)
        wait_until(lambda: ended(running, "reading") == 1)
        assert is_ended(opened)


def test_a_full_server_says_so_and_makes_room_for_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(most_connections=3) as running:
        idle = [connect(running, HEALTH[:5]) for _ in range(3)]
        found = exchange(running.port, Case("one more", HEALTH))
        assert found[0][0] == 503 and json.loads(found[0][1])["error"]["code"] == "unavailable"
        monkeypatch.setattr(connections, "LEAST_AGE_SECONDS", 0.0)
        assert call(f"{running.url}/health").status == 200
        assert is_ended(idle[0])
        for opened in idle[1:]:
            opened.close()
        assert ended(running, "full") == 1 and ended(running, "room") >= 1


def test_a_running_request_is_never_ended_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LEAST_AGE_SECONDS", 0.0)
    with serving(most_connections=1) as running:
        asked = running.stream("/v1/completions", {"prompt": "The kite", "max_tokens": 400, "stream": True})
        assert asked.recv(15) == b"HTTP/1.1 200 OK"
        assert exchange(running.port, Case("one more", HEALTH))[0][0] == 503
        assert b"data: [DONE]" in read_all(asked)


def test_connections_leave_room_for_files() -> None:
    assert 1 <= most_connections() <= connections.MOST_CONNECTIONS


def test_large_bodies_take_only_so_much_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "MOST_BODIES", 2)
    bodies, hold = Bodies(2**17), asyncio.Event()

    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield b"a" * size
        await hold.wait()

    async def go() -> None:
        held = [asyncio.ensure_future(bodies.gather(chunks(2**17))) for _ in range(2)]
        await asyncio.sleep(0)
        small = asyncio.ensure_future(bodies.gather(chunks(100)))
        with pytest.raises(Refusal, match="ask again later") as caught:
            await bodies.gather(chunks(2**17))
        assert caught.value.status == 503
        hold.set()
        assert [len(content) for content in await asyncio.gather(*held, small)] == [2**17, 2**17, 100]

    asyncio.run(go())
    assert bodies.held == 0


def test_few_long_texts_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_texts, "MOST_WAITING", 2)
    texts, running, most = LongTexts(), list[int](), list[int]()

    def work() -> int:
        running.append(1)
        time.sleep(0.05)
        most.append(len(running))
        running.pop()
        return 7

    async def go() -> None:
        size = long_texts.LONG_TEXT + 1
        held = [asyncio.ensure_future(texts.work(size, work)) for _ in range(long_texts.AT_ONCE + 2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="ask again later"):
            await texts.work(size, work)
        assert await texts.work(5, work) == await texts.work(5000, work) == 7  # others are not held up
        assert await asyncio.gather(*held) == [7] * 4

    asyncio.run(go())
    assert max(most) <= long_texts.AT_ONCE + 1 and texts.taken == 0


def test_what_asks_for_too_much_holds_nobody_up(running: Running) -> None:
    started = time.perf_counter()
    many = running.post("/v1/completions", {"prompt": ["a"] * 200_000, "max_tokens": 0, "echo": True})
    assert (many.status, "200000 answers" in many.message) == (400, True)
    stops = running.post("/process", {"prompt": "a", "stop_sequences": ["q"] * 100_000})
    assert (stops.status, "256" in stops.message) == (400, True)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/health", None, described.Health),
        ("/v1/models", None, described.Models),
        ("/v1/models/quince", None, described.Model),
        ("/v1/completions", {"prompt": "a", "max_tokens": 2, "logprobs": 2, "n": 2}, described.Completion),
        ("/v1/completions", {"prompt": "a b", "max_tokens": 0, "echo": True, "logprobs": 1}, described.Completion),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2, "logprobs": True, "top_logprobs": 2},
            described.ChatCompletion,
        ),
        ("/process", {"prompt": "a", "max_new_tokens": 2, "num_samples": 2, "echo_prompt": True}, described.Processed),
        ("/tokenize", {"text": "a"}, described.Tokenized),
        ("/decode", {"tokens": [7]}, described.Decoded),
        ("/process", {}, described.Refused),
        ("/nothing", {}, described.Refused),
    ],
    ids=lambda value: str(value)[:30],
)
def test_replies_are_as_they_are_described(running: Running, path: str, body: Any, kind: Any) -> None:
    kind.model_validate(call(running.url + path, body).json, strict=True)


def test_every_reply_is_described(running: Running) -> None:
    paths = call(f"{running.url}/openapi.json").json["paths"]
    for path, (method, told) in ((path, next(iter(ways.items()))) for path, ways in paths.items()):
        assert {"200", "4XX", "503"} <= told["responses"].keys() and "422" not in told["responses"]
        schema = told["responses"]["200"]["content"].get("application/json", {}).get("schema")
        assert schema or path == "/metrics", (path, method)


def test_another_method_is_told_the_right_one(running: Running) -> None:
    reply = call(f"{running.url}/health", {})
    assert (reply.status, reply.headers["allow"]) == (405, "GET")


NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(-(2**70), 2**70), st.booleans(), st.none())
ANYTHING = st.recursive(
    st.one_of(NUMBERS, st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=10,
)
SMALL = st.integers(0, 12)
PROCESS = st.fixed_dictionaries(
    {"prompt": st.one_of(st.text(max_size=80), st.text(max_size=80), ANYTHING), "max_new_tokens": SMALL},
    optional={
        "temperature": st.one_of(st.floats(0, 2), ANYTHING),
        "num_return_sequences": st.one_of(st.integers(0, 4), ANYTHING),
        "num_samples": st.one_of(st.integers(0, 4), ANYTHING),
        "top_p": st.one_of(st.floats(0, 1), ANYTHING),
        "top_k": st.one_of(st.integers(-5, 500), ANYTHING),
        "top_k_per_token": st.one_of(st.integers(0, 5), ANYTHING),
        "stop_sequences": st.one_of(st.lists(st.text(max_size=4), max_size=4), ANYTHING),
        "echo_prompt": st.one_of(st.booleans(), ANYTHING),
        "seed": st.one_of(st.integers(), ANYTHING),
    },
)
TOKENIZE = st.fixed_dictionaries(
    {"text": st.one_of(st.text(max_size=80), ANYTHING)},
    optional={"truncation": ANYTHING, "max_length": st.one_of(st.integers(), ANYTHING)},
)
DECODE = st.fixed_dictionaries({"tokens": st.one_of(st.lists(st.integers(-5, 700), max_size=30), ANYTHING)})
ASKED = st.one_of(
    st.tuples(st.just(("/process", described.Processed)), st.one_of(PROCESS, PROCESS, ANYTHING)),
    st.tuples(st.just(("/tokenize", described.Tokenized)), st.one_of(TOKENIZE, ANYTHING)),
    st.tuples(st.just(("/decode", described.Decoded)), st.one_of(DECODE, ANYTHING)),
)


@tried(60)
@hypothesis.given(asked=ASKED)
def test_whatever_the_challenge_asks_is_answered_or_refused(running: Running, asked: Any) -> None:
    ((path, kind), body) = asked
    reply = running.post(path, json.dumps(body).encode())
    if reply.status == 200:
        kind.model_validate(reply.json, strict=True)
    else:
        assert reply.status == 400, reply.content
        described.Refused.model_validate(reply.json, strict=True)
        assert not LEAKS.search(reply.content)


@tried(60)
@hypothesis.given(text=st.text(max_size=200))
def test_a_text_survives_ids_and_back(running: Running, text: str) -> None:
    ids = running.post("/tokenize", {"text": text}).json["tokens"]
    back = running.post("/decode", {"tokens": ids}).json["text"]
    assert back == re.sub("[\ud800-\udfff]", "\ufffd", text)
