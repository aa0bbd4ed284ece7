"""Training a mixture of experts: those that no token reaches stand still, and a run resumes bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_run import make_config, make_world, methods, open_run, with_step_limit
from torch import Tensor

from litft.train.loop import fit
from litft.train.state import Run

EXPERTS = {"family": "qwen3_moe", "n_expert": 12, "n_expert_per_token": 1, "qk_norm": "head"}


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path, normalize_expert_weights=False, **EXPERTS)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("method", ["full", "lora", "adapter_v2"])
def test_a_run_resumes_before_every_expert_was_met(world: Path, method: str, precision: str) -> None:
    """An optimizer has no state of an expert that got no gradient yet; later the rest of the run gives it one."""

    def settings(name: str, resume: str | None = None) -> Run:
        batches = {"train__global_batch_size": 2, "train__micro_batch_size": 1, "train__save_interval": 2}
        config = make_config(world, out_dir=world / name, precision=precision, resume=resume, **batches)
        return open_run(config, methods()[method])

    whole = with_step_limit(settings("whole"), 6)
    fit(whole, token_loss)
    cut = with_step_limit(settings("cut"), 2)
    fit(cut, token_loss)
    early, late = (len(run.optimizer.optimizer.state) for run in (cut, whole))
    assert early < late < sum(parameter.requires_grad for parameter in whole.gpt.parameters()) + 1
    resumed = with_step_limit(settings("cut", resume="auto"), 6)
    fit(resumed, token_loss)
    for name, tensor in whole.gpt.named_parameters():
        assert torch.equal(tensor, resumed.gpt.get_parameter(name)), name


def test_an_expert_that_no_token_reaches_stands_still(world: Path) -> None:
    """Not even weight decay moves it; as in a sum over tokens, one micro-batch or several make no difference."""
    moved = []
    for size in (1, 4):
        config = make_config(
            world, out_dir=world / str(size), train__global_batch_size=4, train__micro_batch_size=size,
            optim__weight_decay=0.5, optim__lr_warmup_steps=0,
        )  # fmt: skip
        run = with_step_limit(open_run(config, methods()["full"]), 1)
        before = {name: tensor.clone() for name, tensor in run.gpt.named_parameters()}
        fit(run, token_loss)
        moved.append({name for name, tensor in run.gpt.named_parameters() if not torch.equal(tensor, before[name])})
    experts = {name for name in before if ".experts." in name}
    assert moved[0] == moved[1] and before.keys() - experts <= moved[0]
    assert experts & moved[0] and experts - moved[0]
