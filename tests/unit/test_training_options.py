"""Options that change training alone: label smoothing, noise on embeddings, LoRA+."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_run import make_config, make_world, methods, open_run, with_step_limit
from torch import Tensor

from litft.data.batches import MicroBatch, iter_micro_batches
from litft.errors import ConfigError
from litft.train.loop import fit, train_step
from litft.train.loss import smoothed
from litft.train.neftune import noisy_embeddings
from litft.train.state import Run


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def test_smoothing_is_that_of_torch() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 11, requires_grad=True), torch.randint(11, (7,))
    ours = smoothed(token_loss, 0.1)(logits, targets)
    theirs = F.cross_entropy(logits, targets, reduction="none", label_smoothing=0.1)
    assert torch.allclose(ours, theirs)
    gradients = [torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0] for loss in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-6)
    assert smoothed(token_loss, 0.0) is token_loss


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_training_loss_is_smoothed_and_the_held_out_loss_is_not(world: Path, method: str) -> None:
    found = {}
    for share in (0.0, 0.2):
        config = make_config(
            world, train__label_smoothing=share, out_dir=world / f"out{share}", optim__learning_rate=1e-9
        )
        run = open_run(config, methods()[method])
        for module in run.gpt.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        found[share] = fit(with_step_limit(run, 1), token_loss)
    assert found[0.2].first_val_loss == pytest.approx(found[0.0].first_val_loss)
    assert found[0.2].first_loss != pytest.approx(found[0.0].first_loss, rel=1e-4)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(world: Path, share: float) -> None:
    with pytest.raises(ConfigError, match=r"train\.label_smoothing is"):
        make_config(world, train__label_smoothing=share)
    with pytest.raises(ConfigError, match=r"train\.neftune_alpha is -1"):
        make_config(world, train__neftune_alpha=-1.0)


def batch_of(run: Run) -> MicroBatch:
    """Four rows of different lengths, together."""
    return next(iter(iter_micro_batches(run.inputs.train, [0, 1, 2, 3], run.inputs.batching.times(2))))


@pytest.mark.parametrize("pack", ["packed", "padded"])
def test_noise_is_uniform_up_to_what_each_rows_own_length_allows(world: Path, pack: str) -> None:
    alpha, run = 5.0, open_run(make_config(world, train__pack=pack), methods()["lora"])
    batch, wte = batch_of(run), run.gpt.get_submodule("transformer.wte")
    assert len(set(batch.lengths)) > 2
    plain, noises = wte(batch.input_ids), []
    for _ in range(40):
        with noisy_embeddings(run.gpt, batch, alpha):
            noises.append(wte(batch.input_ids) - plain)
    assert torch.equal(wte(batch.input_ids), plain)
    for length, *rows in zip(batch.lengths, *(batch.of_rows(noise) for noise in noises), strict=True):
        noise, bound = torch.stack(rows), alpha / math.sqrt(length * plain.shape[-1])
        assert 0.95 * bound < noise.abs().max() <= bound * (1 + 1e-5)
        assert noise.abs().mean().item() == pytest.approx(bound / 2, rel=0.05)
        assert noise.mean().item() == pytest.approx(0.0, abs=bound / 20)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_training_sees_noise_and_validation_does_not(world: Path, method: str) -> None:
    found = {}
    for alpha in (0.0, 20.0):
        config = make_config(world, train__neftune_alpha=alpha, out_dir=world / f"out{alpha}", eval__prompts=0)
        run = open_run(config, methods()[method])
        for module in run.gpt.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        progress = fit(with_step_limit(run, 0), token_loss)
        losses = {train_step(run, [0, 1], 1e-12, token_loss).loss for _ in range(2)}
        found[alpha] = progress.first_val_loss, losses
    assert found[0.0][0] == found[20.0][0]
    assert len({round(loss, 4) for loss in found[0.0][1]}) == 1
    assert len(found[20.0][1]) == 2 and not found[20.0][1] & found[0.0][1]


def assert_resumes(open_at: Callable[..., Run]) -> Run:
    """Trains straight, and cut off and resumed; both must end at the same weights. Gives the straight run."""
    straight = open_at("straight")
    fit(straight, token_loss)
    fit(open_at("cut"), token_loss)
    resumed = open_at("cut", resume=True)
    fit(resumed, token_loss)
    for name, parameter in straight.gpt.named_parameters():
        assert torch.equal(parameter, resumed.gpt.get_parameter(name)), name
    return straight


def test_a_run_with_noise_resumes_bit_for_bit(world: Path) -> None:
    def open_at(name: str, resume: bool = False) -> Run:
        config = make_config(
            world, train__neftune_alpha=5.0, out_dir=world / name, resume=resume, train__save_interval=2
        )
        return with_step_limit(open_run(config, methods()["full"]), 3 if name == "cut" and not resume else 5)

    assert_resumes(open_at)


def test_lora_plus_is_refused_for_a_method_without_b_before_anything_is_loaded(world: Path) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lora_plus_ratio is 8.0, but this run trains no LoRA matrices"):
        open_run(make_config(world, optim__lora_plus_ratio=8.0), methods()["adapter"])
    assert not (world / "out").exists()
    open_run(make_config(world, optim__lora_plus_ratio=8.0), methods()["lora"])


@pytest.mark.parametrize("name", ["adamw8bit", "adafactor", "muon", "sgd"])
def test_a_run_with_each_optimizer_resumes_bit_for_bit(world: Path, name: str) -> None:
    def open_at(folder: str, resume: bool = False) -> Run:
        changes = {"out_dir": world / folder, "resume": resume, "train__save_interval": 2, "eval__prompts": 0}
        config = make_config(world, precision="bf16-true", optim__name=name, **changes)
        return with_step_limit(open_run(config, methods()["full"]), 3 if folder == "cut" and not resume else 4)

    straight = assert_resumes(open_at)
    assert all(straight.optimizer.optimizer.state.values())
