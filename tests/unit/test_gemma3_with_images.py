"""Gemma 3 models that also see images are read for their text half, whichever names their files have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from litft.checkpoint.convert import from_hf
from litft.config.convert import FromHfConfig, ToHfConfig
from litft.export.hf import to_hf
from litft.families import FAMILIES, model_config_from_hf
from litft.families.gemma3 import text_config
from litft.model.load import load_model

# How the text tensors begin on disk, in the repositories and as transformers writes them; and how in memory.
OLD = "language_model.model."
NEW = "model.language_model."

TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 56,
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "sliding_window": 5,
    "max_position_embeddings": 64,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.fixture(scope="module", params=[OLD, NEW])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of text and images, its text tensors under one of the prefixes."""
    folder = tmp_path_factory.mktemp("gemma3") / "model"
    torch.manual_seed(0)
    config = transformers.Gemma3Config(text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if request.param == NEW:
        tensors = {in_memory(name): tensor for name, tensor in tensors.items()}
        save_file(tensors, path, metadata={"format": "pt"})
    assert f"{request.param}layers.2.self_attn.q_norm.weight" in tensors
    return folder


def in_memory(name: str) -> str:
    """Gives a tensor's name in memory from that on disk."""
    return NEW + name.removeprefix(OLD) if name.startswith(OLD) else f"model.{name}"


def their_logits(model: transformers.PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(ids).logits
    return logits


def test_text_is_computed_and_comes_back_alone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    folder = from_hf(FromHfConfig(checkpoint_dir=tmp_path / "model"))
    ids = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(1))
    ours = load_model(folder, "32-true", torch.device("cpu"))
    with torch.no_grad():
        got = ours.head(ours(ids))
    whole = transformers.Gemma3ForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    wanted = their_logits(whole, ids)
    assert (got - wanted).abs().max() < 1e-5 * wanted.abs().max()

    exported = to_hf(ToHfConfig(checkpoint_dir=folder, out_dir=tmp_path / "hf"))
    config = json.loads((exported / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
    assert "vision_config" not in config
    tensors = load_file(exported / "model.safetensors")
    assert all(name.startswith("model.") and "vision" not in name for name in tensors)
    text, loading = transformers.AutoModelForCausalLM.from_pretrained(
        exported, output_loading_info=True, dtype=torch.float32, attn_implementation="eager"
    )
    assert isinstance(text, transformers.Gemma3ForCausalLM)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert torch.equal(their_logits(text, ids), wanted)


@pytest.mark.parametrize("prefix", ["", OLD, NEW])
def test_each_prefix_is_the_same_tensor(prefix: str) -> None:
    standard_name = FAMILIES["gemma3"].standard_name
    name = f"{prefix or 'model.'}layers.0.self_attn.q_norm.weight"
    assert standard_name(name) == "model.layers.0.self_attn.q_norm.weight"
    assert standard_name("language_model.lm_head.weight") == "lm_head.weight"
    assert standard_name("vision_tower.x") == "vision_tower.x"


def test_what_stands_outside_counts_for_the_text_half() -> None:
    whole = {
        "model_type": "gemma3",
        "eos_token_id": [1, 106],
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "vision_config": {"hidden_size": 16},
        "text_config": {"hidden_size": 64, "model_type": "gemma3_text", "eos_token_id": 1, "tie_word_embeddings": True},
    }
    half = text_config(whole)
    assert half["eos_token_id"] == [1, 106] and "vision_config" not in half
    config = model_config_from_hf(whole, "m")
    assert (config.n_embd, config.tie_embeddings) == (64, False)
    assert config == model_config_from_hf(half, "m")
    assert text_config(half) == half
