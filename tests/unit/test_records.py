"""What a run writes down: the losses of its rows, a loss that jumps, a window that is not finite, a line of metrics."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_run import make_config, make_world, methods, open_run, with_step_limit
from torch import Tensor

from litft.checkpoint.tensors import save_safetensors
from litft.errors import TrainingError
from litft.train import saving
from litft.train.finish import finish
from litft.train.loop import fit, window_rows
from litft.train.spikes import KNOWN, REMEMBERED, remember, spike_limit
from litft.train.state import Run


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def open_telling(world: Path, said: list[str], **changes: Any) -> Run:
    """A run of one micro-batch a step, so that each call of the loss in training is a step."""
    run = open_run(make_config(world, **{"train__micro_batch_size": 8, **changes}), methods()["lora"])
    return dataclasses.replace(run, inputs=dataclasses.replace(run.inputs, report=said.append))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_first_and_the_last_loss_of_each_row_are_its_own(world: Path) -> None:
    run = open_telling(world, [], optim__learning_rate=1e-30, optim__weight_decay=0.0, train__epochs=2)
    for module in run.gpt.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    finish(run, fit(run, token_loss))
    found = rows_of(world / "out" / "row_losses.csv")
    assert [row["row"] for row in found] == [str(number) for number in range(24)]
    data, last = run.inputs.train, {row: step + 1 for step in (3, 4, 5) for row in window_rows(run, step)}
    run.gpt.eval()
    for number, row in enumerate(found):
        ids, mask = data.row(number)
        with torch.no_grad():
            losses = token_loss(run.gpt.head(run.gpt(ids[None].long()))[0, :-1], ids[1:].long())[mask[1:]]
        assert (row["source"], int(row["target_tokens"])) == ("random", len(losses))
        assert int(row["last_step"]) == last[number]
        for name in ("first_loss", "last_loss"):  # a rate of 1e-30 moves nothing
            assert float(row[name]) == pytest.approx(losses.mean().item(), rel=1e-4)


def test_a_resumed_run_writes_the_same_losses_of_rows(world: Path) -> None:
    def opened(name: str, **changes: Any) -> Run:
        return open_run(make_config(world, out_dir=world / name, train__save_interval=5, **changes), methods()["lora"])

    straight = opened("straight")
    finish(straight, fit(straight, token_loss))
    fit(with_step_limit(opened("cut"), 7), token_loss)
    early = rows_of(world / "cut" / "row_losses.csv")  # written with the checkpoint
    assert max(int(row["last_step"]) for row in early) == 5
    resumed = opened("cut", resume="auto")
    finish(resumed, fit(resumed, token_loss))
    files = [world / name / "row_losses.csv" for name in ("straight", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert all(row["first_loss"] != row["last_loss"] for row in rows_of(files[1]))


def test_a_jump_is_told_by_how_much_losses_differ_as_a_rule() -> None:
    before: list[float] = []
    for step in range(KNOWN - 1):
        remember(before, 2.0 + 0.1 * (step % 3))
    assert spike_limit(before) is None
    for step in range(100):
        remember(before, 2.0 + 0.1 * (step % 3))
    assert len(before) == REMEMBERED
    limit = spike_limit(before)
    assert limit == pytest.approx(2.1 + 6 * 1.4826 * 0.1)
    remember(before, 50.0)
    assert spike_limit(before) == pytest.approx(limit)  # one odd step changes nothing
    assert spike_limit([2.0] * KNOWN) == pytest.approx(2.0 + 6 * 0.04)  # never so near that rounding jumps


def jumping(run: Run, steps: set[int]) -> Any:
    """Gives a loss that is tenfold for the first targets of these steps, which are the longest row's."""
    calls = []

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        losses = token_loss(logits, targets)
        if not run.gpt.training:
            return losses
        calls.append(1)
        step = run_from + len(calls)
        return torch.cat((losses[:10] * 10, losses[10:])) if step in steps else losses

    resumed = run.inputs.resume_from
    run_from = int(resumed.name.removeprefix("step-")) if resumed else 0
    return loss


def test_a_loss_that_jumps_is_logged_with_the_rows_that_lift_it(world: Path) -> None:
    said: list[str] = []
    settings = {"train__epochs": 10, "train__save_interval": 25}
    run = open_telling(world, said, **settings)
    fit(with_step_limit(run, 28), jumping(run, {10, 24, 26, 27}))  # at the 10th too few are known
    path = world / "out" / "spikes.jsonl"
    spikes = [json.loads(line) for line in path.read_text().splitlines()]
    assert [spike["step"] for spike in spikes] == [24, 26, 27]
    longest = max(window_rows(run, 23), key=lambda row: int(run.inputs.train.lengths[row]))
    worst = spikes[0]["rows"][0]
    assert (worst["row"], worst["source"]) == (longest, "random")
    assert worst["loss"] > 3 * spikes[0]["median"] and spikes[0]["loss"] > spikes[0]["limit"] > spikes[0]["median"]
    lines = [line for line in said if "jumped" in line]
    assert [line.split(":")[0] for line in lines] == ["step 24", "step 26"]  # of 26 and 27 the first
    assert f"by the rows {longest} (" in lines[0] and str(path) in lines[0]
    resumed = open_telling(world, said, resume="auto", **settings)
    fit(resumed, jumping(resumed, {27}))
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [24, 27]


@pytest.mark.parametrize("saved", [False, True])
def test_a_window_that_is_not_finite_is_kept_with_its_ids_and_losses(
    world: Path, saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_telling(world, [], train__save_interval=3 if saved else 1000)
    calls: list[int] = []

    def slow(*args: Any) -> None:
        time.sleep(0.2)  # the checkpoint is still being written when the loss is met
        save_safetensors(*args)

    monkeypatch.setattr(saving, "save_safetensors", slow)

    def broken(logits: Tensor, targets: Tensor) -> Tensor:
        calls.extend([1] if run.gpt.training else [])
        return token_loss(logits, targets).index_fill(0, torch.tensor([0]), math.nan if len(calls) == 4 else 1.0)

    with pytest.raises(TrainingError) as raised:
        fit(run, broken)
    path = world / "out" / "nonfinite" / "step-00000004.json"
    kept, data = json.loads(path.read_text(), parse_constant=pytest.fail), run.inputs.train
    assert [each["row"] for each in kept["rows"]] != sorted(window_rows(run, 3))
    assert sorted(each["row"] for each in kept["rows"]) == sorted(window_rows(run, 3))
    assert (kept["step"], kept["loss"], kept["data"]) == (4, "nan", str(data.path))
    assert [each["loss"] == "nan" for each in kept["rows"]] == [True] + 7 * [False]
    for each in kept["rows"]:
        ids, mask = data.row(each["row"])
        assert each["input_ids"] == ids.tolist()
        assert each["labels"] == [int(number) if known else -100 for number, known in zip(ids, mask, strict=True)]
        assert (each["source"], each["process"], each["micro_batch"]) == ("random", 0, 0)
    sentence = str(raised.value)
    assert f"rows [{kept['rows'][0]['row']}] of train.pt" in sentence and str(path) in sentence
    if saved:
        assert f"{world / 'out' / 'step-00000003'} stays, and --resume auto goes on from it" in sentence
    else:
        assert sentence.endswith("there is no checkpoint yet.")


def test_a_full_disk_does_not_hide_what_is_not_finite(world: Path) -> None:
    run = open_telling(world, [])
    (world / "out" / "nonfinite").write_text("a file where the folder must be")
    with pytest.raises(
        TrainingError, match=r"The loss is not finite at rows .* could not be written to .* \(File exists"
    ):
        fit(run, lambda logits, targets: token_loss(logits, targets) * (math.nan if run.gpt.training else 1.0))


def test_a_line_of_metrics_says_where_the_time_went(world: Path) -> None:
    run = open_telling(world, [], train__save_interval=2, eval__interval=6)
    summary = finish(run, fit(run, token_loss))
    lines = rows_of(world / "out" / "logs" / "metrics.csv")
    steps = [line for line in lines if line["loss"]]
    assert [float(line["epoch"]) for line in steps] == pytest.approx([step / 3 for step in range(1, 13)])
    parts = ("data_seconds", "compute_seconds", "optimizer_seconds")
    for before, after in itertools.pairwise(steps):
        grown = [float(after[name]) - float(before[name]) for name in parts]
        assert min(grown) > 0
        assert sum(grown) <= float(after["seconds"]) - float(before["seconds"]) + 1e-5
        assert float(after["validation_seconds"]) >= float(before["validation_seconds"]) > 0
    assert float(steps[-1]["checkpoint_seconds"]) > 0
    assert all(1e6 < int(line["peak_memory_bytes"]) < 1e12 for line in lines)
    assert summary["spent_seconds"].keys() == {"validation", "data", "compute", "optimizer", "checkpoint"}


def test_held_out_losses_of_sources_stand_in_their_line(world: Path) -> None:
    run = open_telling(world, [], train__epochs=1)
    data = run.inputs.test
    sources = torch.arange(len(data), dtype=torch.int16) % 2
    mixed = dataclasses.replace(data, source=sources, meta={**data.meta, "source_names": ["a", "b"]})
    run = dataclasses.replace(run, inputs=dataclasses.replace(run.inputs, test=mixed))
    progress = fit(run, token_loss)
    last = rows_of(world / "out" / "logs" / "metrics.csv")[-1]
    assert json.loads(last["val_loss_by_source"]) == progress.val_loss_by_source
    assert progress.val_loss_by_source.keys() == {"a", "b"}
