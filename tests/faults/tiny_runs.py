"""A run of 26 steps with everything that a run writes, and the comparison of one with another, bit by bit."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from forked import Ended, Strike, litft
from tiny_run import make_world

from litft.checkpoint.disk import sha256_file
from litft.checkpoint.sealed import load_sealed, write_sealed
from litft.data.store import PreparedData, save_prepared
from litft.errors import LitftError
from litft.train.step_folders import check_step, step_folders

METHODS = ("lora", "full", "adapter")
STEPS, BATCH = 26, 2
SETTINGS: dict[str, Any] = {
    "precision": "32-true",
    "train.shuffle": "false",
    "train.global_batch_size": BATCH,
    "train.micro_batch_size": 1,
    "train.epochs": 1,
    "train.save_interval": 5,
    "eval.interval": 4,
    "eval.prompts": 1,
    "eval.max_new_tokens": 3,
    "optim.learning_rate": 3e-2,
    "optim.schedule": "constant",
}
OF_METHODS = {"adapter": {"adapter.prompt_length": 3, "adapter.start_layer": 1}}
TIMED = re.compile("second|memory")  # what no two runs have alike
SPENT = ("seconds", "spent", "budget")  # the same in a step's counts


@dataclass(frozen=True)
class World:
    """A base, prepared rows, and for each method the run that nothing struck.

    Attributes:
        folder: holds `model`, `data`, and `straight-METHOD`.
        seconds: that a run takes in a forked process.
    """

    folder: Path
    seconds: dict[str, float]

    def straight(self, method: str) -> Path:
        """Gives the folder of the run that nothing struck."""
        return self.folder / f"straight-{method}"


def make_faults_world(folder: Path) -> Path:
    """Makes base and rows: one row over and over, and at the end another one, whose loss jumps."""
    make_world(folder)
    data = PreparedData.load(folder / "data" / "train.pt")
    rows = [data.row(0 if number < (STEPS - 2) * BATCH else 1 + number % 5) for number in range(STEPS * BATCH)]
    ids, masks = [torch.cat([row[part] for row in rows]).clone() for part in (0, 1)]
    lengths = torch.tensor([0, *(len(row[0]) for row in rows)])
    save_prepared(
        folder / "data" / "train.pt",
        input_ids=ids,
        target_mask=masks,
        offsets=lengths.cumsum(0),
        source=torch.zeros(len(rows)),
        meta=data.meta,
    )
    seal_data(folder / "data")
    return folder


def seal_data(data_dir: Path) -> None:
    """Writes the manifest as the end of a preparation does."""
    files = {name: {"sha256": sha256_file(data_dir / name)} for name in ("train.pt", "test.pt")}
    write_sealed(data_dir / "manifest.yaml", {"sources": {}, "files": files})


def words(world: Path, method: str, out_dir: Path, *more: str, **changes: Any) -> list[str]:
    """Gives the command of a run that may be started as often as it takes."""
    places = {"checkpoint_dir": world / "model", "data_dir": world / "data", "out_dir": out_dir}
    settings = {
        **places,
        **SETTINGS,
        **OF_METHODS.get(method, {}),
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return ["finetune", method, *(f"--{name}={value}" for name, value in settings.items()), "--resume=auto", *more]


def train(
    world: Path, method: str, out_dir: Path, strike: Callable[[Strike], None] | None = None, **changes: Any
) -> Ended:
    """Runs it in a forked process, to its end or until it is struck."""
    return litft(words(world, method, out_dir, **changes), strike).wait()


def differences(wanted: Path, found: Path, had_to_save: bool = False) -> list[str]:
    """Says in what a finished run differs from the one that nothing struck; nothing but times may.

    Args:
        wanted, found: their folders.
        had_to_save: whether it has a checkpoint of the step at which it was asked to stop, in the place of another one.
    """
    names = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (wanted, found)]
    if had_to_save:
        names = [{name for name in each if not name.startswith("step-")} for each in names]
    faults = [f"{name} is only in one of them" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if (wanted / name).is_file() and _content(wanted / name) != _content(found / name):
            faults.append(f"{name} differs")
    return faults


def _content(path: Path) -> object:
    """Gives what a file says, without times, places and what tells of them."""
    if path.suffix in (".safetensors", ".jsonl") or path.name == "row_losses.csv":
        return path.read_bytes()
    if path.name == "metrics.csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [{key: row[key] for key in row if not TIMED.search(key)} for row in csv.DictReader(file)]
    if path.name == "summary.json":
        return {key: value for key, value in json.loads(path.read_text()).items() if not _is_timed(key)}
    if path.name == "state.yaml":
        told = load_sealed(path)
        return told["read"], told["sha256"], {key: each for key, each in told["progress"].items() if key not in SPENT}
    return None


def _is_timed(name: str) -> bool:
    """Says whether a number is one of time or memory."""
    return bool(TIMED.search(name)) or name in ("tokens_per_second", "target_tokens_per_second")


def hurt(out_dir: Path) -> list[str]:
    """Says what of a run that was struck looks like a checkpoint and is none."""
    faults = []
    for folder in step_folders(out_dir):
        try:
            check_step(folder)
        except LitftError as error:
            faults.append(str(error))
    if (out_dir / "final").exists() and not (out_dir / "final" / "provenance.json").exists():
        faults.append(f"{out_dir / 'final'} is half written")
    return faults


def fresh(path: Path) -> Path:
    """Gives a path where nothing is."""
    shutil.rmtree(path, ignore_errors=True)
    return path
