"""Step checkpoints that are written beside the steps: the same files, nothing lost, and all there when a run ends."""

from __future__ import annotations

import csv
import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_run import CPU, make_config, make_world, methods, open_run, with_step_limit
from torch import Tensor

from litft.checkpoint.tensors import save_safetensors
from litft.config.io import load_yaml
from litft.train import saving
from litft.train.loop import fit
from litft.train.planning import plan_run
from litft.train.room import has_room_for_copy
from litft.train.state import Run
from litft.train.step_folders import STEP_FILES, check_step, step_folders

MIB = 2**20


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


class Beside:
    """Holds up what is written until a step has been taken; `waited` says for each file whether one was."""

    def __init__(self, world: Path, patience: float) -> None:
        self.folder, self.patience = world / "out" / ".step-00000002.partial", patience
        self.step_came, self.waited, self.calls = threading.Event(), list[bool](), 0

    def save(self, *args: Any) -> None:
        """Stands for `save_safetensors`."""
        self.waited.append(self.step_came.wait(self.patience))
        save_safetensors(*args)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Stands for the recipe's."""
        self.calls += self.folder.exists()
        if self.calls == 2:  # of the steps after the checkpoint's, each of one micro-batch: the weights have moved
            self.step_came.set()
        return token_loss(logits, targets)


def open_saving(world: Path, name: str = "out", method: str = "lora", **changes: Any) -> Run:
    settings = {"train__save_interval": 2, "train__micro_batch_size": 8, **changes}
    return open_run(make_config(world, out_dir=world / name, **settings), methods()[method])


def without_times(folder: Path) -> dict[str, Any]:
    state = load_yaml(folder / "state.yaml")
    return {
        **state,
        "progress": {k: v for k, v in state["progress"].items() if k not in ("budget", "spent", "seconds")},
    }


@pytest.mark.parametrize("method", ["lora", "full"])
def test_steps_go_on_beside_a_checkpoint_and_it_is_that_of_its_step(
    world: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(with_step_limit(open_saving(world, "at-once", method, train__save_async=False), 6), token_loss)
    beside = Beside(world, patience=10.0)
    monkeypatch.setattr(saving, "save_safetensors", beside.save)
    fit(with_step_limit(open_saving(world, method=method), 6), beside.loss)
    assert beside.waited and all(beside.waited)
    assert [folder.name for folder in step_folders(world / "out")] == ["step-00000002", "step-00000004"]
    for folder in step_folders(world / "out"):
        other = world / "at-once" / folder.name
        assert without_times(folder) == without_times(other)
        for name in STEP_FILES:
            file = f"{name}.safetensors"
            assert (folder / file).read_bytes() == (other / file).read_bytes(), file


def test_where_a_copy_would_be_large_the_steps_wait(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_room_for_copy(25 * MIB, MIB, CPU) and has_room_for_copy(250 * MIB, 1000 * MIB, CPU)
    assert not has_room_for_copy(251 * MIB, 1000 * MIB, CPU)
    monkeypatch.setattr("litft.train.room.SMALL_COPY", 0)
    beside = Beside(world, patience=0.01)
    monkeypatch.setattr(saving, "save_safetensors", beside.save)
    fit(with_step_limit(open_saving(world, method="full"), 3), beside.loss)
    assert beside.waited and not any(beside.waited)


def test_the_plan_counts_the_copy_or_says_that_the_steps_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    run = open_saving(make_world(tmp_path, n_layer=1), method="full")
    inputs = dataclasses.replace(run.inputs, report=said.append)
    trained = sum(parameter.nbytes for parameter in run.gpt.parameters())
    copied = plan_run(inputs, run.plan, token_loss)["memory"]["checkpoint copy"]
    assert copied == pytest.approx(3 * trained, rel=0.01)  # the weights and AdamW's two moments
    assert "checkpoint copy" in said[-1] and "the steps wait" not in said[-1]
    monkeypatch.setattr("litft.train.room.SMALL_COPY", 0)
    assert "checkpoint copy" not in plan_run(inputs, run.plan, token_loss)["memory"]
    assert "the steps wait for each checkpoint" in said[-1]


def failing_after(event: threading.Event) -> Callable[[Path], str]:
    """Gives a hash of files that meets a full disk."""

    def full_disk(path: Path) -> str:
        event.set()
        raise OSError(28, "No space left on device", str(path))

    return full_disk


def test_a_full_disk_behind_the_loops_back_is_raised_in_it(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, failed = open_saving(world), threading.Event()
    folder = world / "out" / ".step-00000004.partial"

    def waiting_loss(logits: Tensor, targets: Tensor) -> Tensor:
        if folder.exists() and not failed.is_set():
            assert (world / "out" / "step-00000002").exists()
            monkeypatch.setattr(saving, "sha256_file", failing_after(failed))
            holding.set()
            assert failed.wait(10)
            time.sleep(0.05)
        return token_loss(logits, targets)

    holding = threading.Event()

    def held(*args: Any) -> None:
        if folder.exists():
            assert holding.wait(10)
        save_safetensors(*args)

    monkeypatch.setattr(saving, "save_safetensors", held)
    with pytest.raises(OSError, match="No space left"):
        fit(run, waiting_loss)
    assert [folder.name for folder in step_folders(world / "out")] == ["step-00000002"]
    check_step(world / "out" / "step-00000002")
    with (world / "out" / "logs" / "metrics.csv").open() as file:
        assert max(int(row["step"]) for row in csv.DictReader(file)) == 5 < run.plan.steps


def test_a_full_disk_at_the_last_checkpoint_is_raised_at_the_end(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, metrics = (
        open_run(make_config(world, train__save_interval=11), methods()["lora"]),
        world / "out/logs/metrics.csv",
    )

    def full_in_the_end(path: Path) -> str:
        for _ in range(1000):
            if metrics.read_text().count("\n12,") == 2:  # the last step and its validation: no other step will ask
                break
            time.sleep(0.01)
        time.sleep(0.1)
        return failing_after(threading.Event())(path)

    monkeypatch.setattr(saving, "sha256_file", full_in_the_end)
    with pytest.raises(OSError, match="No space left"):
        fit(run, token_loss)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
@pytest.mark.parametrize("disk_is_full", [False, True])
def test_whatever_ends_a_run_waits_for_the_checkpoint(
    world: Path, error: type[BaseException], disk_is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said, failed = open_saving(world), list[str](), threading.Event()
    run = dataclasses.replace(run, inputs=dataclasses.replace(run.inputs, report=said.append))
    if disk_is_full:
        monkeypatch.setattr(saving, "sha256_file", failing_after(failed))

    def failing_loss(logits: Tensor, targets: Tensor) -> Tensor:
        if (world / "out" / ".step-00000002.partial").exists():
            failed.set()
            raise error
        return token_loss(logits, targets)

    def held(*args: Any) -> None:
        failed.wait(10)
        time.sleep(0.02)
        save_safetensors(*args)

    monkeypatch.setattr(saving, "save_safetensors", held)
    with pytest.raises(error):
        fit(run, failing_loss)
    if disk_is_full:
        assert any("could not be written" in line and "No space left" in line for line in said)
    else:
        assert check_step(world / "out" / "step-00000002").step == 2


def test_a_resumed_run_may_save_otherwise(world: Path) -> None:
    straight = open_saving(world, "straight")
    fit(straight, token_loss)
    fit(with_step_limit(open_saving(world), 3), token_loss)
    resumed = open_saving(world, resume="auto", train__save_async=False)
    fit(resumed, token_loss)
    for name, parameter in straight.gpt.named_parameters():
        assert torch.equal(parameter, resumed.gpt.get_parameter(name)), name
