"""Throughput and latency of `litft serve` on the demo's model, at 1, 4, 16 and 32 requests at the same time.

Starts the server in a process of its own and asks it over HTTP from this one, whole and streamed, with prompts of
different lengths. Prints JSON: tokens of answers a second, and of the requests the median and the 95th percentile of
their time, streamed also to the first token. Each level is measured in rounds, the levels in turn; the medians of the
rounds are told.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prepare import machine

import litft.demo

LEVELS = (1, 4, 16, 32)
ROUNDS = 3
REQUESTS = {1: 12, 4: 32, 16: 96, 32: 128}
ANSWER_TOKENS = 64
PROMPTS = (
    "The opposite of cold is",
    "The old man went down to the lake in the morning, and the child",
    "The plural of mouse is mice. The plural of house is houses. The past tense of go is went. The past tense of",
)


@dataclass(frozen=True)
class Timing:
    """One request: seconds in all, seconds to the first token (of a stream), tokens of its answer."""

    seconds: float
    first: float
    tokens: int


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint_dir", type=Path, help="another converted checkpoint than the demo's")
    parser.add_argument("--slots", type=int, default=16, help="requests the server answers at the same time")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="a file for the result, which is printed anyway")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.checkpoint_dir or demo_model(Path(temporary))
        with server(folder, given.slots) as port:
            levels = measure(port, given.rounds)
    told = {"machine": machine(), "model": folder.name, "slots": given.slots, "answer_tokens": ANSWER_TOKENS}
    one, most = (levels["whole"][str(level)]["tokens_per_second"] for level in (1, 16))
    result = json.dumps({**told, "rounds": given.rounds, **levels, "16_to_1": round(most / one, 2)}, indent=2)
    print(result)
    if given.out:
        given.out.write_text(result + "\n", encoding="utf-8")


def demo_model(folder: Path) -> Path:
    """Converts the demo's model."""
    made = folder / "demo"
    shutil.copytree(Path(litft.demo.__file__).parent / "model", made, copy_function=shutil.copyfile)
    subprocess.run([sys.executable, "-m", "litft", "convert", "from_hf", "--checkpoint_dir", made], check=True)
    return made


@contextmanager
def server(folder: Path, slots: int) -> Iterator[int]:
    """Runs `litft serve` and gives its port."""
    words = ["serve", "--checkpoint_dir", folder, "--port", "0", "--slots", str(slots), "--access_log", "false"]
    command = [sys.executable, "-m", "litft", *map(str, words)]
    threads = {"OMP_NUM_THREADS": "1"}  # so that the client has a core
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **threads}) as process:
        assert process.stderr is not None
        ready = next((line for line in process.stderr if "is ready" in line), None)
        assert ready is not None, "the server did not start"
        try:
            yield int(ready.split()[0].rpartition(":")[2])
        finally:
            process.terminate()


def measure(port: int, rounds: int) -> dict[str, Any]:
    """Measures every level, whole and streamed."""
    found: dict[tuple[bool, int], list[dict[str, float]]] = {}
    for is_streamed in (False, True):
        run_level(port, 4, 8, is_streamed)  # the first requests warm up what there is to warm
    for _ in range(rounds):
        for is_streamed in (False, True):
            for level in LEVELS:
                timed = run_level(port, level, REQUESTS[level], is_streamed)
                found.setdefault((is_streamed, level), []).append(timed)
    return {
        name: {str(level): medians(found[is_streamed, level]) for level in LEVELS}
        for name, is_streamed in (("whole", False), ("streamed", True))
    }


def medians(timed: Sequence[dict[str, float]]) -> dict[str, float]:
    """Gives the median of each number over the rounds."""
    return {name: round(statistics.median(each[name] for each in timed), 4) for name in timed[0]}


def run_level(port: int, level: int, count: int, is_streamed: bool) -> dict[str, float]:
    """Asks `count` times, `level` at the same time."""
    connections = [http.client.HTTPConnection("127.0.0.1", port) for _ in range(level)]

    def work(number: int) -> list[Timing]:
        mine = range(number, count, level)
        return [ask(connections[number], PROMPTS[index % len(PROMPTS)], is_streamed) for index in mine]

    started = time.perf_counter()
    with ThreadPoolExecutor(level) as pool:
        timings = [timing for each in pool.map(work, range(level)) for timing in each]
    seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    told = {
        "tokens_per_second": sum(timing.tokens for timing in timings) / seconds,
        "requests_per_second": count / seconds,
        "p50_seconds": percentile([timing.seconds for timing in timings], 50),
        "p95_seconds": percentile([timing.seconds for timing in timings], 95),
    }
    if is_streamed:
        firsts = [timing.first for timing in timings]
        told |= {"first_token_p50_seconds": percentile(firsts, 50), "first_token_p95_seconds": percentile(firsts, 95)}
    return told


def ask(connection: http.client.HTTPConnection, prompt: str, is_streamed: bool) -> Timing:
    """Asks once."""
    body: dict[str, Any] = {"prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    if is_streamed:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    started = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    if not is_streamed:
        tokens = json.loads(response.read())["usage"]["completion_tokens"]
        seconds = time.perf_counter() - started
        return Timing(seconds, seconds, tokens)
    first, last = 0.0, b""
    for line in iter(response.readline, b""):
        if line.startswith(b"data: {"):
            first, last = first or time.perf_counter() - started, line
    return Timing(time.perf_counter() - started, first, json.loads(last[6:])["usage"]["completion_tokens"])


def percentile(values: Sequence[float], share: float) -> float:
    """Gives the value that `share` percent of all are not above."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share / 100), len(ordered) - 1)]


if __name__ == "__main__":
    main()
