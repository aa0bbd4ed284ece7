"""Signals, clocks that jump, and folders that go away, in the midst of a run."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import time
from pathlib import Path

from forked import Child, Ended, Strike, after, litft
from tiny_runs import World, differences, fresh, hurt, words

DAY = 86_400.0


def signal_run(world: World, method: str, number: int, twice: bool, chance: random.Random) -> list[str]:
    """Sends a signal to a run in the midst of its steps, types what it says then, and says what was not as promised.

    Args:
        world: with the run that nothing struck.
        method: of the run.
        number: of the signal.
        twice: whether a second one follows at once.
        chance: when.
    """
    out_dir = fresh(world.folder / "struck")
    child = litft(words(world.folder, method, out_dir))
    _wait_for_step(child, out_dir)
    time.sleep(chance.uniform(0, 0.5 * world.seconds[method]))
    for _ in range(1 + twice):
        os.kill(child.pid, number)
        time.sleep(0.005)
    ended = child.wait()
    faults = hurt(out_dir)
    if ended.code == 0 and (out_dir / "summary.json").exists():  # it was at its end
        return faults + differences(world.straight(method), out_dir)
    if number == signal.SIGINT:
        faults += [] if ended.code == 130 else [f"it ended with {ended.code}: {ended.said[-500:]}"]
        command = words(world.folder, method, out_dir)
    else:
        command = _told(ended)
    again = litft(command).wait()
    if again.code == 2 and "has ended" in again.said:  # Ctrl-C twice, while the report was drawn
        again = litft(["report", str(out_dir)]).wait()
    if again.code:
        return [*faults, f"it did not go on: {ended.said[-300:]} {again.said[-500:]}"]
    return faults + differences(world.straight(method), out_dir, had_to_save=True)


def _wait_for_step(child: Child, out_dir: Path) -> None:
    """Waits until a run has taken its first step, from where on signals are its own."""
    metrics, until = out_dir / "logs" / "metrics.csv", time.monotonic() + 60
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2) and time.monotonic() < until:
        time.sleep(0.002)


def _told(ended: Ended) -> list[str]:
    """Gives the command that a run says to go on with."""
    if ended.code == 0 and "Go on with: litft " in ended.said:
        return shlex.split(ended.said.split("Go on with: litft ")[1].splitlines()[0])
    return ["nothing", "was", "told", str(ended.code), ended.said[-300:]]


def jump_clock(world: World, method: str, chance: random.Random) -> list[str]:
    """Lets the time of day jump ahead and back by days during a run that has a bound of time."""
    out_dir, plain = fresh(world.folder / "struck"), time.time

    def arm(strike: Strike) -> None:
        time.time = lambda: plain() + chance.uniform(-9, 9) * DAY

    ended = litft(words(world.folder, method, out_dir), arm).wait()
    faults = [] if ended.code == 0 else [f"it ended with {ended.code}: {ended.said[-500:]}"]
    return faults + differences(world.straight(method), out_dir)


def take_data_away(world: World, method: str, chance: random.Random) -> list[str]:
    """Removes what a run reads while it goes on, and kills it; it goes on once the rows are there again."""
    out_dir, copy = fresh(world.folder / "struck"), fresh(world.folder / "copied")
    for part in ("model", "data"):
        shutil.copytree(world.folder / part, copy / part)
    command = words(copy, method, out_dir)
    child = litft(command)
    _wait_for_step(child, out_dir)
    shutil.rmtree(copy / "data")
    ended = child.wait()
    faults = [] if ended.code == 0 else [f"without its data it ended with {ended.code}: {ended.said[-500:]}"]
    faults += differences(world.straight(method), out_dir)
    out_dir = fresh(world.folder / "struck")
    shutil.copytree(world.folder / "data", copy / "data")
    litft(command, after(chance.uniform(0.3, 0.8) * world.seconds[method])).wait()
    (copy / "data").rename(copy / "gone")
    refused = litft(command).wait()
    if refused.code != 2 or len(refused.sentences) != 1:
        faults.append(f"without its data it began: {refused.code} {refused.said[-500:]}")
    (copy / "gone").rename(copy / "data")
    again = litft(command).wait()
    if again.code == 2 and "has ended" in again.said:
        litft(["report", str(out_dir)]).wait()
    return faults + differences(world.straight(method), out_dir)
