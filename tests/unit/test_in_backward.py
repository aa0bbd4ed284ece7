"""Steps taken within the backward pass: the same weights, and no more than one gradient at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_run import make_config, make_world, open_run
from torch import Tensor

from litft.config.run import RunConfig
from litft.errors import ConfigError, TrainingError
from litft.methods.base import Full
from litft.train.loop import train_step, window_rows
from litft.train.optim import OPTIMIZERS
from litft.train.state import Run


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def config_of(world: Path, **changes: Any) -> RunConfig:
    return make_config(world, **{"optim__clip_norm": None, "train__micro_batch_size": 8, **changes})


def stepped(run: Run) -> list[tuple[float, float]]:
    """Takes three steps; gives their losses and gradient norms."""
    results = [train_step(run, window_rows(run, step), 1e-3, token_loss) for step in range(3)]
    return [(result.loss, result.grad_norm) for result in results]


@pytest.mark.parametrize(("name", "precision"), [*((name, "bf16-true") for name in OPTIMIZERS), ("adamw", "32-true")])
def test_the_weights_are_those_of_the_ordinary_step(world: Path, name: str, precision: str) -> None:
    runs, said = [], []
    for place, in_backward in enumerate((False, True)):
        config = config_of(
            world, optim__name=name, precision=precision, optim__in_backward=in_backward, out_dir=world / f"{place}"
        )
        runs.append(open_run(config, Full()))
        said.append(stepped(runs[-1]))
    ordinary, other = said
    for (loss, norm), (other_loss, other_norm) in zip(ordinary, other, strict=True):
        assert loss == other_loss
        assert norm == pytest.approx(other_norm, rel=1e-2)  # of bfloat16 gradients torch gives a norm in bfloat16
    for parameter_name, parameter in runs[0].gpt.named_parameters():
        assert torch.equal(parameter, runs[1].gpt.get_parameter(parameter_name)), parameter_name


@pytest.mark.parametrize("tied", [False, True])
def test_no_two_gradients_are_held_at_once(tmp_path: Path, tied: bool) -> None:
    world = make_world(tmp_path, tie_embeddings=tied)

    def held(in_backward: bool) -> int:
        """The most gradients that stand beside their parameters as one more arrives."""
        config = config_of(world, optim__in_backward=in_backward, out_dir=world / str(in_backward))
        run, most = open_run(config, Full()), [0]
        parameters = list(run.gpt.parameters())

        def count(gradient: Tensor) -> None:
            most[0] = max(most[0], sum(parameter.grad is not None for parameter in parameters))

        for parameter in parameters:
            parameter.register_hook(count)
        train_step(run, window_rows(run, 0), 1e-3, token_loss)
        assert all(parameter.grad is None for parameter in parameters)
        return most[0]

    assert held(in_backward=False) > 10
    assert held(in_backward=True) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim__clip_norm": 1.0}, "set optim.clip_norm to null"),
        ({"train__micro_batch_size": 2}, "train.micro_batch_size, 2, must be train.global_batch_size, 8"),
        ({"train__micro_batch_size": "auto"}, "train.micro_batch_size, auto, must be train.global_batch_size, 8"),
        ({"devices": 2}, "before several processes"),
    ],
)
def test_what_needs_the_whole_gradient_is_refused(world: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config_of(world, optim__in_backward=True, **changes)


def test_a_gradient_that_is_not_finite_stops_the_run_and_no_later_weight_moves(world: Path) -> None:
    run = open_run(config_of(world, optim__in_backward=True), Full())
    before = {name: parameter.detach().clone() for name, parameter in run.gpt.named_parameters()}
    run.gpt.transformer["ln_f"].register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * torch.inf,))
    with pytest.raises(TrainingError, match=r"The gradient is not finite at rows .* some weights may have moved"):
        train_step(run, window_rows(run, 0), 1e-3, token_loss)
    moved = {name for name, parameter in run.gpt.named_parameters() if not torch.equal(before[name], parameter)}
    assert moved <= {"lm_head.weight", "transformer.ln_f.weight"}
