"""Whole models of Lit-GPT and litgpt become what they were, bit for bit, or are refused in a sentence."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lit_folder import FALCON, LIT_CONFIGS, LLAMA, MODELS, OLD_NAMES, convert, lit_state, random_state, write_lit_folder
from tiny_text import write_json

from litft.checkpoint.convert import from_hf
from litft.checkpoint.disk import read_json
from litft.checkpoint.files import load_model_config
from litft.checkpoint.tensors import load_weights
from litft.config.convert import FromHfConfig, FromLitGPTConfig, ToHfConfig
from litft.config.model import RopeScaling
from litft.errors import LitftError
from litft.export.hf import to_hf
from litft.families import model_config_from_hf
from litft.methods.from_litgpt import from_litgpt
from litft.text.style_files import saved_style


@pytest.mark.parametrize("old", [False, True], ids=["qkv", "interleaved"])
@pytest.mark.parametrize("kind", MODELS)
def test_weights_and_sizes_come_back_bit_for_bit(tmp_path: Path, kind: str, old: bool) -> None:
    model, state = MODELS[kind], random_state(MODELS[kind])
    lit = lit_state(state, model, old)
    # What the converters of Lit-GPT wrote, and what finetuning all weights writes.
    source = write_lit_folder(tmp_path / "lit", kind, lit if old else {"model": lit}, protocol=5 if old else 2)
    out = convert(source, tmp_path / "out")
    found = load_weights(out / "lit_model.safetensors")
    expected = {name: tensor for name, tensor in state.items() if not (model.tie_embeddings and "lm_head" in name)}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert load_model_config(out) == model
    described = model_config_from_hf(read_json(out / "config.json"), model.name)
    assert dataclasses.replace(described, vocab_size=300) == model


def test_the_export_is_the_hugging_face_model(tmp_path: Path) -> None:
    state = random_state(LLAMA)
    out = convert(write_lit_folder(tmp_path / "lit", "llama", lit_state(state, LLAMA, True)), tmp_path / "out")
    to_hf(ToHfConfig(checkpoint_dir=out, out_dir=tmp_path / "hf"))
    from_hf(FromHfConfig(checkpoint_dir=tmp_path / "hf"))
    again = load_weights(tmp_path / "hf" / "lit_model.safetensors")
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_the_json_of_2023_says_the_same(tmp_path: Path) -> None:
    source = write_lit_folder(tmp_path / "lit", "llama", lit_state(random_state(LLAMA), LLAMA, True))
    values = {OLD_NAMES.get(key, key): value for key, value in LIT_CONFIGS["llama"].items()}
    (source / "model_config.yaml").unlink()
    write_json(source / "lit_config.json", {**values, "name": "tiny-llama", "org": "someone", "rope_n_elem": 8})
    assert load_model_config(convert(source, tmp_path / "out")) == LLAMA
    write_json(source / "lit_config.json", {**values, "condense_ratio": 1, "name": "Mistral-tiny", "org": "mistralai"})
    assert load_model_config(convert(source, tmp_path / "two")).family == "mistral"


def test_llama_3_frequencies(tmp_path: Path) -> None:
    adjustments = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_seq_len": 32}
    changes = {"rope_condense_ratio": 1, "rope_adjustments": adjustments}
    source = write_lit_folder(tmp_path / "lit", "llama", lit_state(random_state(LLAMA), LLAMA, False), **changes)
    expected = RopeScaling(kind="llama3", factor=8.0, original_block_size=32)
    assert load_model_config(convert(source, tmp_path / "out")).rope_scaling == expected


def test_config_json_wins_and_is_put_right(tmp_path: Path) -> None:
    """A head trained apart from its embedding is no longer tied, and rows that Lit-GPT padded stay."""
    state = random_state(FALCON) | {"lm_head.weight": torch.randn(320, 32)}
    source = write_lit_folder(tmp_path / "lit", "falcon", lit_state(state, FALCON, False))
    tied = convert(
        write_lit_folder(tmp_path / "tied", "falcon", lit_state(random_state(FALCON), FALCON, False)), tmp_path / "x"
    )
    write_json(source / "config.json", {**read_json(tied / "config.json"), "vocab_size": 310, "eos_token_id": 1})
    out = convert(source, tmp_path / "out")
    assert load_model_config(out) == dataclasses.replace(FALCON, name="lit", vocab_size=310, tie_embeddings=False)
    written = read_json(out / "config.json")
    assert (written["tie_word_embeddings"], written["vocab_size"], written["eos_token_id"]) == (False, 320, 1)
    assert torch.equal(load_weights(out / "lit_model.safetensors")["lm_head.weight"], state["lm_head.weight"])


def test_prompt_styles(tmp_path: Path) -> None:
    source = write_lit_folder(tmp_path / "lit", "llama", lit_state(random_state(LLAMA), LLAMA, False))
    for class_path, ending in (("litgpt.prompts.Alpaca", "### Response:\n"), ("litgpt.prompts.Default", "")):
        (source / "prompt_style.yaml").write_text(f"class_path: {class_path}\n")
        out = convert(source, tmp_path / "out", overwrite=True)
        assert saved_style(out).first.endswith(f"{{instruction}}{ending and chr(10) * 2}{ending}")
    (source / "prompt_style.yaml").write_text("class_path: litgpt.prompts.Phi2\n")
    told: list[str] = []
    flags: dict[str, Any] = {"checkpoint_dir": source, "out_dir": tmp_path / "out", "overwrite": True}
    from_litgpt(FromLitGPTConfig(**flags), told.append)
    assert "no prompt style litgpt.prompts.Phi2" in told[0]
    assert not (tmp_path / "out" / "prompt_style.yaml").exists()
    with pytest.raises(LitftError, match="not empty"):
        convert(source, tmp_path / "out")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", [2, 5])
def test_no_code_of_a_file_is_run(tmp_path: Path, protocol: int) -> None:
    state: dict[str, Any] = {**lit_state(random_state(LLAMA), LLAMA, True), "evil": Evil(tmp_path / "mark")}
    source = write_lit_folder(tmp_path / "lit", "llama", state, protocol=protocol)
    with pytest.raises(LitftError, match="could run code"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "mark").exists() and not (tmp_path / "out").exists()
    (source / "lit_model.pth").write_bytes(pickle.dumps({"weights": [1, 2]}))
    with pytest.raises(LitftError, match=r"saved before PyTorch 1.6"):
        convert(source, tmp_path / "out")


MODEL_REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "gemma": ({"mlp_class_name": "GemmaMLP"}, r"mlp_class_name is GemmaMLP.*copy config.json of tiny-llama"),
    "scaled": ({"scale_embeddings": True}, "scale_embeddings is True"),
    "unknown": ({"something_new": 3}, "something_new is 3"),
    "yarn": ({"rope_adjustments": {"beta_fast": 32}}, "rope_adjustments is"),
    "sizes": ({"n_embd": "many"}, "n_embd = 'many'; a whole number"),
    "ours": ({"family": "llama"}, "written by litft"),
    "layers": ({"n_layer": 3}, r"lacks the tensor transformer.h.2"),
    "fewer": ({"n_layer": 1}, r"holds the tensor transformer.h.1.* more, which the model has no place for"),
    "shape": ({"intermediate_size": 48}, r"has shape \[24, 32\]; the model has \[48, 32\]"),
}


@pytest.mark.parametrize("case", MODEL_REFUSALS)
def test_models_that_are_refused(tmp_path: Path, case: str) -> None:
    changes, message = MODEL_REFUSALS[case]
    source = write_lit_folder(tmp_path / "lit", "llama", lit_state(random_state(LLAMA), LLAMA, False), **changes)
    with pytest.raises(LitftError, match=message):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_description(tmp_path: Path) -> None:
    source = write_lit_folder(tmp_path / "lit", "llama", lit_state(random_state(LLAMA), LLAMA, False))
    (source / "model_config.yaml").unlink()
    with pytest.raises(LitftError, match=r"neither config.json nor model_config.yaml nor lit_config.json"):
        convert(source, tmp_path / "out")
