"""An endpoint that is busy, broken, slow or refuses, and a key that nobody else sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer

from litft.asking.asker import Question, Remembering, Reply
from litft.asking.endpoint import Endpoint
from litft.checkpoint.journal import Journal
from litft.config.asking import EndpointConfig
from litft.errors import ConfigError, DataError, GenerationError

KEY = "sk-quince-0123456789"
BUSY = (429, {}, {"error": {"message": "slow down"}})


def endpoint(server: ChatServer, report: Callable[[str], None] = lambda message: None, **changes: Any) -> Endpoint:
    config = EndpointConfig(**{"endpoint": server.url, "model": "medlar", "retries": 3, **changes})
    return Endpoint(config, report, first_wait_seconds=0.01)


def in_turn(*replies: Any) -> Callable[[str], Any]:
    """Gives these replies one after the other, the last again and again."""
    left = list(replies)
    return lambda prompt: left.pop(0) if len(left) > 1 else left[0]


def test_a_request_says_what_is_wanted() -> None:
    with ChatServer(in_turn("a reply")) as server:
        reply = endpoint(server).ask(Question("Why?", 5, 0.7, 0.5, ("\n\n",), 3))
        endpoint(server, endpoint=f"{server.url}/chat/completions/").ask(Question("Why?", 5))
    assert reply == Reply("a reply", prompt_tokens=10, reply_tokens=2)
    first, second = server.bodies
    assert first == {
        "model": "medlar",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 5,
        "temperature": 0.7,
        "top_p": 0.5,
        "stop": ["\n\n"],
        "seed": 3,
    }
    assert second["temperature"] == 0 and not {"top_p", "stop", "seed"} & second.keys()
    assert not any("Authorization" in headers for headers in server.headers)


@pytest.mark.parametrize(
    "trouble", [BUSY, (500, {}, b"oh"), (503, {"Retry-After": "0"}, b""), (200, {"Content-Length": "9"}, b"")]
)
def test_a_busy_server_is_asked_again(trouble: Any) -> None:
    told: list[str] = []
    with ChatServer(in_turn(trouble, trouble, "done")) as server:
        assert endpoint(server, told.append).ask(Question("Why?", 5)).text == "done"
    assert len(server.bodies) == 3
    assert len(told) == 1 and "asking again, 3 times at most" in told[0]


def test_the_waits_grow_and_end() -> None:
    times: list[float] = []

    def note(prompt: str) -> Any:
        times.append(time.monotonic())
        return BUSY

    with ChatServer(note) as server:
        config = EndpointConfig(endpoint=server.url, model="medlar", retries=3)
        with pytest.raises(GenerationError, match=r"gave no reply in 4 attempts \(429 Too Many Requests: slow down\)"):
            Endpoint(config, print, first_wait_seconds=0.05).ask(Question("Why?", 5))
    waits = [after - before for before, after in pairwise(times)]
    assert len(waits) == 3 and all(wait >= least for wait, least in zip(waits, (0.05, 0.1, 0.2), strict=True))


def test_a_server_that_says_when_is_believed() -> None:
    with ChatServer(in_turn((429, {"Retry-After": "1"}, b""), "done")) as server:
        started = time.monotonic()
        endpoint(server).ask(Question("Why?", 5))
    assert time.monotonic() - started >= 1


def test_silence_is_a_timeout() -> None:
    done = threading.Event()
    with ChatServer(lambda prompt: str(done.wait(5))) as server:
        with pytest.raises(GenerationError, match=r"in 2 attempts \(timed out\)"):
            endpoint(server, timeout_seconds=0.2, retries=1).ask(Question("Why?", 5))
        done.set()


def test_nobody_there() -> None:
    with ChatServer(in_turn("a")) as server:
        pass
    with pytest.raises(GenerationError, match=r"in 4 attempts .*Connection refused"):
        endpoint(server).ask(Question("Why?", 5))


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (
            (404, {}, {"error": {"message": "no model medlar"}}),
            "answers 404 Not Found: no model medlar; check --endpoint",
        ),
        ((302, {"Location": "http://127.0.0.1:1/v1"}, b""), "answers 302 Found; check --endpoint"),
        ((200, {}, b"<html>hello</html>"), "answers what is no chat completion: <html>hello</html>; check --endpoint"),
        ((200, {}, {"error": "no credit"}), "answers what is no chat completion: no credit"),
        ((200, {}, {"choices": []}), "answers what is no chat completion"),
        ((401, {}, {"error": f"wrong key {KEY}"}), "answers 401 Unauthorized: no key was sent; name the environment"),
    ],
)
def test_what_is_not_tried_again(reply: Any, sentence: str) -> None:
    with ChatServer(in_turn(reply)) as server, pytest.raises(GenerationError) as caught:
        endpoint(server).ask(Question("Why?", 5))
    assert sentence in str(caught.value)
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 429, 500])
def test_the_key_is_seen_by_the_server_alone(
    status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDLAR_KEY", f" {KEY}\n")
    told: list[str] = []
    trouble = (status, {"Location": "http://127.0.0.1:1/"}, {"error": {"message": f"You sent {KEY}, dear"}})
    with ChatServer(in_turn("fine", trouble)) as server, Journal(tmp_path / "j.jsonl") as journal:
        asker = endpoint(server, told.append, api_key_env="MEDLAR_KEY")
        remembering = Remembering(asker, journal)
        remembering.ask_all([Question("a", 5)])
        try:
            told += [str(remembering.ask_all([Question("b", 5)]))]
        except GenerationError as error:
            told += [str(error), repr(error.__context__), repr(error.__cause__)]
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    shown = "".join([*told, (tmp_path / "j.jsonl").read_text(), *capsys.readouterr(), repr(vars(journal))])
    assert KEY not in shown and "quince" not in shown
    assert "MEDLAR_KEY" in shown or status not in (401, 403)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"api_key_env": KEY}, "api_key_env is no NAME of an environment variable"),
        ({"endpoint": f"https://me:{KEY}@host/v1"}, "endpoint holds a user name, a password"),
        ({"endpoint": f"https://host/v1?key={KEY}"}, "endpoint holds a user name, a password"),
        ({"endpoint": "host:8000"}, 'endpoint is "host:8000"; write an address'),
        ({"endpoint": "http://host:port/v1"}, "endpoint is no address"),
        ({"model": None}, "--endpoint and --model go together"),
        ({"requests_at_once": 0}, "requests_at_once is 0; it must be at least 1"),
        ({"retries": -1}, "retries is -1"),
    ],
)
def test_configs_that_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        EndpointConfig(**{"endpoint": "http://localhost/v1", "model": "medlar", **changes})
    assert sentence in str(caught.value) and KEY not in str(caught.value)


@pytest.mark.parametrize(("value", "sentence"), [("", "is not set"), ("a\nb", "holds characters that no key has")])
def test_a_key_that_is_none(value: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLAR_KEY", value)
    with pytest.raises(ConfigError, match=f"MEDLAR_KEY.* {sentence}"):
        Endpoint(EndpointConfig(endpoint="http://localhost/v1", model="m", api_key_env="MEDLAR_KEY"), print)


def test_questions_go_out_together_and_come_back_in_order(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=5)  # breaks, and the test fails, unless four are out at once

    def answer(prompt: str) -> str:
        if prompt != "q":
            together.wait()
        return f"re {prompt}"

    with ChatServer(answer) as server, Journal(tmp_path / "j.jsonl") as journal:
        remembering = Remembering(endpoint(server, requests_at_once=4), journal)
        questions = [Question(f"question {number}", 5) for number in range(8)] + [Question("q", 5)] * 3
        replies = remembering.ask_all(questions)
        assert [reply.text for reply in replies] == [f"re {question.prompt}" for question in questions]
        assert len(server.bodies) == 9 and server.prompts[0] == "q"  # the shortest went alone
        assert (remembering.asked, remembering.prompt_tokens, remembering.reply_tokens) == (9, 90, 26)
        assert "9 requests this time: 90 tokens of prompts and 26 of replies, as medlar counts" in remembering.cost()


def test_what_was_answered_is_kept_when_the_server_fails(tmp_path: Path) -> None:
    path, questions = tmp_path / "j.jsonl", [Question(f"question {number}", 5) for number in range(12)]

    def answer(prompt: str) -> Any:
        return "fine" if len(server.bodies) < 6 else BUSY

    with ChatServer(answer) as server, Journal(path) as journal, pytest.raises(GenerationError, match="429"):
        Remembering(endpoint(server, retries=1, requests_at_once=2), journal).ask_all(questions)
    kept = len(path.read_text().splitlines())
    assert kept == 5
    with ChatServer(in_turn("later")) as server, Journal(path) as journal:
        remembering = Remembering(endpoint(server), journal)
        assert sum(map(remembering.knows, questions)) == kept
        replies = remembering.ask_all(questions)
    assert len(server.bodies) == 12 - kept and {reply.text for reply in replies} == {"fine", "later"}
    with Journal(path) as journal:  # all is known: nobody is asked, and nobody is there
        assert Remembering(endpoint(server), journal).ask_all(questions) == replies


def test_one_refused_request_is_a_reply_and_a_refused_beginning_is_an_end(tmp_path: Path) -> None:
    long = (400, {}, {"error": {"message": "context is 5 tokens"}})
    with ChatServer(lambda prompt: long if "long" in prompt else "fine") as server, Journal(tmp_path / "a") as journal:
        replies = Remembering(endpoint(server), journal).ask_all([Question("a long one", 5), Question("short", 5)])
        assert [reply.refused for reply in replies] == ["400 Bad Request: context is 5 tokens", None]
    with ChatServer(in_turn(long)) as server, Journal(tmp_path / "b") as journal:
        with pytest.raises(
            GenerationError, match="medlar refuses each of the first 3 requests: 400 Bad Request: conte"
        ):
            Remembering(endpoint(server), journal).ask_all([Question(f"long {number}", 5) for number in range(9)])
        assert len(server.bodies) == 3
    assert not (tmp_path / "b").exists()  # a model that is mended is asked again
    for name in ("short", "shorter"):
        with (
            ChatServer(lambda prompt: long if "long" in prompt else "fine") as server,
            Journal(tmp_path / "c") as journal,
        ):
            questions = [Question("long", 5), Question("ah, long", 5), Question(f"the {name}", 5)]
            assert [bool(reply.refused) for reply in Remembering(endpoint(server), journal).ask_all(questions)] == [
                1,
                1,
                0,
            ]
            assert len(server.bodies) == (3 if name == "short" else 1)


def test_another_file_is_not_taken_for_replies(tmp_path: Path) -> None:
    (tmp_path / "j.jsonl").write_text('{"instruction": "Sing."}\n')
    asker = Endpoint(EndpointConfig(endpoint="http://127.0.0.1:1/v1", model="medlar"), print)
    with Journal(tmp_path / "j.jsonl") as journal, pytest.raises(DataError, match="holds lines that are no replies"):
        Remembering(asker, journal)
