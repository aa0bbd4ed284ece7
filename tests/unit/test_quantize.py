"""Quantised layers: their numbers, which layers there are, their memory, and what adapters learn beside them."""

from __future__ import annotations

import gc
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_run import CPU, SIZES, make_world, methods
from torch import Tensor, nn

from litft.checkpoint.tensors import load_weights
from litft.config.model import ModelConfig
from litft.config.run import FullRun
from litft.errors import ConfigError
from litft.methods.adapter import AdapterLinear
from litft.methods.base import freeze, trainable_state
from litft.methods.merged import changes_of
from litft.model.gpt import GPT
from litft.model.load import build_empty, load_model
from litft.model.quantize import (
    LAYERS,
    Linear4bit,
    QuantizedLinear,
    apply_quantize,
    check_quantize,
    load_bitsandbytes,
)

# Source: the published table of NormalFloat4, arXiv 2305.14314, appendix E.
NF4 = (-1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0)
NF4 += (0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1)
FORMS = list(LAYERS)
SHAPES = ((48, 64), (24, 16), (30, 176), (10, 7), (3, 200))  # 16 and 176: rows that are no whole blocks
ADAPTERS = [name for name in methods() if name != "full"]


def drawn(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def quantized(form: str, weight: Tensor, bias: Tensor | None = None) -> QuantizedLinear:
    base = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer = LAYERS[form](base)
    layer.quantize(weight)
    layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return layer


@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_is_the_papers_table_over_blocks_of_64_two_numbers_in_a_byte(shape: tuple[int, int]) -> None:
    weight = drawn(shape)
    layer = quantized("bnb.nf4", weight)
    blocks = F.pad(weight.flatten(), (0, -weight.numel() % 64)).view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    table = torch.tensor(NF4)
    number = ((blocks / scale)[..., None] - table).abs().argmin(-1)
    wanted = (table[number] * scale).flatten()[: weight.numel()].view(shape)
    torch.testing.assert_close(layer.dequantize(torch.float32), wanted, atol=1e-6, rtol=1e-6)
    halves = number.flatten()[: weight.numel() // 2 * 2].view(-1, 2)
    packed = layer.weight.flatten()[: len(halves)]
    assert torch.equal(packed, (halves[:, 0] * 16 + halves[:, 1]).to(torch.uint8))  # the first is the high half


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_the_numbers_are_those_of_bitsandbytes_own_layers(form: str, dtype: torch.dtype) -> None:
    weight, library = drawn((48, 64), torch.float16).to(dtype), load_bitsandbytes()
    if form == "bnb.int8":
        theirs = library.nn.Linear8bitLt(64, 48, bias=False, has_fp16_weights=False)
        theirs.weight = library.nn.Int8Params(weight.clone(), has_fp16_weights=False, requires_grad=False)
        theirs.to(CPU)
        wanted = theirs.weight.CB.float() * (theirs.weight.SCB / 127)[:, None]
    else:
        levels, _, nested = form.removeprefix("bnb.").partition("-")
        theirs = library.nn.Linear4bit(64, 48, bias=False, quant_type=levels, compress_statistics=nested == "dq")
        theirs.load_state_dict({"weight": weight})
        theirs.to(CPU)
        wanted = library.functional.dequantize_4bit(theirs.weight, theirs.weight.quant_state)
    layer = quantized(form, weight)
    assert torch.equal(layer.dequantize(dtype), wanted.to(dtype))
    error = (layer.dequantize(torch.float32) - weight).norm() / weight.norm()
    assert error < {"int8": 0.01, "nf4": 0.1, "fp4": 0.13}[form.removeprefix("bnb.").removesuffix("-dq")]


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_computes_with_its_dequantised_weight_forward_and_backward(form: str) -> None:
    weight, bias = drawn((24, 40)), drawn((1, 24))[0]
    layer = quantized(form, weight, bias)
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.05)):
        x, y = (drawn((6, 40), dtype).view(2, 3, 40).requires_grad_() for _ in range(2))
        found, wanted = layer(x), F.linear(y, layer.dequantize(dtype), bias.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance)
        found.sum().backward()
        wanted.sum().backward()
        torch.testing.assert_close(x.grad, y.grad, atol=tolerance, rtol=tolerance)
        with torch.no_grad():
            assert torch.equal(layer.eval()(x), found)  # nothing else is computed in an evaluation
        layer.train()
    if isinstance(layer, Linear4bit):  # as on a GPU
        torch.testing.assert_close(layer.fused_product(x), F.linear(x, layer.dequantize(dtype)), atol=0.05, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(drawn((2, 40))).dtype == torch.bfloat16


def test_a_row_of_zeros_stays_zero() -> None:
    weight = drawn((3, 64))
    weight[1] = 0
    for form in FORMS:
        assert torch.equal(quantized(form, weight).dequantize(torch.float32)[1], torch.zeros(64)), form


MIXTRAL = ModelConfig(
    name="m",
    family="mixtral",
    head_size=4,
    vocab_size=50,
    padded_vocab_size=64,
    n_expert=2,
    n_expert_per_token=1,
    **SIZES,
)


def test_the_blocks_linear_layers_are_quantised_and_nothing_else() -> None:
    model, plain = build_empty(MIXTRAL), build_empty(MIXTRAL)
    apply_quantize(model, "bnb.nf4")
    found = {path for path, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    linears = {path for path, module in plain.named_modules() if isinstance(module, nn.Linear)}
    routers = {f"transformer.h.{layer}.mlp.router" for layer in range(2)}
    assert linears - found == {"lm_head", *routers}
    assert found < linears
    assert model.weight_names() == plain.weight_names()


@pytest.mark.parametrize(
    ("form", "bits"), [("bnb.nf4", 4.5), ("bnb.fp4", 4.5), ("bnb.nf4-dq", 4.127), ("bnb.int8", 8.036)]
)
def test_memory_is_as_many_bits_a_weight_as_the_page_says(form: str, bits: float) -> None:
    """On the layers of a 134 M model's block."""
    shapes = ((2304, 768), (768, 768), (2048, 768), (2048, 768), (768, 2048))
    layers = [quantized(form, drawn(shape, torch.bfloat16)) for shape in shapes]
    held = sum(tensor.nbytes for layer in layers for tensor in (*layer.parameters(), *layer.buffers()))
    found = 8 * held / sum(rows * columns for rows, columns in shapes)
    assert found == pytest.approx(bits, abs=0.01)


def live_bytes() -> int:
    """Counts the memory of all tensors made since `gc.freeze`."""
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor) and thing.device.type == "cpu"]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def test_a_load_never_holds_more_than_one_weight_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir = make_world(tmp_path, n_layer=4, n_embd=64, head_size=16, intermediate_size=128) / "model"
    seen, quantize = [], Linear4bit.quantize

    def watched(layer: Linear4bit, weight: Tensor) -> None:
        seen.append(live_bytes())
        quantize(layer, weight)

    monkeypatch.setattr(Linear4bit, "quantize", watched)
    gc.collect()
    gc.freeze()
    try:
        model = load_model(model_dir, "32-true", CPU, "bnb.nf4")
        held = live_bytes()
    finally:
        gc.unfreeze()
    weights = load_weights(model_dir / "lit_model.safetensors")
    whole, largest = sum(t.nbytes for t in weights.values()), max(t.nbytes for n, t in weights.items() if ".h." in n)
    assert len(seen) == 5 * 4
    assert max(seen) <= held + largest
    assert held + largest < 0.6 * whole
    assert model.lm_head.weight.dtype == torch.float32


def test_what_is_quantised_is_the_file_whatever_the_precision(tmp_path: Path) -> None:
    model_dir = make_world(tmp_path) / "model"
    narrow, wide = (load_model(model_dir, precision, CPU, "bnb.nf4") for precision in ("bf16-true", "32-true"))
    path = "transformer.h.1.mlp.down"
    one, other = narrow.get_submodule(path), wide.get_submodule(path)
    assert isinstance(one, Linear4bit) and isinstance(other, Linear4bit)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.scale, other.scale)
    assert narrow.lm_head.weight.dtype == torch.bfloat16


def dequantized(model_dir: Path, form: str) -> GPT:
    """Gives a plain model with the weights that a quantised one computes with."""
    model, narrow = load_model(model_dir, "32-true", CPU), load_model(model_dir, "32-true", CPU, form)
    for path, module in narrow.named_modules():
        if isinstance(module, QuantizedLinear):
            model.get_submodule(path).weight = nn.Parameter(module.dequantize(torch.float32))
    return model


@pytest.mark.parametrize("form", ["bnb.nf4", "bnb.nf4-dq", "bnb.int8"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_gradients_are_those_of_a_plain_model_with_the_dequantised_weights(
    tmp_path: Path, name: str, form: str
) -> None:
    model_dir = make_world(tmp_path) / "model"
    ids = torch.randint(3, 60, (2, 9), generator=torch.Generator().manual_seed(0))
    found = []
    for model in (load_model(model_dir, "32-true", CPU, form), dequantized(model_dir, form)):
        method = methods()[name]
        torch.manual_seed(1)
        method.apply(model)
        freeze(model.eval(), method)
        for tensor in trainable_state(model, method).values():
            tensor += 0.1 * torch.randn_like(tensor)
        model.head(model(ids)).pow(2).sum().backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    quantised, plain = found
    assert quantised.keys() == plain.keys() == trainable_state(model, method).keys()
    for name, gradient in plain.items():
        assert (quantised[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_adapter_v2_scales_quantised_layers_too(tmp_path: Path) -> None:
    model = load_model(make_world(tmp_path) / "model", "32-true", CPU, "bnb.int8")
    methods()["adapter_v2"].apply(model)
    wrapped = [m.base for m in model.modules() if isinstance(m, AdapterLinear) and isinstance(m.base, QuantizedLinear)]
    assert len(wrapped) == 2 * 5


def test_what_lora_adds_has_the_shape_of_the_weight_that_was_quantised(tmp_path: Path) -> None:
    model = load_model(make_world(tmp_path) / "model", "32-true", CPU, "bnb.nf4")
    methods()["lora"].apply(model)
    shapes = {name: tuple(layer.delta().shape) for name, layer in changes_of(model).layers.items()}
    assert shapes["transformer.h.0.mlp.down.weight"] == (SIZES["n_embd"], SIZES["intermediate_size"])


def test_without_bitsandbytes_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"pip install 'litft\[bitsandbytes\]'"):
        check_quantize("bnb.fp4-dq")
    check_quantize("none")
    check_quantize("bnb.int8")  # needs none of it


def test_what_cannot_be_meant_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'quantize is "nf4"; it must be one of none, bnb\.nf4'):
        load_model(tmp_path, "32-true", CPU, "nf4")
    with pytest.raises(ConfigError, match="full trains every weight"):
        FullRun(checkpoint_dir=tmp_path, data_dir=tmp_path, quantize="bnb.int8")


def test_the_sizes_of_the_page_are_true() -> None:
    page = (Path(__file__).parents[2] / "tutorials" / "quantize.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", page, flags=re.MULTILINE)
    assert len(rows) == 4
    for name, *told in rows:
        model = build_empty(ModelConfig.from_name(name))
        blocks = model.get_submodule("transformer.h")
        inner = sum(module.weight.numel() for module in blocks.modules() if isinstance(module, nn.Linear))
        rest = sum(parameter.numel() for parameter in model.parameters()) - inner
        wanted = [(inner * bits / 8 + rest * 2) / 1e9 for bits in (16, 8, 4.5, 4.127)]
        assert [float(size) for size in told] == [pytest.approx(size, abs=0.06) for size in wanted], name
