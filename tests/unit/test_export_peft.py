"""Adapters in PEFT's form: every family and target gives litft's logits in peft; what has no such form is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity_models import FAMILIES
from safetensors.torch import load_file, save_file
from tiny_export import CPU, EVERY_TARGET, add_tokenizer, write_base, write_final

from litft.checkpoint.files import load_model_config
from litft.config.export import ExportPeftConfig
from litft.config.run import AdapterConfig, LoRAConfig
from litft.errors import CheckpointError, ConfigError
from litft.export.peft import base_name, export_peft, suffixes_of
from litft.export.peft_proof import certify_peft
from litft.methods.adapter import Adapter, AdapterV2
from litft.methods.load import load_finetuned
from litft.methods.lora import LoRA
from litft.methods.new_tokens import WithNewTokens
from litft.text.new_tokens import NewTokens

peft = pytest.importorskip("peft")
# peft 0.21 asks transformers 5.23 by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

R, ALPHA = 3, 5
IDS = torch.randint(3, 96, (2, 24), generator=torch.Generator().manual_seed(2))
# One variation of each layout of weights: separate, fused by groups, fused in order, gate and up in one, experts.
LAYOUTS = {
    "llama": "gqa",
    "mistral": "short window",
    "mixtral": "2 of 4",
    "falcon": "40b",
    "pythia": "parallel",
    "stablelm": "12b",
    "phi": "2",
    "phi3": "window",
    "gemma": "2b",
    "gemma2": "9b",
    "gemma3": "1b",
    "qwen2": "7b",
    "qwen3": "dense",
    "qwen3_moe": "normalized",
    "olmo": "clipped",
    "olmo2": "7b",
    "mpt": "7b",
    "opt": "relu",
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module", params=LAYOUTS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("m") / "base", request.param, LAYOUTS[request.param])


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("m") / "base", "llama", "gqa")


def lora(*targets: str) -> LoRA:
    return LoRA(LoRAConfig(r=R, alpha=ALPHA, dropout=0.1, targets=targets))


def possible(base: Path, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Leaves out the head that is tied and the MLP that is experts."""
    config = load_model_config(base)
    left_out = {"head"} if config.tie_embeddings else set()
    left_out |= {"mlp"} if config.n_expert else set()
    return tuple(target for target in targets if target not in left_out)


def export(final: Path, out_dir: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """Exports and gives adapter_config.json and what was reported."""
    said: list[str] = []
    export_peft(ExportPeftConfig(checkpoint_dir=final, out_dir=out_dir, **options), said.append)
    return json.loads((out_dir / "adapter_config.json").read_text()), said


def their_logits(base: Path, folder: Path) -> torch.Tensor:
    """What peft computes, loaded as its users do."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        logits: torch.Tensor = peft.PeftModel.from_pretrained(model, folder).eval()(IDS).logits
    return logits


def our_logits(final: Path) -> torch.Tensor:
    model = load_finetuned(final, "32-true", CPU)
    with torch.no_grad():
        return model.head(model(IDS))


def test_every_family_is_here() -> None:
    assert LAYOUTS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("targets", [("q", "v"), ("k",), EVERY_TARGET], ids=",".join)
def test_peft_computes_what_litft_computes(base: Path, targets: tuple[str, ...], tmp_path: Path) -> None:
    final = write_final(tmp_path / "final", base, lora(*possible(base, targets)))
    export(final, tmp_path / "peft", certificate="tensors")
    wanted, found = our_logits(final), their_logits(base, tmp_path / "peft")
    assert (found - wanted).abs().max() < 1e-5 * max(1.0, wanted.abs().max().item())
    plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(IDS).logits
    assert (plain - wanted).abs().max() > 1e-3


def test_separate_projections_keep_their_own_a_and_rank(llama: Path, tmp_path: Path) -> None:
    final = write_final(tmp_path / "final", llama, lora("q", "v"))
    config, _ = export(final, tmp_path / "peft", certificate="tensors")
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (R, ALPHA, ["q_proj", "v_proj"])
    assert config["rank_pattern"] == config["alpha_pattern"] == {}
    ours, theirs = load_file(final / "lora.safetensors"), load_file(tmp_path / "peft" / "adapter_model.safetensors")
    a, b = (ours[f"transformer.h.1.attn.qkv.lora_{part}"] for part in "AB")
    module = "base_model.model.model.layers.1.self_attn"
    assert torch.equal(theirs[f"{module}.v_proj.lora_A.weight"], a[R:])
    assert torch.equal(theirs[f"{module}.q_proj.lora_B.weight"], b[:32])
    assert len(theirs) == 3 * 2 * 2


def test_a_fused_projection_has_the_stacked_rank_and_the_same_scale(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "pythia", "parallel")
    final = write_final(tmp_path / "final", base, lora("q", "v", "proj", "head"))
    config, _ = export(final, tmp_path / "peft", certificate="tensors")
    assert (config["r"], config["lora_alpha"]) == (2 * R, 2 * ALPHA)
    assert config["target_modules"] == ["dense", "lm_head", "query_key_value"]
    assert config["rank_pattern"] == {"dense": R, "lm_head": R}
    assert config["alpha_pattern"] == {"dense": ALPHA, "lm_head": ALPHA}
    b = load_file(tmp_path / "peft" / "adapter_model.safetensors")[
        "base_model.model.gpt_neox.layers.0.attention.query_key_value.lora_B.weight"
    ]
    heads = b.view(4, 3, 8, 2 * R)  # head by head: q, k, v
    assert not heads[:, 1].any() and not heads[:, 0, :, R:].any() and not heads[:, 2, :, :R].any()
    assert heads[:, 0, :, :R].all() and heads[:, 2, :, R:].all()


def test_the_config_holds_only_what_old_releases_know(llama: Path, tmp_path: Path) -> None:
    final = write_final(tmp_path / "final", llama, lora("q"))
    config, _ = export(final, tmp_path / "peft", certificate="tensors", base_model_name_or_path="acme/tiny")
    classic = {
        "peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "lora_dropout", "target_modules",
        "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "modules_to_save", "use_rslora", "use_dora",
        "rank_pattern", "alpha_pattern",
    }  # fmt: skip
    assert config.keys() == classic
    assert config["base_model_name_or_path"] == "acme/tiny"
    assert config["lora_dropout"] == 0.1 and config["peft_type"] == "LORA"


def test_the_folder_has_tokenizer_and_template_but_is_no_model(llama: Path, tmp_path: Path) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    final = write_final(tmp_path / "final", add_tokenizer(base), lora("q"))
    _, said = export(final, tmp_path / "peft", certificate="full")
    names = {path.name for path in (tmp_path / "peft").iterdir()}
    assert names == {
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "export_report.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert "peft " in said[0] and "agree at" in said[0]
    proof = json.loads((tmp_path / "peft" / "export_report.json").read_text())["certificate"]
    assert proof["chat"] == {"conversations": 4, "equal_ids": 4}
    assert proof["logits"]["relative_difference"] < 1e-5 and proof["libraries"].keys() == {"transformers", "peft"}


def test_a_base_of_litfts_own_weights_is_proved_too(llama: Path, tmp_path: Path) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    (base / "model.safetensors").unlink()
    final = write_final(tmp_path / "final", base, lora("q", "v"))
    _, said = export(final, tmp_path / "out" / "peft", certificate="full")
    assert "agree at" in said[0] and f"litft export hf --checkpoint_dir {base}" in said[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["peft"]


def test_a_base_is_called_by_its_place_under_checkpoints() -> None:
    folder = Path("checkpoints/acme/tiny")
    folder.mkdir(parents=True)
    assert base_name(folder.resolve()) == "acme/tiny"
    assert base_name(Path("elsewhere/tiny")) == "elsewhere/tiny"


def test_an_end_that_an_unadapted_module_shares_is_made_longer() -> None:
    modules = ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.0.mlp.c_fc"]
    assert suffixes_of(modules[:1], modules) == {"h.0.attn.c_proj": "attn.c_proj"}
    assert suffixes_of(modules[:2], modules) == dict.fromkeys(modules[:2], "c_proj")


# --- refusals ---


def refused(final: Path, message: str, **options: Any) -> None:
    """The export must fail with this sentence and leave nothing."""
    out_dir = final.parent / "out"
    with pytest.raises(CheckpointError, match=message):
        export(final, out_dir, **options)
    assert not out_dir.exists() and not list(final.parent.glob(".out*"))


def test_adapters_that_change_nothing(llama: Path, tmp_path: Path) -> None:
    final = write_final(tmp_path / "final", llama, lora("q"))
    tensors = load_file(final / "lora.safetensors")
    save_file({name: tensor * (".lora_A" in name) for name, tensor in tensors.items()}, final / "lora.safetensors")
    refused(final, "change nothing: all of B is zero")


def test_another_base(llama: Path, tmp_path: Path) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    final = write_final(tmp_path / "final", base, lora("q"))
    weights = (base / "lit_model.safetensors").read_bytes()
    (base / "lit_model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    (base / "lit_model.safetensors.sha256").unlink(missing_ok=True)  # the change is meant
    refused(final, "is not the base that .* was trained on: its sha256 differs")


def test_experts_have_no_modules_of_their_own(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "mixtral", "2 of 4")
    final = write_final(tmp_path / "final", base, lora("q", "mlp"))
    refused(final, "mixture of experts.*use `litft merge`")


def test_new_tokens_are_no_part_of_an_adapter_folder(llama: Path, tmp_path: Path) -> None:
    new = NewTokens(first_id=96, texts=("<a>",), pieces=((1, 2),))
    refused(write_final(tmp_path / "final", llama, WithNewTokens(lora("q"), new)), "has new tokens")


def test_the_text_half_of_a_larger_model(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "gemma3", "1b")
    final = write_final(tmp_path / "final", base, lora("q"))
    config = json.loads((base / "config.json").read_text())
    config = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": config}
    (base / "config.json").write_text(json.dumps(config))
    refused(final, "trains the text half only")


@pytest.mark.parametrize("certificate", ["tensors", "full"])
def test_what_was_written_otherwise_is_found(llama: Path, tmp_path: Path, certificate: Any) -> None:
    final = write_final(tmp_path / "final", llama, lora("q"))
    export(final, tmp_path / "peft", certificate="tensors")
    path = tmp_path / "peft" / "adapter_model.safetensors"
    tensors = load_file(path)
    wanted = {name: tensor.clone() for name, tensor in tensors.items()}
    name = next(iter(sorted(tensors)))
    tensors[name][0, 0] += 1
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"differs from what was to be written: {name}"):
        certify_peft(final, llama, wanted, tmp_path / "peft", certificate)
    if certificate == "full":  # the same wrong numbers as what was to be written: only another program notices
        with pytest.raises(CheckpointError, match=r"The export differs: peft does not compute .* KL"):
            certify_peft(final, llama, tensors, tmp_path / "peft", certificate)


def test_a_place_that_is_taken(llama: Path, tmp_path: Path) -> None:
    final = write_final(tmp_path / "final", llama, lora("q"))
    export(final, tmp_path / "peft", certificate="tensors")
    with pytest.raises(ConfigError, match="is not empty"):
        export(final, tmp_path / "peft")
    export(final, tmp_path / "peft", certificate="tensors", overwrite=True)
    with pytest.raises(ConfigError, match="which this command reads"):
        export(final, final, overwrite=True)


# --- LLaMA-Adapter ---


@pytest.mark.parametrize(("family", "variation"), [("llama", "gqa"), ("mistral", "short window"), ("llama", "mha")])
def test_an_adapter_with_one_gate_a_layer_is_pefts_adaption_prompt(family: str, variation: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", family, variation)
    final = write_final(tmp_path / "final", base, Adapter(AdapterConfig(prompt_length=4, start_layer=1)))
    path = final / "adapter.safetensors"
    refused(final, r"gates of block 1 .* differ from head to head .* PEFT's adaption prompt has one a layer")
    tensors = load_file(path)
    gates = {name: tensor[:1].expand(4) + 0.5 for name, tensor in tensors.items() if name.endswith("gate")}
    save_file({**tensors, **{name: gate.contiguous() for name, gate in gates.items()}}, path)
    config, said = export(final, tmp_path / "peft", certificate="full")
    assert (config["peft_type"], config["adapter_len"], config["adapter_layers"]) == ("ADAPTION_PROMPT", 4, 2)
    assert "agree at" in said[0]
    wanted = our_logits(final)
    assert (their_logits(base, tmp_path / "peft") - wanted).abs().max() < 1e-5 * wanted.abs().max()
    save_file({name: tensor * ("prompt" in name) for name, tensor in tensors.items()}, path)
    refused(final, "every gate is zero")


@pytest.mark.parametrize(
    ("family", "variation", "method", "message"),
    [
        ("llama", "gqa", AdapterV2, "run of adapter_v2, which scales and shifts every linear layer; PEFT has nothing"),
        ("pythia", "parallel", Adapter, "model of type gpt_neox; PEFT knows LLaMA-Adapter for llama and mistral only"),
        ("llama", "biases", Adapter, "computes something else on .*whose output layer has a bias"),
        ("llama", "wide heads", Adapter, "heads are not as wide as the model"),
    ],
)
def test_adapters_without_their_like_in_peft(
    family: str, variation: str, method: type[Adapter], message: str, tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", family, variation)
    config = dataclasses.replace(AdapterConfig(), start_layer=0, prompt_length=2)
    refused(write_final(tmp_path / "final", base, method(config)), message)
