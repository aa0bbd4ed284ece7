"""Weights laid out for decoding on a CPU compute what they computed before."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny_configs import LLAMA
from tiny_engine import ids_of
from tiny_run import methods, variants
from torch import Tensor, nn

from litft.model.gpt import GPT
from litft.model.packed import (
    DIGITS,
    FEW_ROWS,
    Packed4bit,
    Packed8bit,
    PackedLinear,
    Scaled8bit,
    can_pack_4bit,
    can_pack_8bit,
    in_digits,
    prepare_for_decoding,
)
from litft.model.quantize import LAYERS, Linear4bit, Linear8bit, QuantizedLinear

ONEDNN = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
DTYPES = [torch.float32, torch.bfloat16]


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def linear(dtype: torch.dtype, size: tuple[int, int] = (24, 40), bias: bool = True) -> nn.Linear:
    layer = nn.Linear(size[1], size[0], bias=bias).to(dtype)
    layer.weight.data, layer.bias.data = drawn(*size, dtype=dtype), drawn(size[0], dtype=dtype)
    return layer


def quantized(form: str, size: tuple[int, int]) -> QuantizedLinear:
    base = linear(torch.bfloat16, size)
    layer = LAYERS[form](base)
    layer.quantize(base.weight.data)
    return layer


def swapped(layer: nn.Module) -> nn.Module:
    owner = nn.Module()
    owner.inner = layer
    prepare_for_decoding(owner)
    found = owner.inner
    assert isinstance(found, nn.Module)
    return found


@ONEDNN
@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_a_packed_layer_gives_the_same_product_and_keeps_its_weight_once(dtype: torch.dtype) -> None:
    base = linear(dtype)
    layer = swapped(base)
    assert isinstance(layer, PackedLinear)
    many, few = drawn(2, FEW_ROWS, 40, dtype=dtype), drawn(1, 1, 40, dtype=dtype)
    assert torch.equal(layer(many), F.linear(many, base.weight, base.bias))
    assert layer.packed is None  # a prompt does not wait for it
    for x in (few, many, drawn(7, 40, dtype=dtype)):
        torch.testing.assert_close(layer(x), base(x))
    assert layer.packed is not None and layer.weight.is_meta and layer.weight.shape == base.weight.shape
    assert torch.equal(layer.packed.to_dense(), base.weight)


@pytest.mark.parametrize("form", ["bnb.nf4", "bnb.nf4-dq", "bnb.fp4", "bnb.int8"])
@torch.no_grad()
def test_few_bits_are_multiplied_by_as_they_are(form: str) -> None:
    base = quantized(form, (64, 192))
    wanted = base.dequantize(torch.float32)
    layer = swapped(base)
    if isinstance(base, Linear4bit) and not can_pack_4bit(base):
        pytest.skip("needs a CPU with AVX-512 BF16")
    assert isinstance(layer, Packed4bit | Packed8bit | Scaled8bit)
    for rows in (1, 3, 40):
        x = drawn(1, rows, 192, dtype=torch.bfloat16)
        right = F.linear(x.float(), wanted) + base.bias.float()
        assert layer(x).dtype == torch.bfloat16 and layer(x).shape == right.shape
        assert (layer(x) - right).norm() < 0.01 * right.norm()


def drawn_8bit(size: tuple[int, int]) -> Linear8bit:
    layer = quantized("bnb.int8", size)
    assert isinstance(layer, Linear8bit)
    return layer


@pytest.mark.parametrize("dtype", DTYPES)
@torch.no_grad()
def test_a_product_with_8_bits_is_as_exact_as_rounding_its_result(dtype: torch.dtype) -> None:
    base = drawn_8bit((48, 1000))
    if not can_pack_8bit(base):
        pytest.skip("needs a CPU with VNNI")
    layer, weight = Packed8bit(base), base.weight.double() * base.scale.double()[:, None]
    layer.bias = None
    x = drawn(5, 1000, dtype=dtype)
    x[1, 7], x[2], x[3] = 1000, 0, x[3] * 1e-20  # one that stands out, none, and very small ones
    right = F.linear(x.double(), weight)
    rounded = (right.to(dtype) - right).norm(dim=1)
    lost = (layer(x) - right).norm(dim=1)
    assert (lost <= (1.1 if dtype == torch.bfloat16 else 50) * rounded).all()


@torch.no_grad()
def test_sums_of_8_bits_are_not_cut_off() -> None:
    base = drawn_8bit((32, 4096))
    if not can_pack_8bit(base):
        pytest.skip("needs a CPU with VNNI")
    base.weight.data.fill_(127)
    layer = Packed8bit(base)
    layer.bias, layer.scale = None, torch.ones(32)
    assert torch.equal(layer(torch.ones(1, 4096)), torch.full((1, 32), 127 * 4096.0))


@pytest.mark.parametrize("count", DIGITS.values())
def test_digits_are_the_numbers(count: int) -> None:
    x = drawn(6, 500)
    x[0, :3] = torch.tensor([9.0, -9.0, 0.0])
    digits, worths = in_digits(x, count)
    numbers = ((digits.double() - 128) * worths.double()[..., None]).sum(1)
    assert digits.shape == (6, count, 500)
    assert ((numbers - x).abs().amax(1) <= worths[:, 0]).all() and (worths[:, 0] < 256.0 ** (1 - count)).all()


@torch.no_grad()
def test_without_vnni_8_bits_are_scaled_behind_a_plain_product() -> None:
    base = drawn_8bit((64, 192))
    layer = Scaled8bit(base)
    for rows in (1, 40):
        x = drawn(rows, 192, dtype=torch.bfloat16)
        right = F.linear(x.float(), base.dequantize(torch.float32)) + layer.bias.float()
        assert (layer(x) - right).norm() < 0.01 * right.norm()


def test_layers_of_odd_sizes_stay_as_they_are() -> None:
    base = quantized("bnb.nf4", (24, 40))
    assert swapped(base) is base


@ONEDNN
@pytest.mark.parametrize("name", ["full", "lora", "dora", "adapter_v2"])
def test_greedy_answers_stay(name: str) -> None:
    model = GPT(LLAMA)
    model.init_weights(seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 6
    torch.manual_seed(0)
    if name != "full":
        (methods() | variants())[name].apply(model)
    model.eval().requires_grad_(False)
    before = ids_of(model, [3, 9, 4], 20)
    prepare_for_decoding(model)
    assert ids_of(model, [3, 9, 4], 20) == before
    packed = [module for module in model.modules() if isinstance(module, PackedLinear)]
    assert all(layer.packed is not None for layer in packed)
    assert bool(packed) == (name != "dora")  # which reads its weights
