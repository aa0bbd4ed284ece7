"""AdamW against torch's own, stochastic rounding against its mean, decay where it belongs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from litft.config.run import OptimConfig
from litft.train.optim import StochasticAdamW, build_optimizer, is_decayed, round_stochastically, set_learning_rate


def test_the_stochastic_optimizer_is_adamw_in_float32() -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(7, 3), [torch.randn(7, 3) for _ in range(5)]
    results = []
    for kind in (torch.optim.AdamW, StochasticAdamW):
        parameter = nn.Parameter(start.clone())
        optimizer = kind([{"params": [parameter], "weight_decay": 0.1}], lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        results.append(parameter.detach())
    assert torch.allclose(*results, atol=1e-7)


@pytest.mark.parametrize("value", [1.001, -3.1415, 1e-30, 65000.7])
def test_rounding_gives_the_two_neighbours_with_the_right_mean(value: float) -> None:
    torch.manual_seed(0)
    rounded = round_stochastically(torch.full((20_000,), value)).double()
    spacing = abs(value) * 2**-7
    assert len(rounded.unique()) == 2
    assert (rounded - value).abs().max() < spacing
    assert rounded.mean().item() == pytest.approx(value, abs=spacing / 50)


def test_exact_values_stay() -> None:
    exact = torch.tensor([0.0, 1.0, -2.5, float("inf")])
    assert torch.equal(round_stochastically(exact), exact.to(torch.bfloat16))


def test_plain_bfloat16_would_lose_what_stochastic_rounding_keeps() -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.ones(10_000, dtype=torch.bfloat16))
    optimizer = build_optimizer([("w", parameter)], OptimConfig(learning_rate=1e-4, weight_decay=0.0))
    set_learning_rate(optimizer, 1e-4)
    for _ in range(10):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert torch.equal(torch.ones(1, dtype=torch.bfloat16) - 1e-4, torch.ones(1, dtype=torch.bfloat16))
    assert parameter.float().mean().item() == pytest.approx(1 - 10e-4, abs=2e-4)


def test_matrices_decay_and_nothing_else() -> None:
    decayed = {"h.0.attn.qkv.weight": (4, 4), "h.0.attn.qkv.lora_A": (2, 4)}
    spared = {"h.0.norm_1.weight": (4,), "h.0.attn.qkv.bias": (4,), "adapter_gate": (4,), "adapter_scale": (4,)}
    assert all(is_decayed(name, torch.zeros(shape)) for name, shape in decayed.items())
    assert not any(is_decayed(name, torch.zeros(shape)) for name, shape in spared.items())


def test_frozen_parameters_are_not_given_to_the_optimizer() -> None:
    trained, frozen = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2), requires_grad=False)
    optimizer = build_optimizer([("a", trained), ("b", frozen)], OptimConfig())
    assert [p for group in optimizer.param_groups for p in group["params"]] == [trained]
    assert isinstance(optimizer, torch.optim.AdamW)
