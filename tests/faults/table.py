"""Kills, fills and corrupts, and prints a table: fault, times injected, survived, lost.

`make faults` runs it, with the folders of the tests on Python's path: table.py [--times 50] [--seed 0] [--out FILE.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import torch
from corrupt import DAMAGES, STEP_FILES, damage_input, damage_result, damage_step, make_cut_run
from forked import before_operation, preload
from full_disk import (
    can_mount,
    convert_out_of_space,
    limited_files,
    make_sources,
    prepare_out_of_space,
    read_only_at,
    report_out_of_space,
    run_out_of_space,
    space_out,
)
from kill import count_operations, kill_and_resume, kill_overwriting, strikes
from ranks import lose_one, train_twice
from real import lose_real_process, strike_command
from signals import jump_clock, signal_run, take_data_away
from tiny_runs import METHODS, World, make_faults_world, train

INPUTS = ("model/lit_model.safetensors", "data/train.pt", "data/test.pt", "data/manifest.yaml")
OPERATIONS_OF_SMALL = 12  # changes of the disk that a preparation or a conversion makes, about


@dataclass
class Row:
    """One line of the table.

    Attributes:
        times: injections.
        lost: those after which something was not as promised.
        faults: what.
    """

    fault: str
    times: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)

    def note(self, faults: list[str], times: int = 1) -> None:
        """Takes one injection, or several into one run."""
        self.times += times
        self.lost += bool(faults)
        self.faults += faults


def build_world(folder: Path) -> World:
    """Makes base, rows, and for each method the run that nothing strikes; the last one is of two processes."""
    world = World(make_faults_world(folder), {})
    for method in METHODS:
        started = time.monotonic()
        ended = train(folder, method, world.straight(method))
        assert ended.code == 0, ended.said
        world.seconds[method] = time.monotonic() - started
    ended_two = [child.wait() for child in train_twice(folder, world.straight("two"))]
    assert [each.code for each in ended_two] == [0, 0], [each.said for each in ended_two]
    make_sources(folder)
    return world


def killed(world: World, times: int, chance: random.Random) -> Iterator[Row]:
    """`kill -9` until each method's run was killed so many times."""
    struck = world.folder / "struck"
    for method in METHODS:
        row, places = Row(f"kill -9 of a {method} run"), Counter[str]()
        operations = count_operations(world, method)
        while row.times < times:
            before = places.total()
            ways = strikes(world.seconds[method], operations, struck, chance)
            faults = kill_and_resume(world, method, ways, places)
            row.note(faults, places.total() - before)
        row.fault += f" ({', '.join(f'{place} {count}' for place, count in places.most_common())})"
        yield row
    operations = count_operations(world, "lora")
    apart = max(150 // times, 1)
    row = Row(f"kill -9 of a lora run before its changes of the disk, one in {apart} of {operations}")
    for number in range(1, operations + 1, apart):
        row.note(kill_and_resume(world, "lora", iter([before_operation(number, struck)]), Counter()))
    yield row
    row = Row("kill -9 of a run that replaces another (--overwrite true)")
    repeat(row, times // 5, lambda: kill_overwriting(world, "lora", 60, chance))
    yield row


def out_of_space(world: World, times: int, chance: random.Random) -> Iterator[Row]:
    """Disks that fill or fail."""
    operations = count_operations(world, "lora")
    if can_mount():
        for method, count in (("lora", times // 2), ("full", times // 4)):
            row = Row(f"disk full in a {method} run: tmpfs, filled before any change of the disk")
            repeat(row, count, lambda m=method: run_out_of_space(world, m, space_out, chance.randint(1, operations)))
            yield row
        row = Row("disk that may only be read from one moment on: tmpfs, mounted anew")
        repeat(row, times // 5, lambda: run_out_of_space(world, "lora", read_only_at, chance.randint(1, operations)))
        yield row
        number = lambda: chance.randint(1, OPERATIONS_OF_SMALL)  # noqa: E731
        small: dict[str, Callable[[], list[str]]] = {
            "prepare": lambda: prepare_out_of_space(world, number(), overwrite=False),
            "prepare --overwrite true": lambda: prepare_out_of_space(world, number(), overwrite=True),
            "convert": lambda: convert_out_of_space(world, number()),
            "report": lambda: report_out_of_space(world, chance.randint(1, 2)),
        }
        for name, work in small.items():
            row = Row(f"disk full in {name}: tmpfs")
            repeat(row, times // 5, work)
            yield row
    row = Row("no file may grow beyond a limit (RLIMIT_FSIZE)")
    repeat(row, times // 5, lambda: limited_files(world, "lora", chance.randint(1500, 30_000)))
    yield row


def corrupted(world: World, times: int, chance: random.Random) -> Iterator[Row]:
    """Bytes that change, each kind of damage to each file."""
    again = max(times // 50, 1)
    for method in METHODS:
        make_cut_run(world, method)
    for kind in DAMAGES:
        row = Row(f"{kind}: a file of the newest step checkpoint")
        for name in ("state.yaml", *(f"{each}.safetensors" for each in STEP_FILES)):
            repeat(row, again, lambda n=name, k=kind: damage_step(world, chance.choice(METHODS), n, k, chance))
        yield row
        row = Row(f"{kind}: {', '.join(Path(name).name for name in INPUTS)}")
        for name in INPUTS:
            repeat(row, 2 * again, lambda n=name, k=kind: damage_input(world, n, k, chance))
        yield row
        row = Row(f"{kind}: the weights of final/")
        for method in METHODS:
            repeat(row, again, lambda m=method, k=kind: damage_result(world, m, k, chance))
        yield row
    row = Row("two step checkpoints that have each other's name")
    repeat(row, again, lambda: damage_step(world, "lora", "folder", "swap", chance))
    yield row


def signalled(world: World, times: int, chance: random.Random) -> Iterator[Row]:
    """Signals, clocks, folders that go away."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        for twice in (False, True):
            row = Row(f"{number.name}{' twice' if twice else ''}")
            each = lambda n=number, t=twice: signal_run(world, chance.choice(METHODS), n, t, chance)  # noqa: E731
            repeat(row, times // 10, each)
            yield row
    row = Row("a clock that jumps by days (time.time replaced)")
    repeat(row, times // 25, lambda: jump_clock(world, "lora", chance))
    yield row
    row = Row("data_dir removed in the midst of a run")
    repeat(row, times // 25, lambda: take_data_away(world, "lora", chance))
    yield row


def bereft(world: World, times: int, chance: random.Random) -> Iterator[Row]:
    """One of two processes."""
    for how in ("killed", "stopped", "stuck"):
        row = Row(f"one of two processes is {BEREFT[how]}")
        for rank in (0, 1):
            repeat(row, max(times // 20, 1), lambda h=how, r=rank: lose_one(world, h, r, chance))
        yield row


BEREFT = {
    "killed": "killed",
    "stopped": "stopped (SIGSTOP), 1 s of silence allowed instead of 120",
    "stuck": "killed while the other waits in a call that does not break",
}


def real(world: World, times: int, chance: random.Random) -> Iterator[Row]:
    """The command in processes of its own."""
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        row = Row(f"`litft finetune lora` in a process of its own: {number.name}")
        repeat(row, max(times // 16, 1), lambda n=number: strike_command(world, n, chance))
        yield row
    row = Row("`litft finetune lora --devices 2`: its second process is killed")
    repeat(row, max(times // 16, 1), lambda: lose_real_process(world, chance))
    yield row


def repeat(row: Row, times: int, work: Callable[[], list[str]]) -> None:
    """Injects so many times."""
    for _ in range(max(times, 1)):
        row.note(work())


def table(rows: list[Row]) -> str:
    """Gives the rows as Markdown."""
    lines = ["| fault | times | survived | lost |", "|---|---:|---:|---:|"]
    lines += [f"| {row.fault} | {row.times} | {row.times - row.lost} | {row.lost} |" for row in rows]
    times, lost = sum(row.times for row in rows), sum(row.lost for row in rows)
    return "\n".join([*lines, f"| **all** | **{times}** | **{times - lost}** | **{lost}** |"])


def page(rows: list[Row], arguments: argparse.Namespace, seconds: float) -> str:
    """Gives the page that is kept: the table, and on what it was made."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("litft", "torch", "lightning-fabric"))
    return f"""# Faults, injected

`make faults` made this table (`tests/faults/table.py --times {arguments.times} --seed {arguments.seed}`) on
{time.strftime("%Y-%m-%d", time.gmtime())}, in {seconds / 60:.0f} minutes, on {os.cpu_count()} cores of
{platform.machine()} ({platform.system()} {platform.release()}), Python {platform.python_version()}, {versions}.

A fault is survived when what was promised of it holds: the command ends with one sentence and exit code 2 (a signal: 0,
or 130 for Ctrl-C), nothing half written looks like a checkpoint, and the run that `--resume auto` takes up again ends
with the weights, optimizer states, metrics, samples, spikes and losses of rows of the run that nothing struck, bit for
bit, and with the same files. Runs have 26 steps of a model of 14,000 weights. Their processes are forked from one that
has torch, but for the last rows, and their disk is in memory.

{table(rows)}
"""


def main() -> int:
    """Runs all of it; the exit code is 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="kills of each method's run; the others follow from it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the table is kept, as Markdown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    preload()
    started, memory = time.monotonic(), Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="litft-faults-", dir=memory if memory.is_dir() else None))
    os.environ["LITFT_FAULTS_DIR"] = str(folder / "said")
    (folder / "said").mkdir()
    (folder / "world").mkdir()
    chance, rows = random.Random(arguments.seed), []
    try:
        world = build_world(folder / "world")
        for kind in (killed, out_of_space, corrupted, signalled, bereft, real):
            for row in kind(world, arguments.times, chance):
                rows.append(row)
                print(f"{row.fault}: {row.times}, lost {row.lost}", *row.faults[:5], sep="\n  ", file=sys.stderr)
    finally:
        shutil.rmtree(folder)
    print(table(rows))
    if arguments.out:
        arguments.out.write_text(page(rows, arguments, time.monotonic() - started), encoding="utf-8")
    return int(any(row.lost for row in rows))


if __name__ == "__main__":
    sys.exit(main())
