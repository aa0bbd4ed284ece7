"""Whether the other processes of a run still live and answer: who is lost is named, and a run with one that hangs ends.

Each process says every few seconds, from a thread, that it goes on. Those of one machine watch each other: one that is
silent for long, as a stopped one is, is killed, which breaks the calls that wait for it. Of other machines only their
own processes know; what waits for those ends after the time limit of `fabric.py`. Knows no model.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lightning_fabric import Fabric

from litft.train.parallel import gather

BEAT_SECONDS = 2.0
SILENCE_SECONDS = 120.0  # longer than any work during which no thread of Python's goes on
NOTICE_SECONDS = 15.0  # for the main thread to meet the loss by itself; in a call that waits on a GPU it does not
CLOSING_SECONDS = 2.0  # from when the connections of a process break to when the system says that it has ended
GOES_ON, DONE = b"+", b"."


class Peer(NamedTuple):
    """Another process: its number, and where it listens."""

    pid: int
    address: bytes


class Watch:
    """What one process knows of the others of a run."""

    def __init__(
        self, rank: int, near: dict[int, Peer], own: socket.socket, started: Sequence[subprocess.Popen[bytes]]
    ) -> None:
        """Begins.

        Args:
            rank: of this process.
            near: the other processes on this machine, by rank.
            own: where they say that they go on.
            started: those that this process started, from rank 1 on.
        """
        self._rank, self._near, self._own = rank, near, own
        self._started = dict(enumerate(started, 1))
        self._handles = {other: os.pidfd_open(peer.pid) for other, peer in near.items()}  # a pid may be given anew
        self._heard = dict.fromkeys(near, time.monotonic())
        self._silent: set[int] = set()
        self._lost_since: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Goes on beside the run from now on."""
        self._thread.start()

    def close(self) -> None:
        """Ends; nobody misses this process then, unless an error that nobody caught ends it."""
        self._closing.set()
        with suppress(OSError):  # wakes it
            self._own.sendto(GOES_ON + b"0", socket.MSG_DONTWAIT, self._own.getsockname())
        self._thread.join(CLOSING_SECONDS)
        if not hasattr(sys, "last_value"):
            self._own.settimeout(CLOSING_SECONDS)
            self._tell(DONE, 0)

    def lost(self) -> dict[int, str]:
        """Says of each process of this machine that is no more what became of it, the likeliest cause of all first."""
        until = time.monotonic() + CLOSING_SECONDS
        while not (ended := [other for other in self._handles if self._has_ended(other)]) and time.monotonic() < until:
            time.sleep(0.01)
        ended.sort(key=lambda other: (other not in self._silent, not self._code(other)))
        return {other: self._fate(other) for other in ended}

    def _fate(self, other: int) -> str:
        """Says what became of a process that has ended."""
        if other in self._silent:
            return f"did not answer for {SILENCE_SECONDS:g} seconds and was ended"
        code = self._code(other)
        if code and code < 0:
            name = signal.Signals(-code).name
            return f"was ended by {name}; the system does that too where there is too little memory"
        return "has ended; what it said, if anything, stands above, or the system killed it"

    def _code(self, other: int) -> int | None:
        """Gives the exit code of a process that this one started and that has ended."""
        return self._started[other].poll() if other in self._started else None

    def _has_ended(self, other: int) -> bool:
        """Says whether a process is no more."""
        return bool(select.select([self._handles[other]], [], [], 0)[0])

    def _watch(self) -> None:
        """Says that this process goes on, and looks after the others, until it is told to end."""
        while not self._closing.is_set():
            self._tell(GOES_ON)
            self._listen(time.monotonic() + BEAT_SECONDS)
            for other in list(self._heard):
                self._look_after(other)
            if self._lost_since is not None and time.monotonic() - self._lost_since > NOTICE_SECONDS:
                self._leave()

    def _tell(self, what: bytes, how: int = socket.MSG_DONTWAIT) -> None:
        """Tells the others; one that is no more, or does not listen, is not waited for."""
        for peer in self._near.values():
            with suppress(OSError):
                self._own.sendto(what + str(self._rank).encode(), how, peer.address)

    def _listen(self, until: float) -> None:
        """Takes what the others tell, until then; one that ends in good order is not looked after any more."""
        while not self._closing.is_set():
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._own], [], [], left)[0]:
                return
            told = self._own.recv(16)
            what, other = told[:1], int(told[1:])
            if what == DONE:
                self._heard.pop(other, None)
            elif other in self._heard:
                self._heard[other] = time.monotonic()

    def _look_after(self, other: int) -> None:
        """Notes that a process has ended; one that was silent for long is ended."""
        silent = time.monotonic() - self._heard[other]
        if self._has_ended(other) and self._code(other) != 0:
            self._lost_since = self._lost_since or time.monotonic()
        elif silent > SILENCE_SECONDS + 2 * BEAT_SECONDS * self._place_without(other):
            self._silent.add(other)
            with suppress(OSError):  # a stopped one hears nothing less
                signal.pidfd_send_signal(self._handles[other], signal.SIGKILL)

    def _place_without(self, other: int) -> int:
        """Gives the place of this process among those that may end another one: the first also tells it."""
        return sum(each < self._rank for each in self._handles if each != other)

    def _leave(self) -> None:
        """Says who is lost, and ends this process, whose main thread waits for it in a call that cannot be broken."""
        from litft.terminal.bars import say

        for other, fate in list(self.lost().items())[:1]:
            say(f"litft: Process {other} of this run {fate}. Process {self._rank}, which waits for it, ends too.")
        os.kill(os.getpid(), signal.SIGKILL)


def open_watch(fabric: Fabric, started: Sequence[subprocess.Popen[bytes]]) -> Watch | None:
    """Gives what watches the processes of this machine, begun; all processes must call this together.

    Args:
        fabric: of several processes that can tell each other words.
        started: those that this process started.

    Returns:
        None where the system gives no handles of processes, as Linux does; nobody watches this process then.
    """
    machine = _machine() if _has_handles() else None
    own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if machine is not None:
        own.bind("")  # an address without a file, which goes with this process
    everywhere = gather(fabric, (machine, Peer(os.getpid(), own.getsockname())))
    if machine is None:
        own.close()
        return None
    near = {rank: peer for rank, (place, peer) in enumerate(everywhere) if place == machine}
    del near[fabric.global_rank]
    watch = Watch(fabric.global_rank, near, own, started)
    watch.start()
    return watch


def _has_handles() -> bool:
    """Says whether the system gives handles of processes; in some sandboxes it does not."""
    if not hasattr(os, "pidfd_open"):
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def _machine() -> str:
    """Gives what processes have in common that see each other's numbers."""
    spaces = (Path("/proc/self/ns") / name for name in ("pid", "net"))
    return " ".join([socket.gethostname(), *(str(space.readlink()) for space in spaces)])
