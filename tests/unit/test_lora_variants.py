"""rsLoRA, DoRA and PiSSA: what their papers say, on any base, and runs from start to export."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_configs import CONFIGS, LLAMA, PYTHIA
from tiny_run import CPU, LORA, make_config, make_world, open_run, variants, with_step_limit
from torch import Tensor, nn

from litft import LLM
from litft.checkpoint.tensors import load_weights
from litft.cli import main
from litft.config.answer import MergeConfig
from litft.config.io import load_yaml
from litft.config.run import LoRAConfig
from litft.errors import ConfigError
from litft.export.merge import merge
from litft.methods.base import freeze, trainable_state
from litft.methods.dora import DoRALinear
from litft.methods.load import load_method
from litft.methods.lora import LoRA
from litft.methods.lora_linear import LoRALinear
from litft.methods.merged import load_changes
from litft.methods.pissa import Principal, largest_part
from litft.model.gpt import GPT
from litft.model.load import load_model
from litft.model.quantize import QuantizedLinear
from litft.train.export import hf_source
from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.state import Run

IDS = [[5, 9, 30, 11, 7, 40]]
DORA = LoRAConfig(r=2, alpha=6, dropout=0.0, targets=("q", "v"), dora=True)


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def shaken(layer: LoRALinear) -> LoRALinear:
    """Moves every trained number of a layer away from its start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "lora_" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return layer


def dora_layer(config: LoRAConfig = DORA, bias: bool = True) -> DoRALinear:
    """An adapted layer on rows 0 to 4 and 6 to 9 of 10, frozen."""
    torch.manual_seed(0)
    base = nn.Linear(8, 10, bias=bias).requires_grad_(False)
    return DoRALinear(base, [(0, 4), (6, 9)], config)


def papers_weight(layer: DoRALinear, weight: Tensor) -> Tensor:
    """m (W + 3 B A) / |W + 3 B A|, by the adapted rows; the norm is a number."""
    found = weight.clone()
    for (start, stop), a, b, m in (
        ((0, 4), layer.lora_A[:2], layer.lora_B[:4], layer.lora_magnitude[:4]),
        ((6, 9), layer.lora_A[2:], layer.lora_B[4:], layer.lora_magnitude[4:]),
    ):
        rows = weight[start:stop] + 3.0 * b @ a
        found[start:stop] = m[:, None] * rows / rows.norm(dim=1, keepdim=True).detach()
    return found


def test_rank_stabilised_scales_by_the_root_of_the_rank() -> None:
    assert LoRAConfig(r=16, alpha=8).scale == 0.5
    assert LoRAConfig(r=16, alpha=8, scaling="rank_stabilised").scale == 2.0
    layer = LoRALinear(nn.Linear(3, 5), [(0, 5)], LoRAConfig(r=4, alpha=6, dropout=0.0, scaling="rank_stabilised"))
    shaken(layer)
    x = torch.randn(7, 3)
    for frozen in (False, True):
        layer.base.requires_grad_(not frozen)
        assert torch.allclose(layer(x), layer.base(x) + 3.0 * x @ layer.lora_A.T @ layer.lora_B.T, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_dora_is_the_papers_formula_with_the_papers_gradient(bias: bool) -> None:
    layer = dora_layer(bias=bias)
    assert torch.equal(layer.lora_magnitude, layer.base.weight[[0, 1, 2, 3, 6, 7, 8]].norm(dim=1).square().sqrt())
    shaken(layer)
    x, upstream = torch.randn(5, 8, requires_grad=True), torch.randn(5, 10)
    wanted = F.linear(x, papers_weight(layer, layer.base.weight), layer.base.bias)
    inputs = [x, layer.lora_A, layer.lora_B, layer.lora_magnitude]
    of_wanted = torch.autograd.grad((wanted * upstream).sum(), inputs)
    for training in (True, False):
        found = layer.train(training)(x)
        assert torch.allclose(found, wanted, atol=1e-6)
        for one, other in zip(torch.autograd.grad((found * upstream).sum(), inputs), of_wanted, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_dora_drops_what_the_adapter_reads_and_nothing_else() -> None:
    layer = shaken(dora_layer(dataclasses.replace(DORA, dropout=0.5)))
    assert isinstance(layer, DoRALinear)
    x = torch.randn(4, 8)
    torch.manual_seed(3)
    plain = LoRALinear.forward(layer.train(), x) - layer.base.bias
    torch.manual_seed(3)
    assert torch.allclose(layer(x), plain * layer.factors(x.dtype) + layer.base.bias, atol=1e-6)


def test_norms_are_those_of_the_sum_and_follow_what_they_are_made_of() -> None:
    layer = dora_layer()
    x = torch.randn(4, 8)

    def check() -> None:
        with torch.no_grad():
            weight = papers_weight(layer, layer.base.weight)
            assert torch.allclose(layer(x), F.linear(x, weight, layer.base.bias), atol=1e-6)

    layer.eval()
    check()
    assert layer._norms(x.dtype) is layer._norms(x.dtype)  # not computed for every token
    with torch.no_grad():
        for change in (layer.lora_A, layer.lora_B, layer.lora_magnitude):
            change += 0.3 * torch.randn_like(change)
            check()
    layer.lora_B = nn.Parameter(torch.randn_like(layer.lora_B))
    check()
    layer.base.weight.requires_grad_()
    with torch.no_grad():  # a recipe may train the base
        layer.squares = None
        check()
        layer.base.weight += 1.0
        check()


def test_a_row_of_zeros_stays_one() -> None:
    layer = dora_layer(bias=False)
    layer.base.weight[1] = 0.0
    layer = DoRALinear(layer.base, layer.slices, DORA)
    found = layer(torch.randn(3, 8))
    assert not found[:, 1].any() and found.isfinite().all()
    shaken(layer)(torch.randn(3, 8)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (layer.lora_A, layer.lora_magnitude))


def test_dora_in_bfloat16_tells_magnitudes_apart_that_bfloat16_does_not() -> None:
    torch.manual_seed(0)
    base = nn.Linear(64, 64, bias=False).bfloat16().requires_grad_(False)
    layer = DoRALinear(base, [(0, 64)], dataclasses.replace(DORA, targets=("proj",)))
    assert layer.lora_magnitude.dtype == layer.lora_A.dtype == torch.float32
    x = torch.randn(200, 64).bfloat16()
    before = layer(x)
    assert torch.equal(before, base(x))
    layer.lora_magnitude.data *= 1.005  # the next bfloat16 number after 1 is 1.0078
    assert layer(x).dtype == torch.bfloat16
    assert (layer(x).float().norm() / before.float().norm()).item() == pytest.approx(1.005, abs=1e-3)


def test_norms_are_float32_under_autocast() -> None:
    layer = shaken(dora_layer(bias=False))
    assert isinstance(layer, DoRALinear)
    x = torch.randn(20, 8)
    exact = layer.factors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found, plain = layer(x), LoRALinear.forward(layer, x)
    assert found.dtype == plain.dtype == torch.bfloat16
    assert torch.equal(found, (plain * exact).bfloat16())


@pytest.mark.parametrize("family", CONFIGS)
def test_dora_merges_into_every_kind_of_model(family: str) -> None:
    model = GPT(CONFIGS[family])
    model.init_weights(seed=0)
    ids = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base = model.head(model.eval()(ids))
        LoRA(dataclasses.replace(LORA, dora=True)).apply(model)
        assert torch.allclose(model.head(model.eval()(ids)), base, atol=1e-6)
        layers = [module for module in model.modules() if isinstance(module, DoRALinear)]
        for layer in layers:
            shaken(layer)
        wanted = model.head(model(ids))
        assert (wanted - base).abs().max() > 1e-3
        for layer in layers:
            layer.base.weight.copy_(layer.merged(layer.base.weight))
            layer.lora_B.zero_()
            layer.lora_magnitude.copy_(layer.row_norms(torch.float32))
        assert torch.allclose(model.head(model(ids)), wanted, atol=1e-5)


def test_only_what_is_an_adapters_is_trained() -> None:
    for name, count in (("dora", 3), ("pissa_dora", 3), ("pissa", 2)):
        model, method = GPT(PYTHIA), variants()[name]
        method.apply(model)
        freeze(model, method)
        trained = {path.rpartition(".")[2] for path, tensor in model.named_parameters() if tensor.requires_grad}
        assert len(trained) == count and all(leaf.startswith("lora_") for leaf in trained)


# --- PiSSA ---


def test_the_largest_part_is_the_best_of_its_rank_and_the_fast_one_is_near() -> None:
    torch.manual_seed(0)
    sizes = torch.logspace(1, -1, 20)
    weight = torch.linalg.qr(torch.randn(30, 20))[0] * sizes @ torch.linalg.qr(torch.randn(20, 20))[0]
    a, b = largest_part(weight, 4)
    assert (weight - b @ a).norm() == pytest.approx(sizes[4:].norm().item(), rel=1e-4)
    assert torch.allclose(b.norm(dim=0), sizes[:4].sqrt(), rtol=1e-4) and torch.allclose(a.norm(dim=1), b.norm(dim=0))
    torch.manual_seed(1)
    fast = largest_part(weight, 4, fast=True)
    assert (weight - fast[1] @ fast[0]).norm() < 1.001 * sizes[4:].norm()
    torch.manual_seed(2)
    assert all(map(torch.equal, fast, largest_part(weight, 4, fast=True)))  # no chance that a resumed run would miss


def test_the_part_is_taken_out_of_each_slice_and_of_no_other_weight() -> None:
    torch.manual_seed(0)
    reader = Principal({"qkv": [(0, 4), (6, 9)]}, LoRAConfig(r=2, alpha=6, dropout=0.0, init="pissa"), CPU)
    weight = torch.randn(10, 8)
    rest = reader("qkv.weight", weight)
    a, b = reader.pairs["qkv"]
    assert torch.equal(rest[[4, 5, 9]], weight[[4, 5, 9]])
    assert torch.allclose(rest[:4] + 3 * b[:4] @ a[:2], weight[:4], atol=1e-6)
    assert torch.allclose(rest[6:9] + 3 * b[4:] @ a[2:], weight[6:9], atol=1e-6)
    assert torch.linalg.matrix_rank(rest[:4]) == 2
    for name in ("qkv.bias", "proj.weight"):
        assert reader(name, weight) is weight
    assert reader("qkv.weight", weight.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["pissa", "pissa_fast", "pissa_dora"])
@pytest.mark.parametrize("quantize", ["none", "bnb.nf4"])
def test_a_run_begins_as_its_base_which_is_the_rest(world: Path, name: str, quantize: str) -> None:
    run = open_run(make_config(world, quantize=quantize), variants()[name])
    layer = run.gpt.get_submodule("transformer.h.1.mlp.up")
    whole = load_weights(world / "model" / "lit_model.safetensors")["transformer.h.1.mlp.up.weight"]
    assert isinstance(layer, LoRALinear)
    base = layer.base
    kept = base.dequantize(torch.float32) if isinstance(base, QuantizedLinear) else base.weight
    largest = layer.scale * layer.lora_B @ layer.lora_A
    rounding = (kept + largest - whole).norm() / whole.norm()
    with torch.no_grad():
        found = run.gpt.eval().head(run.gpt(torch.tensor(IDS)))
    plain = LLM.load(world / "model", "32-true", quantize=quantize).logits(IDS)
    if quantize == "none":
        assert rounding < 1e-6
        assert torch.allclose(found, plain, atol=1e-5)
    else:  # the rest is smaller than the weight, and so is what rounding takes from it
        packed = load_model(world / "model", "32-true", CPU, quantize).get_submodule("transformer.h.1.mlp.up")
        assert isinstance(packed, QuantizedLinear)
        assert 0 < rounding < 0.9 * (packed.dequantize(torch.float32) - whole).norm() / whole.norm()


# --- runs ---


@pytest.mark.parametrize("name", variants())
def test_a_result_is_its_run_on_the_base_as_it_was_and_merges(world: Path, name: str) -> None:
    run = open_run(make_config(world), variants()[name])
    finish(run, fit(with_step_limit(run, 3), token_loss))
    final = world / "out" / "final"
    with torch.no_grad():
        trained = run.gpt.eval().head(run.gpt(torch.tensor(IDS)))
    assert (trained - LLM.load(world / "model", "32-true").logits(IDS)).abs().max() > 1e-3
    assert torch.allclose(LLM.load(final, "32-true").logits(IDS), trained, atol=1e-5)
    merged = merge(MergeConfig(checkpoint_dir=final, certificate="full"))
    assert torch.allclose(LLM.load(merged, "32-true").logits(IDS), trained, atol=1e-5)
    settings = load_yaml(final / "method.yaml")["settings"]
    assert (settings["init"], settings["r"]) == ("random", 8 if "pissa" in name else 4)


@pytest.mark.parametrize("name", ["pissa", "pissa_dora"])
def test_a_quantised_result_of_pissa_has_the_base_that_it_was_trained_beside(world: Path, name: str) -> None:
    run = open_run(make_config(world, quantize="bnb.nf4"), variants()[name])
    finish(run, fit(with_step_limit(run, 3), token_loss))
    with torch.no_grad():
        trained = run.gpt.eval().head(run.gpt(torch.tensor(IDS)))
    final = world / "out" / "final"
    off = (LLM.load(final, "32-true", quantize="bnb.nf4").logits(IDS) - trained).norm() / trained.norm()
    assert off < 1e-5 < (LLM.load(final, "32-true").logits(IDS) - trained).norm() / trained.norm()


@pytest.mark.parametrize(
    ("name", "quantize", "precision"),
    [
        ("dora", "none", "32-true"),
        ("dora", "bnb.nf4", "bf16-mixed"),
        ("pissa", "bnb.nf4", "bf16-true"),
        ("pissa_fast", "none", "32-true"),
    ],
)
def test_four_steps_and_two_resumed_are_six_bit_for_bit(world: Path, name: str, quantize: str, precision: str) -> None:
    def start(folder: str, resume: str | None = None) -> Run:
        settings = {"precision": precision, "quantize": quantize, "train__save_interval": 4, "eval__interval": 3}
        return open_run(make_config(world, out_dir=world / folder, resume=resume, **settings), variants()[name])

    straight = start("straight")
    begun = {key: tensor.clone() for key, tensor in trainable_state(straight.gpt, straight.method).items()}
    finish(straight, fit(with_step_limit(straight, 6), token_loss))
    fit(with_step_limit(start("cut"), 5), token_loss)  # killed a step after the checkpoint
    resumed = start("cut", resume="auto")
    finish(resumed, fit(with_step_limit(resumed, 6), token_loss))
    for key, tensor in trainable_state(straight.gpt, straight.method).items():
        assert torch.equal(tensor, resumed.gpt.get_parameter(key)) and not torch.equal(tensor, begun[key]), key
    ends = [load_weights(world / folder / "final" / "lora.safetensors") for folder in ("straight", "cut")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in {**ends[0], **ends[1]})


def test_dora_on_a_quantised_base_has_the_norms_of_that_base(world: Path) -> None:
    run = open_run(make_config(world, quantize="bnb.nf4"), variants()["dora"])
    layer = run.gpt.get_submodule("transformer.h.0.attn.proj")
    assert isinstance(layer, DoRALinear) and isinstance(layer.base, QuantizedLinear)
    packed = layer.base.dequantize(torch.float32)
    assert torch.allclose(layer.lora_magnitude, packed.norm(dim=1), atol=1e-6)
    shaken(layer)
    rows = packed + layer.scale * layer.lora_B @ layer.lora_A
    wanted = rows * (layer.lora_magnitude / rows.norm(dim=1))[:, None]
    x = torch.randn(3, 16)
    assert torch.allclose(layer(x), x @ wanted.T, atol=1e-5)


def test_lora_plus_rates_the_matrices_b_alone(world: Path) -> None:
    run = open_run(make_config(world, optim__lora_plus_ratio=8.0), variants()["dora"])
    names = {parameter: name for name, parameter in run.parts.named_parameters()}
    for group in run.optimizer.optimizer.param_groups:
        leaves = {names[parameter].rpartition(".")[2] for parameter in group["params"]}
        assert leaves == {"lora_B"} if group["rate_ratio"] == 8.0 else "lora_B" not in leaves
        assert group["weight_decay"] == 0 or "lora_magnitude" not in leaves


@pytest.mark.parametrize("name", ["pissa", "dora"])
def test_an_export_during_a_run_has_the_weights_of_its_result(world: Path, name: str) -> None:
    run = open_run(make_config(world, quantize="bnb.int8"), variants()[name])
    finish(run, fit(with_step_limit(run, 2), token_loss))
    base_dir, method = load_method(world / "out" / "final")
    path = "transformer.h.1.mlp.up.weight"
    wanted = load_changes(world / "out" / "final", run.inputs.model_config, method).layers[path]
    found = hf_source(run, trainable_state(run.gpt, run.method)).read[path]()
    assert torch.allclose(found, wanted.merged(load_weights(base_dir / "lit_model.safetensors")[path]), atol=1e-6)


# --- the command line ---


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--lora.init", "pissa"], "lora.init is pissa and lora.dropout 0.05, which would drop the largest part"),
        (["--lora.init", "pissa", "--lora.dropout", "0", "--lora.r", "9"], "no more than 8 rows or columns to take"),
        (["--lora.scaling", "rank"], "lora.scaling"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    world: Path, flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--checkpoint_dir", str(world / "model"), "--data_dir", str(world / "data")]
    assert main(["finetune", "lora", *folders, "--out_dir", str(world / "o"), *flags]) == 2
    assert sentence in capsys.readouterr().err
    assert not (world / "o").exists()


def test_a_plan_counts_what_dora_trains(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint_dir", str(world / "model"), "--data_dir", str(world / "data"), "--precision", "32-true"]
    assert main(["plan", "lora", *words, "--lora.dora", "true"]) == 0
    # q and v: A (2 x 8, 16), B (24, 8), and a magnitude for each of the 24 rows; in two blocks
    assert f"{2 * (16 * 16 + 24 * 8 + 24):,} parameters" in capsys.readouterr().err


def test_a_rank_that_a_weight_does_not_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a weight in transformer.h.0.attn.qkv has no more than 8 rows"):
        LoRA(LoRAConfig(r=9, dropout=0.0, init="pissa")).apply(GPT(LLAMA))
