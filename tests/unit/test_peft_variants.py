"""rsLoRA, DoRA and PiSSA beside peft: the same logits and gradients, and folders that it loads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from test_export_peft import IDS, LAYOUTS, export, our_logits, possible, their_logits
from tiny_export import CPU, EVERY_TARGET, write_base, write_final
from torch import Tensor

from litft.checkpoint.files import load_model_config
from litft.config.run import LoRAConfig
from litft.methods.base import freeze, trainable_state
from litft.methods.lora import LoRA
from litft.methods.lora_linear import LoRALinear
from litft.model.gpt import GPT
from litft.model.load import load_model

peft = pytest.importorskip("peft")
# peft 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

CONFIG = LoRAConfig(r=3, alpha=5, dropout=0.0, targets=("q", "k", "v", "proj", "mlp"))
THEIRS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PLACES = {
    "attn.proj": "self_attn.o_proj", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("m") / "base", "llama", "gqa")


def theirs_of(base: Path, **settings: Any) -> Any:
    """A base as peft adapts it, everything it trains moved by chance."""
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(r=3, lora_alpha=5, lora_dropout=0.0, target_modules=THEIRS, **settings)
    return peft.get_peft_model(model, config)


def shaken(model: Any, names: tuple[str, ...] = ("lora_",)) -> Any:
    """Moves what is trained."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in names):
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def ours_of(base: Path, config: LoRAConfig) -> GPT:
    """The same base as litft adapts it."""
    method = LoRA(config)
    model = load_model(base, "32-true", CPU, reader=method.reader(load_model_config(base), CPU))
    method.apply(model)
    freeze(model, method)
    return model.train()


def pick(found: dict[str, Tensor], sizes: tuple[int, ...], layers: int) -> dict[str, Tensor]:
    """Gives peft's tensors by our names, and laid out as ours."""
    picked: dict[str, Tensor] = {}
    leaves = {"lora_A": "lora_A.default.weight", "lora_B": "lora_B.default.weight"}
    leaves["lora_magnitude"] = "lora_magnitude_vector.default.weight"
    for layer in range(layers):
        modules = {ours: [theirs] for ours, theirs in PLACES.items()}
        modules["attn.qkv"] = [f"self_attn.{part}_proj" for part in "qkv"]
        for ours, theirs in modules.items():
            for leaf, name in leaves.items():
                keys = [f"base_model.model.model.layers.{layer}.{module}.{name}" for module in theirs]
                if keys[0] in found:
                    picked[f"transformer.h.{layer}.{ours}.{leaf}"] = torch.cat([found[key] for key in keys])
    return picked


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"dora": True}, {"use_dora": True}),
        ({"scaling": "rank_stabilised"}, {"use_rslora": True}),
        ({"scaling": "rank_stabilised", "dora": True}, {"use_rslora": True, "use_dora": True}),
        ({"init": "pissa"}, {"init_lora_weights": "pissa"}),
        ({"init": "pissa", "dora": True}, {"init_lora_weights": "pissa", "use_dora": True}),
    ],
    ids=lambda value: "-".join(value),
)
def test_logits_and_gradients_are_pefts(llama: Path, changes: dict[str, Any], settings: dict[str, Any]) -> None:
    theirs = shaken(theirs_of(llama, **settings)).train()
    ours = ours_of(llama, dataclasses.replace(CONFIG, **changes))
    state = pick(dict(theirs.named_parameters()), ours.config.qkv_sizes, ours.config.n_layer)
    trained = trainable_state(ours, LoRA(CONFIG))
    assert state.keys() == trained.keys()
    for name, tensor in trained.items():
        tensor.copy_(state[name].detach())
    wanted, found = theirs(IDS).logits, ours.head(ours(IDS))
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    upstream = torch.randn_like(wanted)
    (wanted * upstream).sum().backward()
    (found * upstream).sum().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    for name, gradient in pick(gradients, ours.config.qkv_sizes, ours.config.n_layer).items():
        mine = ours.get_parameter(name).grad
        assert mine is not None and (mine - gradient).norm() < 1e-4 * gradient.norm(), name


def test_pissa_begins_as_pefts_does(llama: Path) -> None:
    theirs = dict(theirs_of(llama, init_lora_weights="pissa").named_parameters())
    ours = ours_of(llama, dataclasses.replace(CONFIG, init="pissa"))
    found = trainable_state(ours, LoRA(CONFIG))
    for name, wanted in pick(theirs, ours.config.qkv_sizes, ours.config.n_layer).items():
        assert torch.allclose(found[name].norm(), wanted.norm(), rtol=1e-4), name  # the signs of a column are free
    residual = ours.get_parameter("transformer.h.1.mlp.up.base.weight")
    assert torch.allclose(residual, theirs["base_model.model.model.layers.1.mlp.up_proj.base_layer.weight"], atol=1e-5)


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights:UserWarning")
def test_pissas_difference_is_what_peft_makes_of_it(llama: Path, tmp_path: Path) -> None:
    """`path_initial_model_for_weight_conversion` of peft: A over A0, and B beside -B0."""
    theirs = theirs_of(llama, init_lora_weights="pissa")
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(tmp_path / "start")
    theirs.peft_config["default"].init_lora_weights = "pissa"
    shaken(theirs).save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=tmp_path / "start")
    wanted = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    ours = ours_of(llama, dataclasses.replace(CONFIG, init="pissa"))
    begun = load_file(tmp_path / "start" / "adapter_model.safetensors")
    layer = ours.get_submodule("transformer.h.1.attn.qkv")
    assert isinstance(layer, LoRALinear)
    module = "base_model.model.model.layers.1.self_attn"
    parts = dict(theirs.named_parameters())
    with torch.no_grad():
        for leaf, tensor in (("A", layer.lora_A), ("B", layer.lora_B)):
            tensor.copy_(torch.cat([parts[f"{module}.{part}_proj.lora_{leaf}.default.weight"] for part in "qkv"]))
        layer.first_a = torch.cat([begun[f"{module}.{part}_proj.lora_A.weight"] for part in "qkv"])
        layer.first_b = torch.cat([begun[f"{module}.{part}_proj.lora_B.weight"] for part in "qkv"])
    for part, (_, a, b) in zip("qkv", layer.parts(), strict=True):
        assert torch.equal(a, wanted[f"{module}.{part}_proj.lora_A.weight"])
        assert torch.equal(b, wanted[f"{module}.{part}_proj.lora_B.weight"])


def moved(base: Path, folder: Path, targets: tuple[str, ...], **changes: Any) -> Path:
    """A result whose every number was moved by chance."""
    config = LoRAConfig(r=3, alpha=5, dropout=0.1, targets=possible(base, targets), **changes)
    return write_final(folder, base, LoRA(config))


@pytest.mark.parametrize(
    ("family", "targets"),
    [
        *((family, EVERY_TARGET) for family in LAYOUTS),
        *((family, ("q", "v")) for family in ("llama", "falcon", "phi3")),
    ],
)
def test_peft_computes_dora_as_litft_does(family: str, targets: tuple[str, ...], tmp_path: Path) -> None:
    """Where q, k and v are one module of transformers, its rows without an adapter keep the norms that they have."""
    base = write_base(tmp_path / "base", family, LAYOUTS[family])
    final = moved(base, tmp_path / "final", targets, dora=True)
    config, _ = export(final, tmp_path / "peft", certificate="tensors")
    assert config["use_dora"] is True
    wanted, found = our_logits(final), their_logits(base, tmp_path / "peft")
    assert (found - wanted).abs().max() < 1e-5 * max(1.0, wanted.abs().max().item())


@pytest.mark.parametrize("family", ["llama", "pythia", "phi3"])
def test_peft_scales_rank_stabilised_adapters_as_litft_does(family: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", family, LAYOUTS[family])
    final = moved(base, tmp_path / "final", ("q", "v", "proj"), scaling="rank_stabilised")
    config, said = export(final, tmp_path / "peft", certificate="full")
    assert config["use_rslora"] is True and "agree at" in said[0]
    assert (config["lora_alpha"] == 5) == (config["r"] == 3) == (family == "llama")
    wanted, found = our_logits(final), their_logits(base, tmp_path / "peft")
    assert (found - wanted).abs().max() < 1e-5 * max(1.0, wanted.abs().max().item())
