"""A sweep: the runs of several values, one after the other or one on each GPU, and a table that compares them.

Each run is a process of its own, started as a person would start it: its memory is its own, and one that fails or is
killed stops no other. The same command again skips those that ended and goes on with those that broke off.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from litft.checkpoint.disk import plain_size, read_json
from litft.config.parse import config_to_dict
from litft.config.run import RunConfig
from litft.config.sweep import Runs
from litft.errors import ConfigError, TrainingError
from litft.report.read import find_runs
from litft.report.write import REPORT_FILE, try_report
from litft.train.comparison import DONE, FAILED, RUNNING, Row, aligned, comparison, write_comparison
from litft.train.setup import RUN_FILE, check_same_run
from litft.train.state import Report, write_yaml

SENTENCE = "litft: "  # what the command line puts before the sentence of a mistake


@dataclass(frozen=True)
class Placed:
    """One run of a sweep in its place: its line in the table, and its config with its own folder."""

    row: Row
    config: RunConfig

    @property
    def folder(self) -> Path:
        """Where it is written."""
        assert self.config.out_dir is not None
        return self.config.out_dir

    @property
    def has_ended(self) -> bool:
        """Whether a run before this one left a result here that is to stay."""
        return (self.folder / "summary.json").exists() and not self.config.overwrite


def run_sweep(runs: Runs, target: Callable[..., Any], command: Sequence[str], default_dir: str, report: Report) -> None:
    """Runs a sweep, or with `dry_run` plans it.

    Args:
        runs: of the command line.
        target: the recipe's `main`, for plans; it takes a config and `report`.
        command: the words that start a run: Python, the recipe, without flags.
        default_dir: the sweep's folder where `out_dir` names none.
        report: told what each run says, and the table after each.

    Raises:
        ConfigError: a value that cannot be; no run was started then.
        TrainingError: some runs failed; the others have ended.
        KeyboardInterrupt: after Ctrl-C, once the runs have written their checkpoints.
    """
    placed, out_dir = place(runs, Path(default_dir))
    if placed[0].config.dry_run:
        plan_sweep(placed, target, report)
        return
    slots = _slots(placed[0].config)
    _check_all(runs, command)
    out_dir.mkdir(parents=True, exist_ok=True)
    rows = [each.row for each in placed]
    _run_all(placed, command, slots, out_dir, report)
    if any(row.state == DONE for row in rows):
        try_report(find_runs([out_dir]), out_dir / REPORT_FILE, report)
    if failed := [row.name for row in rows if row.state == FAILED]:
        raise TrainingError(
            f"{len(failed)} of {len(rows)} runs failed: {', '.join(failed)}; {out_dir / 'sweep.md'} says why, and the "
            "same command tries them again."
        )


def place(runs: Runs, default_dir: Path) -> tuple[list[Placed], Path]:
    """Gives each run its folder, and the folder of them all.

    Raises:
        ConfigError: the sweep is to go on from one checkpoint, or to lie in a run's folder, or is of several machines.
    """
    first: RunConfig = runs.runs[0].config
    out_dir = first.out_dir or default_dir
    if isinstance(first.resume, str) and first.resume != "auto":
        raise ConfigError(f"--resume {first.resume} is of one run; a sweep goes on with all of its runs: leave it out.")
    if (out_dir / RUN_FILE).exists():
        raise ConfigError(f"out_dir {out_dir} holds a run; name another --out_dir for the sweep.")
    if first.num_nodes > 1 or os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("A sweep starts its own processes, on one machine; leave out torchrun and num_nodes.")
    placed = []
    for run in runs.runs:
        folder = out_dir / run.name
        resume = "auto" if (folder / RUN_FILE).exists() and not first.overwrite else False
        config = dataclasses.replace(run.config, out_dir=folder, resume=resume)
        placed.append(Placed(Row(run.name, run.values), config))
    return placed, out_dir


def plan_sweep(placed: Sequence[Placed], target: Callable[..., Any], report: Report) -> None:
    """Plans each run, and checks that those that have ended are the same.

    Raises:
        LitftError: of the first run that cannot be.
    """
    lines = [["run", "steps", "trained", "memory", "fits"]]
    for each in placed:
        if each.has_ended:
            check_same_run(each.config, each.folder / RUN_FILE)
            report(f"{each.row.name} has ended; it will not run again.")
            continue
        report(f"{each.row.name}:")
        numbers = target(each.config, report)
        size, trained = plain_size(numbers["memory_bytes"]), f"{numbers['trainable_parameters']:,}"
        lines.append([each.row.name, f"{numbers['steps']:,}", trained, size, "yes" if numbers["fits"] else "no"])
    report(aligned(lines))


def _check_all(runs: Runs, command: Sequence[str]) -> None:
    """Plans all runs in a process of its own, which leaves no memory of a GPU taken.

    Raises:
        ConfigError: what the first run says that cannot be.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        write_yaml(path, {**runs.yaml, "dry_run": True, "sweep_jobs": 1})
        done = subprocess.run([*command, f"--config={path}"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(_sentence(done.stderr.splitlines(), done.returncode))


def _slots(config: RunConfig) -> list[dict[str, str]]:
    """Gives the environment of each run that goes on at the same time: GPUs of its own, or its share of the cores.

    Raises:
        ConfigError: there are too few GPUs.
    """
    jobs, devices = config.sweep_jobs, config.devices
    if jobs == 1:
        return [{}]
    if not torch.cuda.is_available():
        return [{"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // jobs, 1)), **os.environ}] * jobs
    there = torch.cuda.device_count()
    if jobs * devices > there:
        raise ConfigError(f"sweep_jobs x devices is {jobs} x {devices}, but this machine shows {there} GPUs; lower it.")
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(number) for number in range(there)]
    shares = [gpus[number * devices : (number + 1) * devices] for number in range(jobs)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares]


def _run_all(
    placed: Sequence[Placed], command: Sequence[str], slots: Sequence[dict[str, str]], out_dir: Path, report: Report
) -> None:
    """Runs what has not ended; the table is told and written after each.

    Ctrl-C reaches the runs too, as they are of the same group: this waits until they have written their checkpoints.
    """
    rows = [each.row for each in placed]
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    for slot in slots:
        free.put(slot)
    stopping = threading.Event()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(slots)) as pool:
        try:
            waiting: dict[Future[None], Placed] = {}
            for each in placed:
                if each.has_ended:
                    _note_end(each)
                    report(f"{each.row.name} has ended before.")
                    continue
                path = Path(folder) / f"{each.row.name}.yaml"
                write_yaml(path, config_to_dict(dataclasses.replace(each.config, sweep_jobs=1)))
                words = [*command, f"--config={path}"]
                waiting[pool.submit(_run_one, each, words, free, stopping, report)] = each
            for future in as_completed(waiting):
                future.result()
                write_comparison(rows, out_dir)
                report(comparison(rows, out_dir))
            if not waiting:
                write_comparison(rows, out_dir)
                report(comparison(rows, out_dir))
        finally:
            stopping.set()  # what has not begun does not begin


def _run_one(
    each: Placed, words: Sequence[str], free: SimpleQueue[dict[str, str]], stopping: threading.Event, report: Report
) -> None:
    """Runs one of them to its end, and notes how it ended."""
    if stopping.is_set():
        return
    slot, row = free.get(), each.row
    row.state = RUNNING
    said: list[str] = []
    environment = {**os.environ, **slot}
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        for line in _lines(process):
            said.append(line)
            report(f"[{row.name}] {line.removeprefix(SENTENCE)}")
    free.put(slot)
    if process.returncode:
        row.state, row.error = FAILED, _sentence(said, process.returncode)
    elif not (each.folder / "summary.json").exists():  # a batch system stopped it, and it is saved
        row.state, row.error = FAILED, said[-1] if said else "it was stopped."
    else:
        _note_end(each)


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """Gives what a process says, line by line, without empty ones."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.strip():
            yield line.rstrip()


def _note_end(each: Placed) -> None:
    """Takes the numbers of a run that ended."""
    each.row.state, each.row.summary = DONE, read_json(each.folder / "summary.json")


def _sentence(said: Sequence[str], code: int) -> str:
    """Gives why a run failed: its own sentence, the last line of what it said, or the signal that killed it."""
    if code < 0:
        return f"{signal.Signals(-code).name} ended it; the system does that too where there is too little memory."
    sentences = [line.removeprefix(SENTENCE) for line in said if line.startswith(SENTENCE)]
    return [f"it ended with the code {code}.", *said, *sentences][-1]
