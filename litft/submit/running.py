"""A server of ours in a process of its own, on a free port of this machine, for as long as it is asked."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from litft.errors import ConfigError

READY = re.compile(r"(http://\S+) is ready")
LAST_LINES = 20
END_SECONDS = 10.0
START_SECONDS = 20 * 60.0  # Source: eval-repo.sh of the challenge asks ten times, 120 s apart


@contextmanager
def running_server(checkpoint_dir: Path, flags: Sequence[str]) -> Iterator[str]:
    """Gives the address of `litft serve`, which ends with the block.

    Args:
        checkpoint_dir: what is served.
        flags: its other flags.

    Raises:
        ConfigError: it did not start, with what it said.
    """
    words = ["--checkpoint_dir", str(checkpoint_dir), "--port", "0", "--access_log", "false", "--shutdown_seconds", "0"]
    command = [sys.executable, "-m", "litft", "serve", *words, *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watch = threading.Timer(START_SECONDS, process.kill)
    watch.start()
    try:
        url = _wait_ready(process)
        watch.cancel()
        yield url
    finally:
        watch.cancel()
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()


def _wait_ready(process: subprocess.Popen[str]) -> str:
    """Reads what the server says until it is ready, and goes on reading so that it never has to wait.

    Raises:
        ConfigError: it ended before.
    """
    assert process.stderr is not None
    last: deque[str] = deque(maxlen=LAST_LINES)
    for line in process.stderr:
        last.append(line.strip())
        if found := READY.search(line):
            threading.Thread(target=_read_on, args=(process,), daemon=True).start()
            return found[1]
    said = next((line for line in reversed(last) if line), f"it was silent, or not ready in {START_SECONDS:g} s.")
    raise ConfigError(f"The server did not start: {said.removeprefix('litft: ')}")


def _read_on(process: subprocess.Popen[str]) -> None:
    """Reads the rest of what the server says."""
    assert process.stderr is not None
    for _ in process.stderr:
        pass
