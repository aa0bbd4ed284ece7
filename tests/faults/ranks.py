"""One of two processes is killed or stopped: the other ends in time and names it, and the run goes on afterwards."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from forked import Child, Ended, fork
from tiny_runs import World, differences, fresh, hurt, words

from litft.cli import main
from litft.train import watch

SILENCE_SECONDS = 1.0  # instead of two minutes
ENDS_WITHIN = {"killed": 10.0, "stopped": 15.0, "stuck": 15.0}  # seconds
SAYS = {"killed": "has ended", "stopped": "did not answer for 1 seconds", "stuck": "has ended"}


def train_twice(world: Path, out_dir: Path, spoil: Callable[[int], None] = lambda rank: None) -> list[Child]:
    """Starts the two processes of a run as torchrun does; `spoil` is called in each with its rank."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = str(listening.getsockname()[1])
    shared = {"TORCHELASTIC_RUN_ID": "faults", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = words(world, "lora", out_dir, devices=2, strategy="ddp")

    def work(rank: int) -> int:
        watch.BEAT_SECONDS, watch.SILENCE_SECONDS, watch.NOTICE_SECONDS = 0.1, SILENCE_SECONDS, 1.0
        spoil(rank)
        return main(command)

    return [
        fork(lambda rank=rank: work(rank), **shared, **address, RANK=str(rank), LOCAL_RANK=str(rank))  # type: ignore[misc]
        for rank in range(2)
    ]


def lose_one(world: World, how: str, rank: int, chance: random.Random, goes_on: bool = True) -> list[str]:
    """Loses one of two processes in the midst of a run, and says what of it was not as promised.

    Args:
        world: holds `straight-two`, the run of two processes that nothing struck.
        how: `killed`, `stopped`, or `stuck`: it is killed, and the other is in a call that meets no loss.
        rank: which of them.
        chance: when.
        goes_on: whether the run is taken up afterwards, and compared.
    """
    out_dir = fresh(world.folder / "struck")
    children = train_twice(world.folder, out_dir, lambda own: _never_meet() if how == "stuck" and own != rank else None)
    if not _began(out_dir, children):
        return [f"it did not begin: {[child.wait(1).said[-500:] for child in children]}"]
    time.sleep(chance.uniform(0, 0.3 * world.seconds["lora"]))
    struck = time.monotonic()
    os.kill(children[rank].pid, signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
    if how != "stopped":
        children[rank].wait()
    other = children[1 - rank].wait(4 * ENDS_WITHIN[how])
    took = time.monotonic() - struck
    if how == "stopped":
        os.kill(children[rank].pid, signal.SIGKILL)
        children[rank].wait()
    if (out_dir / "summary.json").exists():
        return []  # it had ended
    faults = _broken_promises(other, took, how, rank) + hurt(out_dir)
    return faults + (_finish(world, out_dir) if goes_on else [])


def _began(out_dir: Path, children: list[Child]) -> bool:
    """Waits for the first step."""
    metrics, until = out_dir / "logs" / "metrics.csv", time.monotonic() + 60
    while time.monotonic() < until:
        if metrics.exists() and len(metrics.read_text().splitlines()) > 2:
            return True
        time.sleep(0.01)
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
    return False


def _never_meet() -> None:
    """Lets this process wait for ever in its third step, as in a call to a GPU that waits for another one."""
    from litft.train import loop

    steps, plain = [0], loop.train_step

    def step(*given: object) -> object:
        steps[0] += 1
        while steps[0] > 2:
            time.sleep(0.1)
        return plain(*given)  # type: ignore[arg-type]

    loop.train_step = step  # type: ignore[assignment]


def _broken_promises(other: Ended, took: float, how: str, rank: int) -> list[str]:
    """Says what the process that is left did not do in time, or did not say."""
    faults = [] if took < ENDS_WITHIN[how] else [f"the other took {took:.1f} s to end"]
    wanted = (2, -9) if how == "stuck" else (2,)  # it may meet the loss before it is stuck
    if other.code not in wanted:
        faults.append(f"the other ended with {other.code}: {other.said[-500:]}")
    if not any(f"Process {rank} of" in line and SAYS[how] in line for line in other.sentences):
        faults.append(f"the other did not name it: {other.said[-500:]}")
    return faults


def _finish(world: World, out_dir: Path) -> list[str]:
    """Lets the run go on in two processes, and says in what it differs from the one that nothing struck."""
    ended = [child.wait() for child in train_twice(world.folder, out_dir)]
    if [each.code for each in ended] != [0, 0]:
        return [f"it did not go on: {[each.said[-500:] for each in ended]}"]
    return differences(world.straight("two"), out_dir)
