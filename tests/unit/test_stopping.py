"""Runs that end before their last step, what `final/` holds then, and validation source by source."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tiny_run import make_config, make_world, methods, open_run, with_step_limit
from torch import Tensor

from litft.config.train import EvalConfig, TrainConfig
from litft.data.store import PreparedData, save_prepared
from litft.errors import ConfigError
from litft.train.describe import describe
from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.setup import open_inputs
from litft.train.state import Progress

# A rate at which 24 random rows are learned by heart, and those held out get worse and worse.
WORSE = {"eval__interval": 1, "train__epochs": 20, "optim__learning_rate": 3e-2, "optim__lr_warmup_steps": 0}


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def run_through(world: Path, method: str = "full", **settings: Any) -> dict[str, Any]:
    """Runs to the end; gives the summary."""
    run = open_run(make_config(world, **{**WORSE, **settings}), methods()[method])
    return finish(run, fit(run, token_loss))


def held_out(out_dir: Path) -> dict[int, float]:
    """The held-out loss after each step, from metrics.csv."""
    with (out_dir / "logs" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["val_loss"]) for row in csv.DictReader(file) if row["val_loss"]}


# --- patience ---


def test_validations_in_a_row_that_are_no_better_are_counted() -> None:
    progress, counts = Progress(), []
    for loss in (3.0, 2.0, 1.95, 1.92, 1.8, 1.85, 1.9, 1.75):
        progress.note_validation(loss, 0.0, {}, min_delta=0.1)
        counts.append(progress.stalled)
    assert counts == [0, 0, 1, 2, 0, 1, 2, 3]
    assert progress.best_val_loss == 1.75
    assert progress.stalled_by(4) is progress.stalled_by(None) is None and progress.stalled_by(3) == "patience"


def test_a_run_that_gets_no_better_ends_in_order_and_final_holds_the_best_weights(world: Path) -> None:
    summary = run_through(world, eval__patience=3)
    losses = held_out(world / "out")
    best = min(losses, key=losses.__getitem__)
    assert summary["stopped_by"] == "patience" and summary["steps"] == best + 3 == max(losses) < 60
    assert summary["final_step"] == summary["best_step"] == best > 0
    assert summary["val_loss"] == losses[best] < losses[max(losses)]
    final = load_file(world / "out" / "final" / "lit_model.safetensors")
    kept = load_file(world / "out" / f"step-{best:08d}" / "trainable.safetensors")
    assert final.keys() == kept.keys() and all(torch.equal(final[name], kept[name]) for name in final)
    said = json.loads((world / "out" / "summary.json").read_text())
    assert said == summary


def test_min_delta_ends_a_run_sooner(world: Path) -> None:
    assert run_through(world, eval__patience=2, eval__min_delta=5.0)["steps"] == 2


@pytest.mark.parametrize(
    ("settings", "keeps"), [({"patience": 2}, True), ({"patience": 2, "use_best": False}, False), ({}, False)]
)
def test_the_best_weights_are_kept_by_default_where_a_run_may_end_early(settings: dict[str, Any], keeps: bool) -> None:
    assert EvalConfig(**settings).keeps_best is keeps


@pytest.mark.parametrize("method", ["full", "lora"])
def test_use_best_changes_final_and_nothing_else(world: Path, method: str) -> None:
    settings = {"train__epochs": 4, "train__keep": 1}
    plain = run_through(world, method, **settings, out_dir=world / "plain")
    chosen = run_through(world, method, **settings, out_dir=world / "chosen", eval__use_best=True)
    losses = held_out(world / "plain")
    assert losses == held_out(world / "chosen")
    assert plain["final_step"] == 12 and chosen["final_step"] == plain["best_step"] == min(
        losses, key=losses.__getitem__
    )
    assert plain["val_loss"] == losses[12] and chosen["val_loss"] == losses[chosen["final_step"]]


def test_a_best_checkpoint_that_is_damaged_leaves_the_last_weights(world: Path) -> None:
    said: list[str] = []
    run = open_run(make_config(world, **WORSE, eval__patience=2), methods()["lora"])
    progress = fit(run, token_loss)
    object.__setattr__(run.inputs, "report", said.append)
    (world / "out" / f"step-{progress.best_step:08d}" / "trainable.safetensors").write_bytes(b"broken")
    assert finish(run, progress)["final_step"] == progress.step
    assert any(line.startswith("Warning: ") and "is damaged" in line for line in said)


def test_a_resumed_run_counts_on_exactly(world: Path) -> None:
    settings = {"eval__patience": 4, "train__save_interval": 1}
    straight = run_through(world, "lora", **settings, out_dir=world / "straight")
    assert straight["stopped_by"] == "patience"
    stop = straight["best_step"] + 2  # in the middle of the count
    broken = make_config(world, **WORSE, **settings)
    fit(with_step_limit(open_run(broken, methods()["lora"]), stop), token_loss)
    resumed = run_through(world, "lora", **settings, resume="auto")
    for name in ("steps", "stopped_by", "val_loss", "best_step", "final_step", "final_loss"):
        assert resumed[name] == straight[name], name
    with pytest.raises(ConfigError, match="has ended"):
        open_run(make_config(world, **WORSE, **settings, resume="auto"), methods()["lora"])


# --- time ---


@pytest.mark.parametrize(
    ("settings", "processes", "limit"),
    [
        ({}, 1, None),
        ({"max_time": "2h"}, 8, ("max_time", 7200.0)),
        ({"max_gpu_hours": 4}, 8, ("max_gpu_hours", 1800.0)),
        ({"max_gpu_hours": 4, "max_time": "20m"}, 8, ("max_time", 1200.0)),
        ({"max_gpu_hours": 4, "max_time": "1h"}, 8, ("max_gpu_hours", 1800.0)),
    ],
)
def test_gpu_hours_are_shared_by_the_processes(
    settings: dict[str, Any], processes: int, limit: tuple[str, float] | None
) -> None:
    assert TrainConfig(**settings).time_limit(processes) == limit


def test_gpu_hours_end_a_run(world: Path) -> None:
    settings = {"train__max_gpu_hours": 1e-9, "eval__interval": 1000}
    inputs = open_inputs(make_config(world, **settings, devices=2), methods()["lora"], lambda message: None)
    run = open_run(make_config(world, **settings), methods()["lora"])
    assert "or by max_gpu_hours, 0:00:00 from now" in describe(inputs, run.plan)
    assert finish(run, fit(run, token_loss))["stopped_by"] == "max_gpu_hours"


def test_no_gpu_hours_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"train.max_gpu_hours is 0; it must be above 0"):
        TrainConfig(max_gpu_hours=0)


# --- sources ---


def test_loss_and_accuracy_of_each_source_stand_in_the_metrics_in_their_order(world: Path) -> None:
    path = world / "data" / "test.pt"
    data = PreparedData.load(path)
    names = ["zebra", "ant", "mole"]
    save_prepared(
        path,
        input_ids=data.input_ids.clone(),  # the file under it is written anew
        target_mask=data.target_mask.clone(),
        offsets=data.offsets.clone(),
        source=torch.tensor([2, 0, 1, 0, 2, 1]),
        meta={**data.meta, "source_names": names},
    )
    said: list[str] = []
    run = open_run(make_config(world, train__max_steps=1), methods()["lora"])
    object.__setattr__(run.inputs, "report", said.append)
    progress = fit(run, token_loss)
    with (world / "out" / "logs" / "metrics.csv").open() as file:
        row = [row for row in csv.DictReader(file) if row["val_loss"]][-1]
    losses, accuracies = (json.loads(row[f"val_{what}_by_source"]) for what in ("loss", "accuracy"))
    assert list(losses) == list(accuracies) == names
    assert losses == progress.val_loss_by_source
    counts = [int(run.inputs.test.target_counts[run.inputs.test.source == number].sum()) for number in range(3)]
    for parts, whole in ((losses, row["val_loss"]), (accuracies, row["val_accuracy"])):
        mean = sum(part * count for part, count in zip(parts.values(), counts, strict=True)) / sum(counts)
        assert mean == pytest.approx(float(whole), rel=1e-5)
    assert any(f"(zebra {losses['zebra']:.4f} {accuracies['zebra']:.1%}, ant " in line for line in said)
