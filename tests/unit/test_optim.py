"""Optimizers against torch's own, stochastic rounding against its mean, decay and rates where they belong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import islice
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from litft.config.optim import OptimConfig
from litft.errors import ConfigError
from litft.train import stochastic
from litft.train.optim import OPTIMIZERS, build_optimizer, is_decayed, set_learning_rate
from litft.train.stochastic import StochasticAdamW, StochasticAdamW8bit, iter_noise, round_stochastically

HIDDEN, HEAD, BIAS = "transformer.h.0.mlp.up.weight", "lm_head.weight", "transformer.h.0.mlp.up.bias"
SHAPES = {HIDDEN: (200, 100), HEAD: (80, 100), BIAS: (64,)}
RATES = {"adamw": 1e-4, "adamw8bit": 1e-4, "adafactor": 1e-4, "muon": 1e-4, "sgd": 1e-5}
HERE = [name for name in OPTIMIZERS if name != "muon" or hasattr(torch.optim, "Muon")]  # torch 2.9 has it
CPU = torch.device("cpu")


def drawn(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape).to(torch.bfloat16).to(dtype)) for name, shape in SHAPES.items()}


def step(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], count: int, first: int = 0) -> None:
    """Steps with gradients that agree from step to step in a part, as real ones do."""
    for number in range(first, first + count):
        torch.manual_seed(number)
        for parameter in parameters.values():
            parameter.grad = (torch.randn(parameter.shape) + 0.3).to(torch.bfloat16).to(parameter.dtype)
        optimizer.step()


def test_every_name_of_the_configuration_is_an_optimizer() -> None:
    assert set(get_args(get_type_hints(OptimConfig)["name"])) == set(OPTIMIZERS) == set(RATES)


@pytest.mark.parametrize("name", HERE)
def test_bfloat16_weights_move_as_float32_weights_do(name: str) -> None:
    """Steps are a tenth of bfloat16's spacing and less; rounded to nearest, nearly all of them would be lost."""
    moved = []
    for dtype in (torch.float32, torch.bfloat16):
        parameters = drawn(dtype)
        start = {name: parameter.detach().float().clone() for name, parameter in parameters.items()}
        optimizer = build_optimizer(
            parameters.items(), OptimConfig(name=name, learning_rate=RATES[name], weight_decay=0)
        )
        step(optimizer, parameters, 20)
        moved.append({name: parameter.detach().float() - start[name] for name, parameter in parameters.items()})
    exact, rounded = moved
    for matrix in (HIDDEN, HEAD):
        slope = (exact[matrix].flatten() @ rounded[matrix].flatten() / exact[matrix].square().sum()).item()
        assert slope == pytest.approx(1.0, abs=0.15), matrix


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_is_tensors_and_put_back_goes_on_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    config = OptimConfig(name=name, learning_rate=1e-2)
    straight = drawn(dtype)
    optimizer = build_optimizer(straight.items(), config)
    step(optimizer, straight, 2)
    copies = {key: nn.Parameter(parameter.detach().clone()) for key, parameter in straight.items()}
    other = build_optimizer(copies.items(), config)
    for key, parameter in straight.items():
        assert all(isinstance(value, Tensor) for value in optimizer.state[parameter].values())
        for field, value in optimizer.state[parameter].items():
            other.state[copies[key]][field] = value.clone()
    step(optimizer, straight, 2, first=2)
    step(other, copies, 2, first=2)
    assert all(torch.equal(straight[key], copies[key]) for key in SHAPES)


@pytest.mark.parametrize("kind", [StochasticAdamW, lambda *args, **how: torch.optim.AdamW(*args, **how, fused=True)])
def test_the_arithmetic_is_that_of_torchs_plain_adamw(kind: Callable[..., torch.optim.Optimizer]) -> None:
    results = []
    for make in (torch.optim.AdamW, kind):
        parameters = drawn(torch.float32)
        groups = [{"params": list(parameters.values()), "weight_decay": 0.1}]
        step(make(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8), parameters, 5)
        results.append(parameters)
    for name in SHAPES:
        assert torch.allclose(results[0][name], results[1][name], atol=1e-6)


@pytest.mark.parametrize("kind", [StochasticAdamW, StochasticAdamW8bit])
def test_slices_are_stepped_as_the_whole_would_be(kind: type[StochasticAdamW], monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded, each weight is one of the two neighbours of what float32 gives: in every slice, also the short last."""
    settings = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8}
    whole, sliced, rounded = drawn(torch.float32), drawn(torch.float32), drawn(torch.bfloat16)
    step(kind(list(whole.values()), **settings), whole, 1)
    monkeypatch.setitem(stochastic.SLICE, "cpu", 768)
    step(kind(list(sliced.values()), **settings), sliced, 1)
    step(kind(list(rounded.values()), **settings), rounded, 1)
    for name, exact in whole.items():
        assert torch.allclose(exact, sliced[name], atol=1e-6)
        distance = (rounded[name].float() - exact).abs()
        assert (distance <= exact.abs() * 2**-7 + 1e-6).all()
        assert 0.3 < (rounded[name] > exact).float().mean() < 0.7


class Allocations(TorchDispatchMode):
    """Notes the largest tensor made under it."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("kind", [StochasticAdamW, StochasticAdamW8bit])
def test_a_step_holds_nothing_of_the_size_of_a_parameter(kind: type[StochasticAdamW]) -> None:
    parameter = nn.Parameter(torch.ones(3000, 1000, dtype=torch.bfloat16))
    optimizer = kind([parameter], lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # makes the state
    with Allocations() as seen:
        optimizer.step()
    assert 0 < seen.largest < 4e6 < parameter.nbytes


@pytest.mark.parametrize("value", [1.001, -3.1415, 1e-30, 65000.7])
def test_rounding_gives_the_two_neighbours_with_the_right_mean(value: float) -> None:
    rounded = round_stochastically(torch.full((20_000,), value), 0).double()
    spacing = abs(value) * 2**-7
    assert len(rounded.unique()) == 2
    assert (rounded - value).abs().max() < spacing
    assert rounded.mean().item() == pytest.approx(value, abs=spacing / 50)


def test_exact_values_stay() -> None:
    exact = torch.tensor([0.0, 1.0, -2.5, float("inf")])
    assert torch.equal(round_stochastically(exact, 0), exact.to(torch.bfloat16))


def test_any_two_bits_of_noise_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of one slice, and numbers of the same and of other places in two slices."""
    monkeypatch.setitem(stochastic.SLICE, "cpu", 8)
    drawn = torch.stack([torch.cat([n.clone() for n in iter_noise(20, CPU, seed)]) for seed in range(4000)]).double()
    assert drawn.min() >= 0 and drawn.max() < 1 << 16
    assert torch.allclose(drawn.mean(0), torch.full((20,), 32767.5, dtype=torch.float64), rtol=0.05)
    related = torch.corrcoef(drawn.mT) - torch.eye(20)
    assert related.abs().max() < 0.08  # five standard deviations
    odd = drawn.long() & 1
    assert (torch.corrcoef(odd.double().mT) - torch.eye(20)).abs().max() < 0.08


def test_each_slice_has_noise_of_its_own_and_a_seed_repeats_it() -> None:
    count = stochastic.SLICE["cpu"] + 10
    first, second = (noise.clone() for noise in islice(iter_noise(count, CPU, 1), 2))
    assert len(second) == 10 and not torch.equal(first[:10], second)
    assert torch.equal(first, next(iter_noise(count, CPU, 1)))
    assert not torch.equal(first, next(iter_noise(count, CPU, 2)))


def test_plain_bfloat16_would_lose_what_stochastic_rounding_keeps() -> None:
    parameter = nn.Parameter(torch.ones(10_000, dtype=torch.bfloat16))
    optimizer = build_optimizer([("w", parameter)], OptimConfig(learning_rate=1e-4, weight_decay=0.0))
    set_learning_rate(optimizer, 1e-4)
    for _ in range(10):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert torch.equal(torch.ones(1, dtype=torch.bfloat16) - 1e-4, torch.ones(1, dtype=torch.bfloat16))
    assert parameter.float().mean().item() == pytest.approx(1 - 10e-4, abs=2e-4)


def test_eight_bits_keep_a_quarter_of_the_state_and_small_vectors_keep_float32() -> None:
    parameters = drawn(torch.bfloat16)
    optimizer = build_optimizer(parameters.items(), OptimConfig(name="adamw8bit"))
    step(optimizer, parameters, 1)
    sizes = {name: sum(t.nbytes for t in optimizer.state[p].values()) for name, p in parameters.items()}
    assert sizes[HIDDEN] < 2.1 * parameters[HIDDEN].numel()
    assert sizes[BIAS] > 8 * parameters[BIAS].numel()


def test_muon_moves_hidden_matrices_and_adamw_all_else() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("torch 2.9 has Muon")
    parameters = drawn(torch.float32)
    before = parameters[HIDDEN].detach().clone()
    optimizer = build_optimizer(parameters.items(), OptimConfig(name="muon", weight_decay=0.0))
    step(optimizer, parameters, 1)
    kinds = {name: "momentum_buffer" in optimizer.state[parameter] for name, parameter in parameters.items()}
    assert kinds == {HIDDEN: True, HEAD: False, BIAS: False}
    singular = torch.linalg.svdvals(parameters[HIDDEN].detach() - before)
    assert singular.max() / singular.min() < 3  # every direction alike


def test_what_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ConfigError, match=r"optim\.name is muon, which torch .* does not have; use torch 2\.9"):
        build_optimizer(drawn(torch.float32).items(), OptimConfig(name="muon"))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"optim\.name is adamw8bit, which needs bitsandbytes; pip install"):
        build_optimizer(drawn(torch.float32).items(), OptimConfig(name="adamw8bit"))


def test_lora_plus_moves_b_at_a_multiple_of_the_rate_of_a() -> None:
    a, b = nn.Parameter(torch.zeros(4, 4)), nn.Parameter(torch.zeros(4, 4))
    named = [("h.0.attn.qkv.lora_A", a), ("h.0.attn.qkv.lora_B", b)]
    optimizer = build_optimizer(named, OptimConfig(learning_rate=1e-3, lora_plus_ratio=16, weight_decay=0.0))
    for rate in (1e-3, 1e-4):
        set_learning_rate(optimizer, rate)
        before = a.detach().clone(), b.detach().clone()
        a.grad, b.grad = torch.ones_like(a), torch.ones_like(b)
        optimizer.step()
        assert torch.allclose(before[0] - a, torch.full((4, 4), rate), rtol=1e-3)
        assert torch.allclose(before[1] - b, torch.full((4, 4), 16 * rate), rtol=1e-3)
    with pytest.raises(ConfigError, match="trains no LoRA matrices"):
        build_optimizer([("a", a)], OptimConfig(lora_plus_ratio=16))


def test_matrices_decay_and_nothing_else() -> None:
    decayed = {"h.0.attn.qkv.weight": (4, 4), "h.0.attn.qkv.lora_A": (2, 4)}
    spared = {"h.0.norm_1.weight": (4,), "h.0.attn.qkv.bias": (4,), "adapter_gate": (4,), "adapter_scale": (4,)}
    assert all(is_decayed(name, torch.zeros(shape)) for name, shape in decayed.items())
    assert not any(is_decayed(name, torch.zeros(shape)) for name, shape in spared.items())


@pytest.mark.parametrize("name", HERE)
def test_decay_reaches_matrices_through_every_optimizer(name: str) -> None:
    parameters = drawn(torch.float32)
    before = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    optimizer = build_optimizer(parameters.items(), OptimConfig(name=name, learning_rate=1e-2, weight_decay=0.5))
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for matrix in (HIDDEN, HEAD):
        assert torch.allclose(parameters[matrix], before[matrix] * (1 - 0.5 * 1e-2), atol=1e-6)
    assert torch.equal(parameters[BIAS], before[BIAS])


def test_frozen_parameters_are_not_given_to_the_optimizer() -> None:
    trained, frozen = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2), requires_grad=False)
    optimizer = build_optimizer([("a", trained), ("b", frozen)], OptimConfig())
    assert [p for group in optimizer.param_groups for p in group["params"]] == [trained]
    assert isinstance(optimizer, torch.optim.AdamW)
