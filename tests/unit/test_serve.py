"""The server itself: clients that leave, read slowly or send nonsense, too many of them, a failing model, the end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from challenge_client import call
from serving import DEMO, Running, folder_of, read_all, serving, wait_until

from litft.cli import main
from litft.config.serve import ServeConfig
from litft.errors import ConfigError
from litft.serve.metrics import SECONDS, Metrics
from litft.serve.server import listen

LONG: dict[str, Any] = {"prompt": "The kite", "max_tokens": 480, "temperature": 0, "stream": True}
SHORT: dict[str, Any] = {"prompt": "The kite", "max_tokens": 3, "temperature": 0}
COMPLETE = "/v1/completions"
CANCELLED = 'litft_answers_total{finish="cancelled"}'


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(slots=4, max_waiting=4, max_body_mb=1) as made:
        yield made


def whole_stream(content: bytes) -> str:
    """Gives the text of a stream that came to its end."""
    events = re.findall(rb"data: (.*)\n\n", content)
    assert events[-1] == b"[DONE]"
    return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])


def test_a_client_that_leaves_frees_its_slot() -> None:
    with serving(slots=1) as running:
        streamed = running.stream(COMPLETE, LONG)
        assert streamed.recv(20).startswith(b"HTTP/1.1 200")
        whole, waiting = running.stream(COMPLETE, {**LONG, "stream": False}), running.stream(COMPLETE, LONG)
        running.wait_for("litft_waiting", 2)
        for number, left in enumerate((waiting, streamed, whole), start=1):
            left.close()
            running.wait_for(CANCELLED, number)
        wait_until(lambda: running.metrics()["litft_running"] == running.metrics()["litft_waiting"] == 0)
        assert running.post(COMPLETE, SHORT).status == 200
        assert 'litft_answers_total{finish="stop"}' not in running.metrics()
        statuses = [line.split()[3] for line in running.said if line.split()[1] == "POST"]
        assert sorted(statuses) == ["200", "200", "200", "499"]


def test_a_client_that_reads_slowly_holds_nobody_up(running: Running) -> None:
    wanted = {**LONG, "n": 2, "logprobs": 20, "max_tokens": 300, "prompt": [[7, 8, 9]]}
    slow = running.stream(COMPLETE, wanted, receive_buffer=4096)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: running.post(COMPLETE, SHORT), range(12)))
    assert {reply.status for reply in replies} == {200}
    running.wait_for("litft_running", 0)  # though its client has read nothing
    assert len(read_all(slow).split(b"data: ")) > 100


def test_a_client_that_leaves_while_it_speaks(running: Running) -> None:
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as opened:
        opened.sendall(b"POST /process HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        wait_until(lambda: call(f"{running.url}/health").status == 200)
    wait_until(lambda: any("POST '/process' 499" in line for line in running.said))


def test_small_pieces_are_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY on sockets of this protocol alone."""
    with listen("127.0.0.1", 0) as opened:
        assert opened.proto == socket.IPPROTO_TCP


def test_too_many_are_told_to_come_again() -> None:
    with serving(slots=1, max_waiting=1) as running:
        first = running.stream(COMPLETE, LONG)
        running.wait_for("litft_running", 1)
        second = running.stream(COMPLETE, {**LONG, "max_tokens": 4})
        running.wait_for("litft_waiting", 1)
        refused = running.post(COMPLETE, SHORT)
        assert refused.status == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert running.post("/process", {"prompt": "a"}).status == 429
        assert running.post("/tokenize", {"text": "a"}).status == 200  # needs no slot
        assert running.post(COMPLETE, {**SHORT, "n": 3}).status == 400  # can never be taken
        first.close()
        assert whole_stream(read_all(second))
        assert running.post(COMPLETE, SHORT).status == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        (COMPLETE, b"{", 400, "The request is not JSON"),
        (COMPLETE, b"x" * (2**20 + 1), 413, "larger than 1,048,576 bytes"),
        (COMPLETE, {"prompt": "a" * (2**20)}, 413, "larger than"),
        (COMPLETE, {"prompt": "word " * 1000}, 400, "this server takes 512"),
        (COMPLETE, {"prompt": "\ud800"}, 400, "half a character"),
        (COMPLETE, {"prompt": "a", "\ud800": 1}, 400, "is not known"),
        (COMPLETE, {"prompt": "a", "max_tokens": "ten"}, 400, 'max_tokens is "ten"'),
        (COMPLETE, {"prompt": "a", "stream": "yes"}, 400, 'stream is "yes"'),
        ("/v1/chat/completions", {"messages": [1]}, 400, "messages.0 is 1"),
        ("/v1/nothing", {}, 404, "Not Found"),
        ("/health", {}, 405, "Method Not Allowed"),
        ("/v1/models/medlar", None, 404, "no model 'medlar'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_nonsense_is_refused_with_a_reason(running: Running, path: str, body: Any, status: int, said: str) -> None:
    reply = running.post(path, body)
    assert reply.status == status, reply.content
    assert said in reply.message
    assert call(f"{running.url}/health").json == {"status": "ready"}


def test_the_description_names_paths_and_fields(running: Running) -> None:
    told = call(f"{running.url}/openapi.json").json
    assert {"/process", "/tokenize", "/decode", COMPLETE, "/v1/chat/completions", "/health"} <= told["paths"].keys()
    body = told["paths"]["/process"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["prompt"] and "top_k_per_token" in body["properties"]


def test_one_api_alone() -> None:
    with serving(api=("challenge",)) as running:
        assert running.post(COMPLETE, SHORT).status == 404
        assert running.post("/process", {"prompt": "a", "max_new_tokens": 1}).status == 200


def test_limits_of_an_answer() -> None:
    with serving(max_new_tokens=5, max_seq_length=20) as running:
        assert "at most 5 tokens" in running.post(COMPLETE, {**SHORT, "max_tokens": 6}).message
        assert len(running.post("/process", {"prompt": "A", "max_new_tokens": 50}).json["tokens"]) <= 5
        assert "takes 20" in running.post(COMPLETE, {**SHORT, "prompt": [7] * 20}).message


def test_a_key_is_wanted_where_one_is_set() -> None:
    with serving(key="medlar-7") as running:
        for headers in ({}, {"Authorization": "Bearer medlar"}, {"Authorization": "Bearer medlar-7x"}):
            reply = running.post(COMPLETE, SHORT, headers=headers)
            assert (reply.status, reply.json["error"]["code"]) == (401, "invalid_api_key")
            assert "medlar" not in reply.content.decode()
        assert running.post(COMPLETE, SHORT, headers={"Authorization": "Bearer medlar-7"}).status == 200
        assert call(f"{running.url}/metrics").status == 401
        assert call(f"{running.url}/health").status == 200
        assert not any("medlar" in line for line in running.said)


def test_prompts_are_logged_only_on_demand(running: Running) -> None:
    assert running.post(COMPLETE, {**SHORT, "prompt": "a secret"}).status == 200
    wait_until(lambda: any(COMPLETE in line for line in running.said))
    assert not any("secret" in line for line in running.said)
    with serving(log_prompts=True) as other:
        other.post(COMPLETE, {**SHORT, "prompt": "a secret\nof two lines"})
        other.post("/process", {"prompt": "another secret", "max_new_tokens": 1})
        other.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "third"}], "max_tokens": 1})
        wait_until(lambda: len(other.said) == 3)
        expected = (r"127\.0\.0\.1 POST '/v1/completions' 200 \d+\.\d{3} s, \d+\+3 tokens 'a secret\\nof two lines'",)
        assert re.fullmatch(expected[0], other.said[0])
        assert "'another secret'" in other.said[1] and "'third'" in other.said[2]


def test_the_numbers_add_up() -> None:
    with serving() as running:
        for _ in range(3):
            running.post(COMPLETE, SHORT)
        running.stream(COMPLETE, LONG).close()
        running.wait_for('litft_requests_total{path="/v1/completions",status="200"}', 3)
        running.wait_for("litft_running", 0)
        told = running.metrics()
    assert told['litft_answers_total{finish="length"}'] == 3
    assert told["litft_prompt_tokens_total"] >= 9 and told["litft_answer_tokens_total"] >= 9
    buckets = [number for name, number in told.items() if name.startswith("litft_first_token_seconds_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] == told["litft_first_token_seconds_count"] >= 3
    assert len(buckets) == len(SECONDS) + 1


def test_a_bucket_holds_what_is_as_long_as_its_bound() -> None:
    metrics = Metrics()
    for seconds in (0.005, 0.0051, 1000.0):
        metrics.time("litft_answer_seconds", seconds)
    text = metrics.text()
    for bound, number in (("0.005", 1), ("0.01", 2), ("300", 2), ("+Inf", 3)):
        assert f'litft_answer_seconds_bucket{{le="{bound}"}} {number}\n' in text
    assert metrics.mean("litft_answer_seconds") == pytest.approx(1000.0101 / 3)


def test_a_model_that_fails_is_told_and_the_server_lives() -> None:
    trouble: list[Exception] = []

    def fail(*_: object) -> None:
        if trouble:
            raise trouble.pop()

    with serving(slots=1) as running:
        hook = running.llm.model.lm_head.register_forward_pre_hook(fail)
        try:
            good = running.post(COMPLETE, SHORT).json["choices"][0]["text"]
            trouble.append(RuntimeError("out of memory\nat line 3"))
            with ThreadPoolExecutor(2) as pool:
                replies = list(pool.map(lambda _: running.post(COMPLETE, SHORT), range(2)))
            assert sorted(reply.status for reply in replies) == [200, 500]  # the one that waited is answered
            refused = next(reply for reply in replies if reply.status == 500)
            assert refused.message == "The model failed on this request; ask again."
            trouble.append(RuntimeError("again"))
            assert b"The model failed" in read_all(running.stream(COMPLETE, LONG))
            assert running.post(COMPLETE, SHORT).json["choices"][0]["text"] == good
            assert any("RuntimeError: out of memory)" in line for line in running.said)
            trouble += [RuntimeError("for good")] * 3
            assert [running.post("/process", {"prompt": "a"}).status for _ in range(3)] == [500] * 3
            assert call(f"{running.url}/health").status == 503
            assert running.post(COMPLETE, SHORT).status == 200  # and it has recovered
            assert call(f"{running.url}/health").status == 200
        finally:
            hook.remove()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_of_ours_ends_the_model_and_leaves_nobody_waiting() -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a bug")

    with serving(slots=1) as running:
        first, second = running.stream(COMPLETE, LONG), running.stream(COMPLETE, {**LONG, "stream": False})
        running.wait_for("litft_waiting", 1)
        hook = running.llm.model.lm_head.register_forward_pre_hook(fail)
        try:
            assert b"must be started again" in read_all(first)
            content = read_all(second)
            assert content.startswith(b"HTTP/1.1 500") and b"a bug" not in content
        finally:
            hook.remove()
        assert call(f"{running.url}/health").status == 503
        assert running.post(COMPLETE, SHORT).status == 503


def test_a_server_that_ends_answers_what_runs_and_takes_nothing_new() -> None:
    with serving() as running:
        stream = running.stream(COMPLETE, LONG)
        running.wait_for("litft_running", 1)
        told: list[bool] = []
        ending = threading.Thread(target=lambda: told.append(running.server.stop(30)))
        ending.start()
        wait_until(lambda: call(f"{running.url}/health").status == 503)
        refused = running.post(COMPLETE, SHORT)
        assert refused.status == 503 and refused.message == "The server is shutting down."
        assert len(whole_stream(read_all(stream))) > 100
        ending.join()
        assert told == [True]
        with pytest.raises(OSError, match="refused"):
            call(f"{running.url}/health")


def test_what_does_not_end_in_time_is_told_so() -> None:
    with serving() as running:
        stream = running.stream(COMPLETE, LONG)
        running.wait_for("litft_running", 1)
        assert running.server.stop(0) is False
        assert b"shutting down" in read_all(stream)


def test_the_command_from_its_start_to_its_end() -> None:
    words = [sys.executable, "-m", "litft", "serve", "--port", "0", "--checkpoint_dir", str(folder_of("demo"))]
    environment = {**os.environ, "KEY": "k", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*words, "--api_key_env", "KEY"], stderr=subprocess.PIPE, env=environment) as it:
        assert it.stderr is not None
        said = [it.stderr.readline().decode() for _ in range(2)]
        assert re.search(r"16 slots of 512 tokens, 0\.0\d GB$", said[0].strip()), said
        url = said[1].split()[0]
        assert call(f"{url}/v1/models", headers={"Authorization": "Bearer k"}).json["data"][0]["id"] == "demo"
        it.send_signal(signal.SIGTERM)
        rest = it.stderr.read().decode()
        assert it.wait(20) == 0
    assert "GET '/v1/models' 200" in rest and "stopping; running requests have 30 s\n" in rest


def test_a_server_that_cannot_start_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as running:
        port = running.url.rpartition(":")[2]
        words = ["serve", "--checkpoint_dir", str(DEMO)]
        for more, reason in (
            (["--port", port], f"127.0.0.1:{port} cannot be listened at: Address already in use"),
            (["--port", "0"], "is not converted"),
            (["--port", "70000"], "port is 70000"),
            (["--api", "openai,helm"], 'api has "helm"'),
            (["--slots", "0"], "slots is 0"),
            (["--api_key_env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE, which api_key_env names, is not set"),
        ):
            assert main([*words, *more]) == 2
            assert reason in capsys.readouterr().err


def test_a_room_larger_than_the_context_is_refused() -> None:
    with (
        pytest.raises(ConfigError, match="max_seq_length is 513; this model reads at most 512"),
        serving(max_seq_length=513),
    ):
        pass


def test_without_the_libraries_there_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys; found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'uvicorn' else found(name, *rest)\n"
        "from litft.cli import main; sys.exit(main(['serve', '--checkpoint_dir', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "litft: litft serve needs uvicorn; pip install 'litft[serve]' brings them.\n"


def test_a_key_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ServeConfig(checkpoint_dir=DEMO, api_key_env="THE_KEY")
    monkeypatch.setenv("THE_KEY", "é")
    with pytest.raises(ConfigError, match="characters that no key has"):
        config.read_key()
    monkeypatch.setenv("THE_KEY", " k ")
    assert config.read_key() == "k"
