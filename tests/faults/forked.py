"""Commands of litft in forked processes, which have torch already: an injection costs tenths of a second, not five.

Knows how a process is begun, struck and waited for; not what it does.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from litft.cli import main

LONGEST_SECONDS = 120.0
# The innermost of these functions that a thread was in says what the process was doing.
PLACES = {
    "finish": "final save",
    "_write_copies": "checkpoint, in the background",
    "_write_now": "checkpoint",
    "save": "checkpoint",
    "validate_and_note": "validation",
    "train_step": "step",
    "fit": "between steps",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
Strike = Callable[[], None]


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; below zero the signal that killed it.
        said: all that it wrote to stdout and stderr.
        place: what it was doing when it was struck; empty where it was not.
    """

    code: int
    said: str
    place: str

    @property
    def sentences(self) -> list[str]:
        """What it said of a mistake or of the disk."""
        return [line for line in self.said.splitlines() if line.startswith("litft: ")]


@dataclass
class Child:
    """A process that runs."""

    pid: int
    folder: Path

    def wait(self, seconds: float = LONGEST_SECONDS) -> Ended:
        """Gives how it ended; one that takes longer than this is killed, and its code is -9 without a place."""
        until = time.monotonic() + seconds
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                found = os.waitpid(self.pid, 0)
                break
            time.sleep(0.002)
        said, place = ((self.folder / name) for name in ("said", "place"))
        text = place.read_text(encoding="utf-8") if place.exists() else ""
        ended = Ended(os.waitstatus_to_exitcode(found[1]), said.read_text(encoding="utf-8", errors="replace"), text)
        shutil.rmtree(self.folder)
        return ended


def preload() -> None:
    """Imports what a run needs, so that forked processes have it."""
    for name in ("answer.prompt", "recipes.adapter", "recipes.full", "recipes.lora", "report.write", "data.prepare"):
        importlib.import_module(f"litft.{name}")


def fork(work: Callable[[], int], strike: Callable[[Strike], None] | None = None, **environment: str) -> Child:
    """Starts a process that is a copy of this one, does the work, and ends with the code that it gives.

    Args:
        work: is done in it.
        strike: is called in it first, with what kills it and notes where it was.
        environment: is added to its own.
    """
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("LITFT_FAULTS_DIR")))
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of other threads: the test runner's own
        pid = os.fork()
    if pid:
        return Child(pid, folder)
    code = 70
    try:
        with (folder / "said").open("wb", 0) as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
            os.environ.update(environment)
            warnings.simplefilter("default")
            if strike:
                strike(lambda: _kill_here(folder / "place"))
            code = work()
            sys.stdout.flush()
    finally:
        if sys.exc_info()[0]:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(code)


def litft(words: Sequence[str], strike: Callable[[Strike], None] | None = None, **environment: str) -> Child:
    """Starts a command of litft."""
    return fork(lambda: main(words), strike, **environment)


def after(seconds: float) -> Callable[[Strike], None]:
    """Strikes after so many seconds, wherever the process is then."""

    def arm(strike: Strike) -> None:
        timer = threading.Timer(seconds, strike)
        timer.daemon = True
        timer.start()

    return arm


def before_operation(number: int, folder: Path) -> Callable[[Strike], None]:
    """Strikes before the file operation of this number: a file of a folder made, renamed or removed, or a folder so."""

    def arm(strike: Strike) -> None:
        watching(folder, lambda count: strike() if count == number else None)

    return arm


def watching(folder: Path, told: Callable[[int], None]) -> None:
    """Tells of each file operation below a folder in this process, counted from 1, before it is done."""
    count, busy = [0], threading.local()

    def hear(event: str, given: tuple[object, ...]) -> None:
        if getattr(busy, "is_telling", False) or not _changes(event, given) or not _is_below(given[0], folder):
            return
        count[0] += 1
        busy.is_telling = True
        told(count[0])
        busy.is_telling = False

    sys.addaudithook(hear)


def _changes(event: str, given: tuple[object, ...]) -> bool:
    """Says whether an event of Python's is a change of the disk."""
    if event == "open":
        return isinstance(given[2], int) and bool(given[2] & WRITING)
    return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def _is_below(path: object, folder: Path) -> bool:
    """Says whether a path lies in a folder."""
    return isinstance(path, (str, os.PathLike)) and str(path).startswith(str(folder))


def place_now() -> str:
    """Says what this process is doing: a thread beside the main one that writes comes first."""
    found = {name for frame in sys._current_frames().values() for name in _functions(frame)}
    return next((place for name, place in PLACES.items() if name in found), "start")


def _functions(frame: object) -> Iterator[str]:
    """Gives the functions of litft that a thread is in."""
    while frame is not None:
        code = frame.f_code  # type: ignore[attr-defined]
        if f"{os.sep}litft{os.sep}" in code.co_filename or f"{os.sep}finetune{os.sep}" in code.co_filename:
            yield code.co_name
        frame = frame.f_back  # type: ignore[attr-defined]


def _kill_here(path: Path) -> None:
    """Notes what this process was doing and ends it as `kill -9` does."""
    with contextlib.suppress(OSError):
        path.write_text(place_now(), encoding="utf-8")
    os.kill(os.getpid(), signal.SIGKILL)
