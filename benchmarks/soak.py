"""`litft serve` among hostile clients: what it answers, whether others are still served, what memory it takes.

Starts the server with the demo's model in a process of its own and asks it over 127.0.0.1 alone. Prints JSON. Its parts
are cases (requests that no friendly client sends), slow (clients that send a byte a second), many (connections opened
at once), huge (a body without end), unread (clients that read nothing), memory (a line through the server's memory over
many requests) and fuzz (schemathesis, from the server's own OpenAPI document; with --schemathesis).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prepare import machine
from serve import demo_model, percentile

sys.path.append(str(Path(__file__).parents[1] / "tests" / "unit"))
from hostile import LEAKS, Case, cases, exchange, head_of, post

ASK = json.dumps({"prompt": "The kite", "max_new_tokens": 4, "temperature": 0}).encode()
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance"
)
FLAGS = {"port": 0, "slots": 8, "max_seq_length": 128, "max_new_tokens": 16, "access_log": "false"}
GIGABYTE = 2**30


@dataclass
class Watched:
    """A server that runs.

    Attributes:
        port: where.
        pid: its process.
        said: what it wrote to stderr.
    """

    port: int
    pid: int
    said: list[str] = field(default_factory=list)

    @property
    def rss_mib(self) -> float:
        """Memory that it holds."""
        return status_kib(self.pid, "VmRSS") / 1024

    @property
    def files(self) -> int:
        """Files and connections that it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


@dataclass(frozen=True)
class Sizes:
    """How long the parts are."""

    requests: int
    connections: int
    slow: int
    gigabytes: float
    examples: int
    schemathesis: Path | None
    minutes: float


def main() -> None:
    """Runs the parts and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", default=".", help="a regular expression of the parts to run")
    parser.add_argument("--requests", type=int, default=10_000, help="of the part memory")
    parser.add_argument(
        "--connections", type=int, default=10_000, help="of the part many; raises ulimit -n where it may"
    )
    parser.add_argument("--slow", type=int, default=300, help="clients of the part slow")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of a body of the part huge")
    parser.add_argument("--schemathesis", type=Path, help="the program, of an environment of its own")
    parser.add_argument("--examples", type=int, default=100, help="of each operation in the part fuzz")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the part fuzz at most")
    parser.add_argument("--verbose", action="store_true", help="what the server wrote to stderr, too")
    parser.add_argument("--out", type=Path, help="a file for the result, which is printed anyway")
    given = vars(parser.parse_args())
    parts, out, is_verbose = given.pop("parts"), given.pop("out"), given.pop("verbose")
    allow_files(2 * given["connections"] + 200)
    with tempfile.TemporaryDirectory() as temporary, server(demo_model(Path(temporary))) as watched:
        found = {name: part(watched, Sizes(**given)) for name, part in PARTS.items() if re.search(parts, name)}
        health = exchange_one(watched, head_of("GET /health HTTP/1.1", "Host: a", "Connection: close"))
    told = {"machine": machine(), "server": FLAGS, **found, "healthy_at_the_end": health[0] == 200}
    errors = Counter(line.strip() for line in watched.said if re.match(r"\w+(\.\w+)*(Error|Exception|Group)\b", line))
    result = json.dumps({**told, "errors_on_stderr": dict(errors)}, indent=2)
    print(result)
    if is_verbose:
        sys.stderr.writelines(watched.said)
    if out:
        out.write_text(result + "\n", encoding="utf-8")


def allow_files(count: int) -> None:
    """Lets this process and the server open so many files, where the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(count, hard)), hard))


@contextmanager
def server(folder: Path) -> Iterator[Watched]:
    """Runs `litft serve`, and reads what it says."""
    flags = [word for name, value in FLAGS.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "litft", "serve", "--checkpoint_dir", str(folder), *flags]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        ready = next((line for line in process.stderr if "is ready" in line), None)
        assert ready is not None, "the server did not start"
        watched, errors = Watched(int(ready.split()[0].rpartition(":")[2]), process.pid), process.stderr
        reader = threading.Thread(target=lambda: watched.said.extend(errors), daemon=True)
        reader.start()
        try:
            yield watched
        finally:
            process.terminate()
            reader.join(60)


def status_kib(pid: int, name: str) -> int:
    """Gives a number of a process's status file."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.findall(rf"{name}:\s+(\d+) kB", text)[0])


def exchange_one(watched: Watched, raw: bytes) -> tuple[int, bytes]:
    """Asks once; -1 where there is no answer."""
    return exchange(watched.port, Case("one", raw), 60)[0]


def fuzz(watched: Watched, sizes: Sizes) -> dict[str, Any]:
    """Lets schemathesis ask whatever the OpenAPI document allows, and what it does not."""
    if sizes.schemathesis is None:
        return {"skipped": "no --schemathesis"}
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.ndjson"
        command = [
            str(sizes.schemathesis), "run", f"http://127.0.0.1:{watched.port}/openapi.json", "--checks", CHECKS,
            "--max-examples", str(sizes.examples), "--continue-on-failure", "--seed", "1", "--no-color",
            "--max-time", str(int(60 * sizes.minutes)), "--request-timeout", "60", "--report", "ndjson",
            "--report-ndjson-path", str(report),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=temporary)
    summary = done.stdout.partition("SUMMARY")[2]
    cases_run = re.findall(r"([\d,]+) generated", summary)
    failed = re.search(r"=+ FAILURES =+\n(.*?)\n=+ [A-Z]+ =+", done.stdout, re.DOTALL)
    failures = re.findall(r"^- (.+)", failed[1], re.MULTILINE) if failed else []
    return {
        "checks": CHECKS.split(","),
        "cases": int(cases_run[0].replace(",", "")) if cases_run else None,
        "exit_code": done.returncode,
        "failures": dict(Counter(failures)),
    }


def hostile_cases(watched: Watched, sizes: Sizes) -> dict[str, Any]:
    """Sends each request of `tests/unit/hostile.py`."""
    wrong, leaks, statuses = [], 0, Counter[str]()
    for case in cases():
        found = exchange(watched.port, case)
        statuses.update(str(status) for status, _ in found)
        if len(found) != case.replies or not {status for status, _ in found} <= case.statuses:
            wrong.append(case.name)
        leaks += sum(bool(LEAKS.search(body)) for status, body in found if status >= 400)
    return {"cases": len(list(cases())), "unexpected": wrong, "bodies_that_leak": leaks, "statuses": dict(statuses)}


def slow(watched: Watched, sizes: Sizes) -> dict[str, Any]:
    """Holds connections by a byte a second, of the head or of the body, while others ask."""
    return asyncio.run(_slow(watched, sizes.slow))


async def _slow(watched: Watched, count: int) -> dict[str, Any]:
    body = head_of("POST /process HTTP/1.1", "Host: a", "Content-Length: 100000")
    before = await timed(watched, 20)
    started = time.perf_counter()
    kinds = [("head", b"POST /process HTTP/1.1\r\nX: ")] * count + [("body", body)] * count
    tasks = [asyncio.ensure_future(dribble(watched.port, raw)) for _, raw in kinds]
    await asyncio.sleep(3)
    during = await timed(watched, 40)
    held = await asyncio.gather(*tasks)
    ended: dict[str, list[float]] = {"head": [], "body": []}
    for (kind, _), seconds in zip(kinds, held, strict=True):
        ended[kind].append(seconds)
    longest = {f"{kind}_longest_seconds": round(max(seconds), 1) for kind, seconds in ended.items()}
    return {
        "clients": len(kinds), "others_before": before, "others_during": during, **longest,
        "all_ended_after_seconds": round(time.perf_counter() - started, 1), "files_left_open": watched.files,
    }  # fmt: skip


async def dribble(port: int, raw: bytes) -> float:
    """Sends a byte a second until the server ends it; gives after how many seconds it did."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.perf_counter()
    writer.write(raw)
    ended = asyncio.ensure_future(reader.read(-1))
    try:
        while not (await asyncio.wait([ended], timeout=1))[0] and time.perf_counter() - started < 120:
            writer.write(b"a")
    finally:
        ended.cancel()
        writer.close()
    return time.perf_counter() - started


async def ask(port: int, raw: bytes, seconds: float = 60) -> int:
    """Asks once and gives the status; 0 for a connection that was cut, -1 where no answer came in time."""
    try:
        return await asyncio.wait_for(_ask(port, raw), seconds)
    except asyncio.TimeoutError:
        return -1
    except OSError:
        return 0


async def _ask(port: int, raw: bytes) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        received = await read_all(reader)
    finally:
        writer.close()
    return int(received.split()[1]) if received else 0


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Reads to the end; what came before a connection was cut counts."""
    received = bytearray()
    try:
        while piece := await reader.read(2**16):
            received += piece
    except ConnectionError:
        return bytes(received)
    return bytes(received)


async def timed(watched: Watched, count: int) -> dict[str, Any]:
    """Asks one after the other."""
    statuses, seconds = Counter[str](), []
    for _ in range(count):
        started = time.perf_counter()
        statuses[str(await ask(watched.port, post("/process", ASK)))] += 1
        seconds.append(time.perf_counter() - started)
    told = {f"p{share}_seconds": round(percentile(seconds, share), 3) for share in (50, 95)}
    return {"statuses": dict(statuses), **told}


def many(watched: Watched, sizes: Sizes) -> dict[str, Any]:
    """Opens connections at once, each with one request; and as many that say nothing."""
    return asyncio.run(_many(watched, sizes.connections))


async def _many(watched: Watched, count: int) -> dict[str, Any]:
    started, raw = time.perf_counter(), post("/process", ASK)
    statuses = Counter(await asyncio.gather(*(ask(watched.port, raw, 120) for _ in range(count))))
    asking: dict[str, Any] = {"statuses": {str(status): number for status, number in sorted(statuses.items())}}
    asking["seconds"] = round(time.perf_counter() - started, 1)
    silent = [asyncio.ensure_future(dribble(watched.port, b"GET ")) for _ in range(count)]
    await asyncio.sleep(10)
    files, during = watched.files, await timed(watched, 20)
    for task in silent:
        task.cancel()
    await asyncio.gather(*silent, return_exceptions=True)
    await asyncio.sleep(5)
    after = await timed(watched, 20)
    return {"connections": count, "asking": asking, "silent": {"files": files, "others": during}, "after": after}


def huge(watched: Watched, sizes: Sizes) -> dict[str, Any]:
    """Sends a body of a gigabyte, with its length and in chunks."""
    size = int(sizes.gigabytes * GIGABYTE)
    plain = head_of("POST /process HTTP/1.1", "Host: a", f"Content-Length: {size}")
    chunked = head_of("POST /process HTTP/1.1", "Host: a", "Transfer-Encoding: chunked")
    told = {"bytes": size, "length": asyncio.run(_huge(watched, plain, size, b"", b""))}
    told["chunked"] = asyncio.run(_huge(watched, chunked, size, b"100000\r\n", b"\r\n"))
    return told


async def _huge(watched: Watched, head: bytes, size: int, before: bytes, after: bytes) -> dict[str, Any]:
    """Sends until the server ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", watched.port)
    piece, sent, started, rss = before + b"a" * 2**20 + after, 0, time.perf_counter(), watched.rss_mib
    most, reply = rss, asyncio.ensure_future(read_all(reader))
    writer.write(head)
    with suppress(ConnectionError):  # the server has ended it
        while sent < size and not reply.done():
            writer.write(piece)
            await writer.drain()
            sent, most = sent + 2**20, max(most, watched.rss_mib)
    received = await asyncio.wait_for(reply, 30)
    writer.close()
    return {
        "status": int(received.split()[1]) if received else None, "taken_mib": sent // 2**20,
        "seconds": round(time.perf_counter() - started, 1), "memory_grew_mib": round(most - rss, 1),
    }  # fmt: skip


def unread(watched: Watched, sizes: Sizes) -> dict[str, Any]:
    """Asks for long replies and reads none; others ask meanwhile."""
    raw = post("/tokenize", json.dumps({"text": "a b " * 500_000, "truncation": False}).encode())
    files, rss, count, most = watched.files, watched.rss_mib, min(sizes.slow, 20), 0.0
    opened = [socket.socket() for _ in range(count)]
    for each in opened:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        each.connect(("127.0.0.1", watched.port))
        each.sendall(raw)
    started = time.perf_counter()
    during = asyncio.run(timed(watched, 40))
    while watched.files > files and time.perf_counter() - started < 200:
        most = max(most, watched.rss_mib)
        time.sleep(1)
    seconds, left = round(time.perf_counter() - started, 1), watched.files - files
    for each in opened:
        each.close()
    grew = {"memory_grew_mib": round(most - rss, 1), "memory_left_mib": round(watched.rss_mib - rss, 1)}
    return {"clients": count, "others": during, "all_ended_after_seconds": seconds, "left": left, **grew}


def memory(watched: Watched, sizes: Sizes) -> dict[str, Any]:
    """Asks very often in many ways, and lays a line through the server's memory, its first fifth left out."""
    chat = {"messages": [{"role": "user", "content": "Name a bird."}], "max_tokens": 4}
    ways = [
        post("/process", ASK),
        post("/v1/completions", json.dumps({"prompt": "The kite", "max_tokens": 4, "stream": True}).encode()),
        post("/v1/chat/completions", json.dumps(chat).encode()),
        post("/tokenize", json.dumps({"text": "The kite " * 50}).encode()),
        post("/v1/completions", json.dumps({"prompt": "a", "max_tokens": -1}).encode()),
        post("/nothing", b"{}"),
    ]
    return asyncio.run(_memory(watched, sizes.requests, ways))


async def _memory(watched: Watched, count: int, ways: Sequence[bytes]) -> dict[str, Any]:
    statuses, points, started = Counter[str](), [(0, watched.rss_mib)], time.perf_counter()
    at_once = 4
    for begin in range(0, count, at_once):
        asked = (ask(watched.port, ways[number % len(ways)]) for number in range(begin, begin + at_once))
        statuses.update(map(str, await asyncio.gather(*asked)))
        if (begin + at_once) % (count // 50) == 0:
            points.append((begin + at_once, watched.rss_mib))
    settled = [(at, mib) for at, mib in points if at >= count // 5]
    return {
        "requests": count, "statuses": dict(statuses), "seconds": round(time.perf_counter() - started, 1),
        "rss_mib": {str(at): round(mib, 1) for at, mib in points if at % (count // 5) == 0},
        "kib_per_1000_requests": round(slope(settled) * 1024 * 1000, 1), "files": watched.files,
    }  # fmt: skip


def slope(points: Sequence[tuple[int, float]]) -> float:
    """Gives the slope of the line of least squares."""
    x_mean, y_mean = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return float(sum((x - x_mean) * (y - y_mean) for x, y in points) / spread)


PARTS: dict[str, Callable[[Watched, Sizes], dict[str, Any]]] = {
    "cases": hostile_cases, "slow": slow, "many": many, "huge": huge, "unread": unread, "memory": memory, "fuzz": fuzz,
}  # fmt: skip


if __name__ == "__main__":
    main()
