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
from litft.model.packed import FEW_ROWS, Packed4bit, Packed8bit, PackedLinear, can_pack_4bit, prepare_for_decoding
from litft.model.quantize import LAYERS, Linear4bit, QuantizedLinear

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
    assert isinstance(layer, Packed8bit if form == "bnb.int8" else Packed4bit)
    for rows in (1, 3, 40):
        x = drawn(1, rows, 192, dtype=torch.bfloat16)
        right = F.linear(x.float(), wanted) + base.bias.float()
        assert layer(x).dtype == torch.bfloat16 and layer(x).shape == right.shape
        assert (layer(x) - right).norm() < 0.01 * right.norm()


@pytest.mark.parametrize("form", ["bnb.nf4", "bnb.int8"])
def test_layers_of_odd_sizes_stay_as_they_are(form: str) -> None:
    base = quantized(form, (24, 40))
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
