"""The engine's invariances: how a window is split, what resumes, what moves, what stops."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_run import make_config, make_world, methods, open_run, with_step_limit, write_manifest
from torch import Tensor

from litft.checkpoint.files import load_model_config, save_model_config
from litft.config.model import RopeScaling
from litft.config.plan import build_plan
from litft.data.batches import MULTIPLE, Batching, iter_micro_batches
from litft.data.store import PreparedData, save_prepared
from litft.errors import CheckpointError, ConfigError, DataError, PreemptedError, TrainingError
from litft.methods.base import trainable_state
from litft.train.evaluate import validate
from litft.train.finish import finish
from litft.train.loop import backward, fit, train_step, window_rows
from litft.train.nonfinite import check_finite
from litft.train.row_losses import gather_losses
from litft.train.saving import save_step
from litft.train.setup import open_inputs
from litft.train.state import Run
from litft.train.step_folders import find_resume, step_folders

METHODS = list(methods())


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def batching(size: int, packed: bool = True) -> Batching:
    return Batching(size, 32, packed)


def gradients(run: Run, rows: list[int], how: Batching) -> dict[str, Tensor]:
    """The gradient of one window, split in this way."""
    batches = list(iter_micro_batches(run.inputs.train, rows, how))
    count = sum(batch.target_tokens for batch in batches)
    for batch in batches:
        backward(run, batch, count, token_loss)
    return {name: p.grad.clone() for name, p in run.gpt.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", METHODS)
def test_the_split_into_micro_batches_does_not_change_the_gradient(world: Path, method: str) -> None:
    found = []
    splits = [batching(size, packed) for packed in (False, True) for size in (1, 2, 8)]
    for index, split in enumerate(splits):
        config = make_config(world, out_dir=world / f"out{index}")
        run = open_run(config, methods()[method])
        for module in run.gpt.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        found.append(gradients(run, list(range(8)), split))
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        for name, gradient in found[0].items():
            assert torch.allclose(gradient, other[name], rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("method", METHODS)
def test_what_rows_begin_with_is_computed_once_and_the_gradient_is_the_same(world: Path, method: str) -> None:
    write_alike_rows(world)
    run = open_run(make_config(world, train__pack="shared_prefix"), methods()[method])
    for module in run.gpt.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows = list(range(8))
    (shared,) = iter_micro_batches(run.inputs.train, rows, Batching(8, 32, packed=True, shares=True))
    (plain,) = iter_micro_batches(run.inputs.train, rows, batching(8))
    assert sorted(shared.shared) == [9, 10] and shared.tokens == plain.tokens
    computed = [batch.input_ids.numel() - batch.padding_tokens for batch in (shared, plain)]
    assert computed == [plain.tokens - 3 * 9 - 3 * 10, plain.tokens]
    assert all(batch.input_ids.numel() % MULTIPLE == 0 and batch.padding_tokens < MULTIPLE for batch in (shared, plain))
    assert sorted(zip(shared.rows, shared.row_targets, strict=True)) == sorted(
        zip(plain.rows, plain.row_targets, strict=True)
    )
    one = gradients(run, rows, batching(8))
    run.gpt.zero_grad()
    other = gradients(run, rows, run.inputs.batching)
    for name, gradient in one.items():
        assert torch.allclose(gradient, other[name], rtol=1e-4, atol=1e-6), name
    assert run.inputs.batching.shares
    before = validate(run.fabric, run.model, run.inputs.train, rows, batching(8), token_loss)
    assert validate(
        run.fabric, run.model, run.inputs.train, rows, run.inputs.batching, token_loss
    ).loss == pytest.approx(before.loss, rel=1e-6)


def test_padding_lengthens_no_row(world: Path) -> None:
    run = open_run(make_config(world), methods()["lora"])
    (batch,) = iter_micro_batches(run.inputs.train, [0, 1, 2], batching(4))
    assert batch.padding_tokens and batch.documents is not None
    assert batch.documents == (*((length, -1) for length in batch.lengths), (batch.padding_tokens, -1))


def write_alike_rows(world: Path) -> None:
    """Lets four rows begin with the same 9 tokens and four with the same 10, all before their targets."""
    path = world / "data" / "train.pt"
    meta = PreparedData.load(path).meta
    torch.manual_seed(0)
    rows = [
        torch.cat((torch.arange(3, 12) if row % 2 else torch.arange(4, 14), torch.randint(3, 20, (6 + row,))))
        for row in range(8)
    ]
    lengths = torch.tensor([len(row) for row in rows])
    save_prepared(
        path,
        input_ids=torch.cat(rows),
        target_mask=torch.cat([torch.arange(len(row)) >= 12 for row in rows]),
        offsets=torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0))),
        source=torch.zeros(8),
        meta=meta,
    )
    write_manifest(world / "data")


def test_a_beginning_is_not_shared_where_rotation_depends_on_the_length(world: Path) -> None:
    path = world / "model" / "model_config.yaml"
    config = load_model_config(path.parent)
    scaling = RopeScaling(kind="dynamic", factor=2.0, original_block_size=32)
    save_model_config(path.parent, dataclasses.replace(config, rope_scaling=scaling))
    with pytest.raises(ConfigError, match=r"train\.pack is shared_prefix, but .* is dynamic: .*; use packed"):
        open_run(make_config(world, train__pack="shared_prefix"), methods()["lora"])


@pytest.mark.parametrize("method", METHODS)
def test_only_the_methods_parameters_move_and_each_has_a_gradient_after_a_validation(world: Path, method: str) -> None:
    run = open_run(make_config(world, eval__interval=1), methods()[method])
    before = {name: parameter.detach().clone() for name, parameter in run.gpt.named_parameters()}
    fit(with_step_limit(run, 2), token_loss)  # a validation before each of the steps
    trained = set(trainable_state(run.gpt, run.method))
    grads = gradients(run, window_rows(run, 2), batching(2))
    assert grads.keys() == trained
    for name, parameter in run.gpt.named_parameters():
        moved = not torch.equal(before[name], parameter)
        assert moved == (name in trained), name
        assert name not in trained or grads[name].abs().max() > 0, name


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_five_steps_and_five_resumed_are_ten_bit_for_bit(world: Path, method: str, precision: str) -> None:
    def settings(name: str, resume: str | None = None) -> Run:
        config = make_config(
            world, out_dir=world / name, precision=precision, resume=resume, train__save_interval=5, eval__interval=4
        )
        return open_run(config, methods()[method])

    straight = settings("straight")
    whole = fit(straight, token_loss)
    fit(with_step_limit(settings("cut"), 7), token_loss)  # killed two steps after the checkpoint
    resumed = settings("cut", resume="auto")
    assert resumed.inputs.resume_from == world / "cut" / "step-00000005"
    again = fit(resumed, token_loss)
    for name, tensor in trainable_state(straight.gpt, straight.method).items():
        assert torch.equal(tensor, resumed.gpt.get_parameter(name)), name
    whole.seconds = again.seconds = 0.0
    assert whole == again
    assert columns(world / "straight") == columns(world / "cut")
    assert (world / "straight" / "samples.jsonl").read_text() == (world / "cut" / "samples.jsonl").read_text()


def columns(out_dir: Path) -> list[tuple[str, ...]]:
    """What metrics.csv says but for times and memory."""
    with (out_dir / "logs" / "metrics.csv").open() as file:
        return [tuple(v for k, v in row.items() if not re.search("second|memory", k)) for row in csv.DictReader(file)]


def test_every_example_is_seen_once_an_epoch_and_orders_differ(world: Path) -> None:
    run = open_run(make_config(world), methods()["lora"])
    steps = run.plan.steps_per_epoch
    epochs = [[row for step in range(e * steps, (e + 1) * steps) for row in window_rows(run, step)] for e in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24))
    assert epochs[0] != epochs[1]


def test_the_learning_rate_of_each_step_stands_in_the_metrics_and_ends_at_its_minimum(world: Path) -> None:
    run = open_run(make_config(world, optim__min_learning_rate=1e-4), methods()["lora"])
    fit(run, token_loss)
    with (world / "out" / "logs" / "metrics.csv").open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]]
    assert rates == [run.plan.learning_rate(step) for step in range(run.plan.steps)]
    assert rates[0] > 0
    assert rates[-1] == pytest.approx(1e-4)


def test_a_loss_that_is_not_finite_stops_before_the_weights_move_and_names_the_rows(world: Path) -> None:
    run = open_run(make_config(world), methods()["lora"])
    before = {name: tensor.clone() for name, tensor in trainable_state(run.gpt, run.method).items()}
    rows = window_rows(run, 0)
    worst = max(rows, key=lambda row: int(run.inputs.train.lengths[row]))  # comes first, in the first micro-batch
    calls = []

    def broken_loss(logits: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        return token_loss(logits, targets).index_fill(0, torch.tensor([0]), float("nan") if len(calls) == 1 else 0.0)

    with pytest.raises(TrainingError, match=rf"loss is not finite at rows \[{worst}\] of train"):
        train_step(run, rows, 1e-3, broken_loss)
    assert all(torch.equal(before[name], tensor) for name, tensor in trainable_state(run.gpt, run.method).items())


def test_a_gradient_that_is_not_finite_names_the_whole_window(world: Path) -> None:
    run = open_run(make_config(world), methods()["lora"])
    batches = list(iter_micro_batches(run.inputs.train, [0, 1, 2], batching(2)))
    with pytest.raises(TrainingError, match="gradient is not finite at rows"):
        check_finite(run.fabric, gather_losses(run.fabric, batches, torch.ones(3)), torch.tensor(float("inf")))


def test_the_old_checkpoint_stays_when_a_save_is_interrupted(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(make_config(world, train__save_interval=2), methods()["lora"])
    progress = fit(with_step_limit(run, 3), token_loss)
    out_dir = world / "out"
    progress.step = 9

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("litft.train.saving.sha256_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_step(run, progress)
    monkeypatch.undo()
    assert find_resume(out_dir, "auto", lambda message: None) == out_dir / "step-00000002"


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(world: Path) -> None:
    run = open_run(make_config(world, train__save_interval=2), methods()["lora"])
    fit(with_step_limit(run, 5), token_loss)
    folders = step_folders(world / "out")
    assert [folder.name for folder in folders] == ["step-00000002", "step-00000004"]
    path = folders[1] / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    said: list[str] = []
    assert find_resume(world / "out", "auto", said.append) == folders[0]
    assert "damaged" in said[0]
    with pytest.raises(CheckpointError, match="sha256 differs"):
        find_resume(world / "out", str(folders[1]), said.append)


def test_the_newest_and_the_best_checkpoints_are_kept(world: Path) -> None:
    run = open_run(make_config(world, train__save_interval=1, train__keep=2), methods()["lora"])
    progress = fit(with_step_limit(run, 3), token_loss)
    (world / "out" / "step-00000001" / "state.yaml").write_text("broken: [")  # is passed over, and goes in its turn
    for step, loss in ((4, 0.5), (5, 0.7), (6, 0.6), (7, 0.8)):
        progress.step, progress.val_loss = step, loss
        save_step(run, progress)
    assert [int(folder.name[-2:]) for folder in step_folders(world / "out")] == [4, 6, 7]


def test_a_run_is_not_resumed_under_other_settings(world: Path) -> None:
    fit(with_step_limit(open_run(make_config(world, train__save_interval=2), methods()["lora"]), 3), token_loss)
    config = make_config(world, train__save_interval=2, resume="auto", optim__learning_rate=1.0)
    with pytest.raises(ConfigError, match="a resumed run keeps its settings"):
        open_run(config, methods()["lora"])


def test_a_run_that_has_ended_is_not_resumed(world: Path) -> None:
    run = open_run(make_config(world), methods()["lora"])
    finish(run, fit(run, token_loss))
    before = (world / "out" / "logs" / "metrics.csv").read_text()
    with pytest.raises(ConfigError, match="has ended, there is nothing to resume"):
        open_run(make_config(world, resume="auto"), methods()["lora"])
    assert (world / "out" / "logs" / "metrics.csv").read_text() == before


def test_a_run_that_time_ended_goes_on_with_more_time(world: Path) -> None:
    straight = open_run(make_config(world, out_dir=world / "straight"), methods()["lora"])
    whole = fit(straight, token_loss)
    run = open_run(make_config(world, train__max_time="0.001s"), methods()["lora"])
    finish(run, fit(run, token_loss))
    resumed = open_run(make_config(world, train__max_time="1h", resume="auto"), methods()["lora"])
    progress = fit(resumed, token_loss)
    assert (progress.step, progress.stopped_by) == (whole.step, "epochs")
    for name, tensor in trainable_state(straight.gpt, straight.method).items():
        assert torch.equal(tensor, resumed.gpt.get_parameter(name)), name


def test_without_a_whole_checkpoint_a_run_is_not_taken_over_by_other_settings(world: Path) -> None:
    fit(with_step_limit(open_run(make_config(world), methods()["lora"]), 1), token_loss)
    with pytest.raises(ConfigError, match=r"has optim\.learning_rate 0\.01, this run has 0\.5"):
        open_run(make_config(world, resume="auto", optim__learning_rate=0.5), methods()["lora"])


@pytest.mark.parametrize("changed", ["model/lit_model.safetensors", "data/train.pt"])
def test_a_run_is_not_resumed_on_another_base_or_other_rows(world: Path, changed: str) -> None:
    def settings(resume: str | bool) -> Run:
        return open_run(make_config(world, resume=resume, train__save_interval=2), methods()["lora"])

    fit(with_step_limit(settings(False), 3), token_loss)
    path = world / changed
    other = make_world(world / "other", seed=5) / changed
    path.write_bytes(other.read_bytes())
    if changed == "data/train.pt":
        with pytest.raises(DataError, match="is damaged or was changed"):
            settings("auto")
        write_manifest(world / "data")  # prepared again, from other rows
    with pytest.raises(CheckpointError, match="has changed since"):
        fit(settings("auto"), token_loss)


def test_going_on_from_an_older_checkpoint_leaves_the_later_ones_behind(world: Path) -> None:
    fit(with_step_limit(open_run(make_config(world, train__save_interval=2), methods()["lora"]), 7), token_loss)
    older = world / "out" / "step-00000004"
    assert {"4", "6"} <= {folder.name[-1] for folder in step_folders(world / "out")}
    resumed = open_run(make_config(world, train__save_interval=2, resume=str(older)), methods()["lora"])
    progress = fit(with_step_limit(resumed, 5), token_loss)
    progress.step = 5
    save_step(resumed, progress)
    assert "6" not in {folder.name[-1] for folder in step_folders(world / "out")}
    assert find_resume(world / "out", "auto", lambda message: None) == world / "out" / "step-00000005"


def test_a_last_line_cut_short_does_not_stop_a_resume(world: Path) -> None:
    fit(with_step_limit(open_run(make_config(world, train__save_interval=2), methods()["lora"]), 3), token_loss)
    for name, torn in (("logs/metrics.csv", "3,24,1"), ("samples.jsonl", '{"step": 3, "ro')):
        with (world / "out" / name).open("a") as file:
            file.write(torn)
    resumed = open_run(make_config(world, train__save_interval=2, resume="auto"), methods()["lora"])
    fit(resumed, token_loss)
    assert [row[0] for row in columns(world / "out")].count("3") == 1


def test_both_splits_must_be_of_the_models_tokenizer(world: Path) -> None:
    shutil.copyfile(
        make_world(world / "other", tokenizer_hash="another") / "data" / "test.pt", world / "data" / "test.pt"
    )
    with pytest.raises(DataError, match=r"test\.pt was prepared with the tokenizer of another model"):
        open_run(make_config(world), methods()["lora"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_the_step_saves_and_the_run_goes_on_as_if_nothing_had_been(world: Path, number: int) -> None:
    straight = open_run(make_config(world, out_dir=world / "straight"), methods()["lora"])
    fit(straight, token_loss)
    calls: list[int] = []

    def interrupting_loss(logits: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 20:  # in the midst of a step
            signal.raise_signal(number)
        return token_loss(logits, targets)

    run = open_run(make_config(world), methods()["lora"])
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else PreemptedError):
        fit(run, interrupting_loss)
    resumed = open_run(make_config(world, resume="auto"), methods()["lora"])
    assert resumed.inputs.resume_from is not None
    fit(resumed, token_loss)
    for name, tensor in trainable_state(straight.gpt, straight.method).items():
        assert torch.equal(tensor, resumed.gpt.get_parameter(name)), name


def test_a_checkpoint_is_resumed_in_its_own_folder_only(world: Path) -> None:
    fit(with_step_limit(open_run(make_config(world, train__save_interval=2), methods()["lora"]), 3), token_loss)
    path = str(world / "out" / "step-00000002")
    config = make_config(world, resume=path, train__save_interval=2, out_dir=world / "elsewhere")
    with pytest.raises(ConfigError, match="is of the run in"):
        open_run(config, methods()["lora"])
    own = make_config(world, resume=path, train__save_interval=2, out_dir=None)
    assert open_run(own, methods()["lora"]).inputs.out_dir == world / "out"


def test_max_time_ends_a_run_with_a_validation_and_a_final_folder(world: Path) -> None:
    run = open_run(make_config(world, train__max_time="0.001s"), methods()["lora"])
    summary = finish(run, fit(run, token_loss))
    assert summary["stopped_by"] == "max_time"
    assert summary["steps"] == 1
    assert summary["val_loss"] != summary["first_val_loss"]
    assert json.loads((world / "out" / "summary.json").read_text()) == summary


def test_counts_are_of_real_tokens_and_validation_covers_every_held_out_target(world: Path) -> None:
    run = open_run(make_config(world, train__epochs=1), methods()["lora"])
    progress = fit(run, token_loss)
    train, test = run.inputs.train, run.inputs.test
    assert progress.tokens == len(train.input_ids)
    shifted = sum(int(train.row(index)[1][1:].sum()) for index in range(len(train)))
    assert progress.target_tokens == shifted
    total, count = 0.0, 0
    run.gpt.eval()
    for index in range(len(test)):
        ids, mask = test.row(index)
        with torch.no_grad():
            losses = token_loss(run.gpt.head(run.gpt(ids[None].long()))[0, :-1], ids[1:].long())
        total, count = total + losses[mask[1:]].sum().item(), count + int(mask[1:].sum())
    assert progress.val_loss == pytest.approx(total / count, rel=1e-5)


def test_each_source_has_its_held_out_loss(world: Path) -> None:
    run = open_run(make_config(world), methods()["lora"])
    data = run.inputs.test
    sources = torch.arange(len(data), dtype=torch.int16) % 2
    mixed = dataclasses.replace(data, source=sources, meta={**data.meta, "source_names": ["a", "b"]})
    rows = list(range(len(data)))
    one = validate(run.fabric, run.model, data, rows, batching(2), token_loss)
    both = validate(run.fabric, run.model, mixed, rows, batching(2), token_loss)
    assert one.by_source == {} and "a " not in str(one) and "(a " in str(both)
    assert both.loss == pytest.approx(one.loss, rel=1e-6) and both.accuracy == pytest.approx(one.accuracy)
    for number, name in enumerate("ab"):
        alone = validate(run.fabric, run.model, data, rows[number::2], batching(2), token_loss)
        assert both.by_source[name] == pytest.approx(alone.loss, rel=1e-6)


def test_the_order_of_the_file_is_kept_where_asked(world: Path) -> None:
    run = open_run(make_config(world, train__shuffle=False), methods()["lora"])
    steps = run.plan.steps_per_epoch
    assert [row for step in range(steps) for row in window_rows(run, step)] == list(range(24))
    assert window_rows(run, steps) == window_rows(run, 0)


def test_training_mode_comes_back_after_a_validation_that_fails(world: Path) -> None:
    run = open_run(make_config(world), methods()["lora"])
    run.model.train()

    def failing(logits: Tensor, targets: Tensor) -> Tensor:
        assert not run.gpt.training
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        validate(run.fabric, run.model, run.inputs.test, [0], batching(1), failing)
    assert all(module.training for module in run.gpt.modules())
    assert torch.is_grad_enabled()


def test_bf16_full_training_moves_weights_as_float32_does(world: Path) -> None:
    """At a rate far below bfloat16's spacing, stochastic rounding moves the weights on average as float32 would."""
    moved = {}
    for precision in ("32-true", "bf16-true"):
        config = make_config(
            world,
            precision=precision,
            out_dir=world / precision,
            train__epochs=20,
            optim__learning_rate=2e-5,
            optim__weight_decay=0.0,
        )
        run = open_run(config, methods()["full"])
        start = {name: parameter.detach().float().clone() for name, parameter in run.gpt.named_parameters()}
        fit(run, token_loss)
        moved[precision] = torch.cat(
            [(parameter.detach().float() - start[name]).flatten() for name, parameter in run.gpt.named_parameters()]
        )
    exact, rounded = moved["32-true"], moved["bf16-true"]
    slope = (exact @ rounded / (exact @ exact)).item()  # 1 where nothing is lost; 0.03 in plain bfloat16
    assert slope == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_at_every_precision(world: Path, method: str, precision: str) -> None:
    """One row is learned by heart; weights have the dtypes that the precision and the method ask for."""
    rate = 1e-1 if method == "adapter" else 1e-2
    config = make_config(world, precision=precision, optim__learning_rate=rate)
    run = open_run(config, methods()[method])
    run.model.train()
    losses = [train_step(run, [0], rate, token_loss).loss for _ in range(30)]
    assert losses[-1] < losses[0] - 0.1
    wide = torch.float32 if precision != "bf16-true" else torch.bfloat16
    for name, parameter in run.gpt.named_parameters():
        is_added = method != "full" and run.method.is_trainable(name)
        assert parameter.dtype == (torch.float32 if is_added else wide), name


def test_rows_over_the_limit_are_left_out_and_counted(world: Path) -> None:
    said: list[str] = []
    inputs = open_inputs(make_config(world, train__max_seq_length=20), methods()["lora"], said.append)
    lengths = inputs.train.lengths
    assert inputs.train_rows.tolist() == [row for row in range(24) if lengths[row] <= 20]
    left_out = int((lengths > 20).sum())
    assert f"{left_out} of 24 rows of {world / 'data' / 'train.pt'} are over 20 tokens and left out." in said


def test_the_plan_matches_what_the_loop_did(world: Path) -> None:
    config = make_config(world, train__max_iters=9, train__global_batch_size=8, train__micro_batch_size=2)
    run = open_run(config, methods()["lora"])
    plan = build_plan(24, config.train, config.optim, config.eval)
    progress = fit(run, token_loss)
    assert (plan.examples, plan.steps, plan.ends_by) == (18, 3, "max_iters")
    assert (progress.examples, progress.step, progress.stopped_by) == (18, 3, "max_iters")
