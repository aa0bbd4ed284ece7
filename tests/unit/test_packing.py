"""Packed rows: none sees another, and values and gradients are those of each row alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tiny_configs import CONFIGS, LLAMA
from tiny_run import methods
from torch import Tensor, nn

from litft.config.run import LoRAConfig
from litft.data.batches import pack, pack_alike
from litft.data.prefixes import LEAST_TOKENS, shared_beginnings
from litft.methods.base import freeze
from litft.methods.lora import LoRALinear
from litft.methods.lora_product import LoRAProduct, keep_mask
from litft.model.cpu_attention import BLOCK, PackedAttention
from litft.model.documents import Documents
from litft.model.fused import RMSNormalize, Rotate, SiluGate
from litft.model.gpt import GPT

LENGTHS = (9, 8, 8, 5, 4, 1, 1)  # groups with padding, without, and of one token
CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(50, 120))
def test_best_fit_decreasing_loses_nothing_and_overfills_nothing(lengths: list[int], room: int) -> None:
    lengths = sorted(lengths, reverse=True)
    bins = pack(lengths, room)
    assert sorted(place for each in bins for place in each) == list(range(len(lengths)))
    for each in bins:
        assert sum(lengths[place] for place in each) <= room
        assert each == sorted(each)
    # Any two bins together are more than one: nothing of the emptier would have opened it otherwise.
    sums = sorted(sum(lengths[place] for place in each) for each in bins)
    assert len(sums) < 2 or sums[0] + sums[1] > room


def test_best_fit_takes_the_fullest_bin_with_room() -> None:
    assert pack([7, 6, 3, 3, 1], 10) == [[0, 2], [1, 3, 4]]
    assert pack([7, 6, 4, 3], 10) == [[0, 3], [1, 2]]
    assert pack([12, 3], 10) == [[0], [1]]  # a row above the budget is alone


def alone_each(lengths: Sequence[int]) -> list[tuple[int, int]]:
    return [(length, -1) for length in lengths]


def trained(model: GPT, method: str) -> GPT:
    chosen = methods()[method]
    chosen.apply(model)
    freeze(model, chosen)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if chosen.is_trainable(name):
                parameter.add_(0.3 * torch.randn_like(parameter))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("method", ["full", "lora", "adapter"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_packed_row_is_each_of_its_documents_alone(family: str, method: str) -> None:
    model = GPT(CONFIGS[family])
    model.init_weights(seed=0)
    trained(model, method)
    ids = torch.randint(0, 50, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    weights = torch.randn(sum(LENGTHS), model.config.n_embd, generator=torch.Generator().manual_seed(3))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def of(hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        found = torch.autograd.grad((hidden[0] * weights).sum(), parameters, allow_unused=True)
        return hidden.detach(), [torch.zeros(()) if each is None else each for each in found]

    packed, packed_gradients = of(model(ids, documents=alone_each(LENGTHS)))
    alone, alone_gradients = of(torch.cat([model(part) for part in torch.split(ids, list(LENGTHS), dim=1)], dim=1))
    assert torch.allclose(packed, alone, rtol=1e-5, atol=1e-5)
    for one, other in zip(packed_gradients, alone_gradients, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-6
    with torch.no_grad():
        assert torch.allclose(model(ids, documents=alone_each(LENGTHS)), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", [family for family in CONFIGS if family != "phi3"])
def test_a_shared_beginning_computed_once_is_each_row_with_it_written_out(family: str, method: str) -> None:
    model = GPT(CONFIGS[family])
    model.init_weights(seed=0)
    trained(model, method)
    generator = torch.Generator().manual_seed(1)
    begin, other, *rest = torch.split(torch.randint(0, 50, (1, 33), generator=generator), [5, 3, 9, 8, 4, 3, 1], dim=1)
    documents = ((5, -1), (3, -1), (9, 0), (8, 0), (4, 0), (3, 1), (1, -1))
    rows = [torch.cat((first, each), dim=1) for first, each in zip((begin, begin, begin, other), rest, strict=False)]
    rows.append(rest[-1])
    weights = torch.randn(25, model.config.n_embd, generator=generator)  # of what follows the beginnings
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def gradients(hidden: Tensor) -> list[Tensor]:
        found = torch.autograd.grad((hidden[0] * weights).sum(), parameters, allow_unused=True)
        return [torch.zeros(()) if each is None else each for each in found]

    shared = model(torch.cat((begin, other, *rest), dim=1), documents=documents)[:, 8:]
    own = [model(row)[:, -each.shape[1] :] for row, each in zip(rows, rest, strict=True)]
    assert torch.allclose(shared, torch.cat(own, dim=1), rtol=1e-5, atol=1e-5)
    for one, two in zip(gradients(shared), gradients(torch.cat(own, dim=1)), strict=True):
        assert (one - two).norm() <= 1e-5 * two.norm() + 1e-6


@given(st.lists(st.lists(st.integers(0, 2), max_size=30), min_size=1, max_size=12))
def test_rows_are_divided_by_how_they_begin(rows: list[list[int]]) -> None:
    groups = shared_beginnings(rows)
    assert sorted(place for _, places in groups for place in places) == list(range(len(rows)))
    for shared, places in groups:
        assert shared == 0 or shared >= LEAST_TOKENS
        assert len({tuple(rows[place][:shared]) for place in places}) == 1
        assert places == sorted(places)


def test_two_templates_are_two_groups_although_they_begin_alike() -> None:
    one, two = [*range(16), *range(50, 70)], [*range(16), *range(80, 100)]
    rows = [[*one, 1], [*two, 1], [*one, 2], [*two, 2], [7, 7], [*two, 3]]
    assert sorted(shared_beginnings(rows)) == [(0, [4]), (36, [0, 2]), (36, [1, 3, 5])]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 40)), min_size=1, max_size=60), st.integers(60, 200))
def test_bins_hold_what_rows_begin_with_once(drawn: list[tuple[int, int]], room: int) -> None:
    frames = [[], [1] * 20, [1] * 10 + [2] * 20]
    starts = [[*frames[frame], 100 + place] for place, (frame, _) in enumerate(drawn)]
    lengths = [len(start) + more for start, (_, more) in zip(starts, drawn, strict=True)]
    bins = pack_alike(starts, lengths, room)
    assert sorted(place for chosen in bins for place in chosen) == list(range(len(drawn)))
    for chosen in bins:
        groups = shared_beginnings([starts[place] for place in chosen])
        left_out = sum(shared * (len(places) - 1) for shared, places in groups)
        assert len(chosen) == 1 or sum(lengths[place] for place in chosen) - left_out <= room


def test_a_shared_beginning_leaves_room_for_more_rows() -> None:
    starts = [[*range(30), 100 + place] for place in range(8)]
    lengths = [40] * 8
    assert [len(chosen) for chosen in pack(lengths, 120)] == [3, 3, 2]
    assert [len(chosen) for chosen in pack_alike(starts, lengths, 120)] == [8]  # 30 + 8 x 10 = 110


def test_documents_do_not_see_each_other() -> None:
    model = GPT(LLAMA)
    model.init_weights(seed=0)
    ids = torch.randint(0, 50, (1, sum(LENGTHS)))
    other = ids.clone()
    start = LENGTHS[0] + LENGTHS[1]
    other[0, start : start + LENGTHS[2]] = 7
    one, two = (model(each, documents=alone_each(LENGTHS))[0] for each in (ids, other))
    same = (one == two).all(dim=-1)
    assert not same[start + 1 : start + LENGTHS[2]].any()
    assert same[:start].all() and same[start + LENGTHS[2] :].all()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("lengths", [(3, 3), (2 * BLOCK + 5, BLOCK, BLOCK - 3, 40), LENGTHS])
def test_attention_and_its_gradient_are_torchs(groups: int, lengths: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    total = sum(lengths)
    q = (2 * torch.randn(1, 4, total, 8)).requires_grad_()
    k, v = (torch.randn(1, groups, total, 8, requires_grad=True) for _ in range(2))
    g = torch.randn(1, 4, total, 8)
    got = PackedAttention.apply(q, k, v, Documents(alone_each(lengths), CPU), 0.4)  # type: ignore[no-untyped-call]
    parts = zip(*(torch.split(x, list(lengths), dim=2) for x in (q, k, v)), strict=True)
    wanted = torch.cat(
        [F.scaled_dot_product_attention(*x, is_causal=True, scale=0.4, enable_gqa=True) for x in parts], dim=2
    )
    assert torch.allclose(got, wanted, atol=1e-5)
    pairs = zip(torch.autograd.grad(got, (q, k, v), g), torch.autograd.grad(wanted, (q, k, v), g), strict=True)
    for one, other in pairs:
        assert (one - other).norm() <= 2e-6 * other.norm()


def rms_norm(plus_one: bool, cast_first: bool) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    def plain(x: Tensor, weight: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), x.shape[-1:], eps=1e-5)
        return weight * normed.to(x.dtype) if cast_first else (normed * (weight.float() + plus_one)).to(x.dtype)

    return lambda x, weight: RMSNormalize.apply(x, 1e-5, weight, plus_one, cast_first), plain  # type: ignore[no-untyped-call]


FUSED: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "llama's norm": rms_norm(False, True),
    "olmo's norm": rms_norm(False, False),
    "gemma's norm": rms_norm(True, False),
    "silu gate": (SiluGate.apply, lambda gate, up: F.silu(gate) * up),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FUSED)
def test_a_fused_function_has_the_gradient_of_the_plain_one(name: str, dtype: torch.dtype) -> None:
    fused, plain = FUSED[name]
    torch.manual_seed(0)
    x = torch.randn(3, 7, 16).to(dtype).requires_grad_()
    other = (torch.randn(3, 7, 16) if name == "silu gate" else 1 + torch.randn(16)).to(dtype).requires_grad_()
    g = torch.randn(3, 7, 16).to(dtype)
    got, wanted = fused(x, other), plain(x, other)
    assert got.dtype == dtype
    rounding = 1e-6 if dtype == torch.float32 else 1e-2
    assert torch.allclose(got, wanted, rtol=rounding, atol=rounding)
    for one, two in zip(
        torch.autograd.grad(got, (x, other), g), torch.autograd.grad(wanted, (x, other), g), strict=True
    ):
        assert one.dtype == dtype
        assert (one - two).float().norm() <= rounding * two.float().norm()


def test_rotation_turns_its_gradient_back() -> None:
    torch.manual_seed(0)
    x, angles = torch.randn(1, 2, 5, 8, requires_grad=True), torch.randn(5, 3).repeat(1, 2)
    g = torch.randn(1, 2, 5, 8)
    a, b, rest = x[..., :3], x[..., 3:6], x[..., 6:]
    cos, sin = angles.cos()[:, :3], angles.sin()[:, :3]
    wanted = torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)
    got = Rotate.apply(x, angles.cos(), angles.sin())  # type: ignore[no-untyped-call]
    assert torch.allclose(got, wanted, atol=1e-6)
    assert torch.allclose(*(torch.autograd.grad(each, x, g)[0] for each in (got, wanted)), atol=1e-6)


@pytest.mark.parametrize("chance", [0.0, 0.3])
def test_a_lora_product_has_the_gradient_of_the_plain_one(chance: float) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 5, 6, requires_grad=True), torch.randn(9, 6), torch.randn(9)
    a, b = torch.randn(4, 6, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    slices = [(0, 2), (4, 7)]
    torch.manual_seed(1)
    got = LoRAProduct.apply(x, weight, bias, a, b, (slices, 2, 1.5, chance))  # type: ignore[no-untyped-call]
    torch.manual_seed(1)
    seen = x * keep_mask(x.flatten(0, 1), chance).view_as(x) / (1 - chance) if chance else x
    delta = torch.zeros(9, 6)
    delta[0:2], delta[4:7] = b[:2] @ a[:2], b[2:] @ a[2:]
    wanted = F.linear(x, weight, bias) + 1.5 * F.linear(seen, delta)
    g = torch.randn(2, 5, 9)
    assert torch.allclose(got, wanted, atol=1e-5)
    for one, two in zip(torch.autograd.grad(got, (x, a, b), g), torch.autograd.grad(wanted, (x, a, b), g), strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_a_base_that_a_recipe_trains_too_keeps_its_gradient() -> None:
    layer = LoRALinear(nn.Linear(6, 9), [(0, 9)], LoRAConfig(r=2, dropout=0.0))
    layer(torch.randn(4, 6)).sum().backward()
    assert layer.base.weight.grad is not None and layer.base.bias.grad is not None


def test_dropout_drops_its_share_and_repeats_with_the_seed() -> None:
    torch.manual_seed(0)
    kept = keep_mask(torch.empty(1000, 333), 0.05)
    assert kept.float().mean().item() == pytest.approx(0.95, abs=0.002)
    torch.manual_seed(0)
    assert torch.equal(kept, keep_mask(torch.empty(1000, 333), 0.05))
    assert not torch.equal(kept, keep_mask(torch.empty(1000, 333), 0.05))
