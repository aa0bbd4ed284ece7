"""Weights and folders of Lit-GPT (2023) and litgpt: names, both layouts of q, k and v, a whole model's conversion.

Module names are ours but for the MLP. Until litgpt 0.5.4 the fused projection is called `attn.attn` and its rows are
sorted by query group; since 0.5.5 it is `attn.qkv` with the rows [q; k; v]. Knows nothing of LoRA and adapters.
Source: `convert_hf_checkpoint.py` and `model.py` of both (`qkv_reassemble` in litgpt).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.disk import read_json, require_space, write_json
from litft.checkpoint.files import WEIGHTS_NAME, copy_side_files, save_model_config
from litft.checkpoint.layout import plain, to_ours
from litft.checkpoint.litgpt_config import hf_config_from_lit, read_lit_config
from litft.checkpoint.pickled import load_pickled
from litft.checkpoint.tensors import TensorSpec, save_safetensors, tensor_specs, with_progress
from litft.checkpoint.weights import HfWeights
from litft.config.io import load_yaml
from litft.config.model import ModelConfig
from litft.errors import CheckpointError, did_you_mean
from litft.families import model_config_from_hf
from litft.families.base import Regroup, Rename
from litft.families.shapes import Shape, state_shapes
from litft.text.prompts import PromptStyle
from litft.text.style_files import STYLE_FILE, save_prompt_style, saved_style
from litft.text.styles import ALPACA, PLAIN

MADE_FROM_FILE = "litgpt.json"  # says what a folder was made of, and that this command may replace it

_EMBEDDING, _HEAD = "transformer.wte.weight", "lm_head.weight"
_BLOCK_NAMES = {"norm_attn_out": "post_attention_norm", "norm_mlp_out": "post_mlp_norm"}
_MLP_NAMES = {"plain": {"up": "fc", "down": "proj"}, "gated": {"gate": "fc_1", "up": "fc_2", "down": "proj"}}
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

# litgpt puts a newline where the answer begins; Lit-GPT of 2023 did not. Source: `Alpaca` of litgpt's `prompts.py`.
_LITGPT_ALPACA = PromptStyle(
    name="litgpt-alpaca",
    **{  # type: ignore[arg-type]
        frame: f"{getattr(ALPACA, frame)}\n" for frame in ("first", "first_with_input", "later", "later_with_input")
    },
)
_STYLES = {"Alpaca": _LITGPT_ALPACA, "Default": PLAIN}


def open_lit_weights(path: Path) -> HfWeights:
    """Opens a .pth file of Lit-GPT or litgpt, of whatever kind; only its headers are read.

    Args:
        path: the file; it holds a map of tensors, or one under "model" beside the state of a run.

    Raises:
        CheckpointError: it is missing, damaged, or holds something else than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no {path}.")
    state = load_pickled(path, "save it again from the Lit-GPT that wrote it")
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path} is not a map from names to tensors, as Lit-GPT's files are.")
    return HfWeights(tensor_specs(state), {name: partial(state.__getitem__, name) for name in state}, [path])


def is_interleaved(names: Iterable[str]) -> bool:
    """Says whether these names are of the layout in which the rows of q, k and v are sorted by query group."""
    return any(".attn.attn." in name for name in names)


def lit_module(ours: str, model: ModelConfig, interleaved: bool) -> str:
    """Gives Lit-GPT's name of one of our modules.

    Args:
        ours: such as `transformer.h.0.mlp.up`.
        model: says whether its MLP has a gate.
        interleaved: whether the file has the old layout of q, k and v.
    """
    *above, last = ours.split(".")
    if "mlp" in above:
        last = "gate" if last == "router" else _MLP_NAMES[model.mlp].get(last, last)
    elif last == "qkv":
        last = "attn" if interleaved else "qkv"
    return ".".join([*above, _BLOCK_NAMES.get(last, last)])


def lit_rule(ours: str, model: ModelConfig, interleaved: bool) -> Rename | Regroup:
    """Gives the rule that makes one of our tensors from Lit-GPT's.

    Args:
        ours: a name such as `transformer.h.0.attn.qkv.weight`; the last part is the same in both.
        model: the architecture.
        interleaved: whether the file has the old layout of q, k and v.
    """
    module, _, kind = ours.rpartition(".")
    theirs = f"{lit_module(module, model, interleaved)}.{kind}"
    if interleaved and module.endswith(".attn.qkv"):
        return Regroup(ours, theirs, model.n_query_groups, model.head_size)
    return Rename(ours, theirs)


def check_claimed(found: Mapping[str, TensorSpec], wanted: Mapping[str, Shape], path: Path) -> None:
    """Makes sure that a file holds exactly the tensors that are wanted of it.

    Args:
        found: what it holds.
        wanted: shapes, by the names in the file.
        path: for messages.

    Raises:
        CheckpointError: a tensor is missing, too many, or of a wrong shape or dtype.
    """
    for name, shape in wanted.items():
        if name not in found:
            raise CheckpointError(f"{path} lacks the tensor {name}, which the model has.{did_you_mean(name, found)}")
        if found[name].shape != shape:
            raise CheckpointError(f"{name} in {path} has shape {list(found[name].shape)}; the model has {list(shape)}.")
        if found[name].dtype not in _FLOATS:
            raise CheckpointError(f"{name} in {path} is {plain(found[name].dtype)}, which litft does not read.")
    if extra := sorted(found.keys() - wanted.keys()):
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise CheckpointError(f"{path} holds the tensor {extra[0]}{more}, which the model has no place for.")


def convert_model(weights: HfWeights, folder: Path, out_dir: Path) -> tuple[ModelConfig, int]:
    """Writes a whole model of Lit-GPT's as a converted checkpoint, one tensor in memory at a time.

    Args:
        weights: of its file.
        folder: where its description and its tokenizer are.
        out_dir: exists; gets the weights, model_config.yaml, config.json and the tokenizer.

    Returns:
        The architecture, and how many bytes of weights were written.

    Raises:
        CheckpointError: the description is missing or of an unknown family, or does not fit the tensors.
    """
    path = weights.files[0]
    model, hf_config = _describe(weights, folder)
    shapes, interleaved = state_shapes(model), is_interleaved(weights.specs)
    rules = [lit_rule(name, model, interleaved) for name in shapes]
    wanted = {rule.theirs: shapes[rule.ours] for rule in rules}
    check_claimed(weights.specs, wanted | ({_HEAD: shapes[_EMBEDDING]} if model.tie_embeddings else {}), path)
    specs = {rule.ours: weights.specs[rule.theirs] for rule in rules}
    n_bytes = sum(spec.n_bytes for spec in specs.values())
    require_space(out_dir, n_bytes)
    tensors = _made(rules, weights)
    save_safetensors(out_dir / WEIGHTS_NAME, with_progress(tensors, n_bytes, "Converting"), specs, keeps_digest=True)
    save_model_config(out_dir, model)
    copy_side_files(folder, out_dir)
    write_json(out_dir / "config.json", hf_config)
    return model, n_bytes


def _made(rules: list[Rename | Regroup], weights: HfWeights) -> Iterator[tuple[str, Tensor]]:
    """Gives our tensors one after the other."""
    for rule in rules:
        yield from to_ours(rule, weights.read)


def _describe(weights: HfWeights, folder: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Gives the architecture and the config.json that says the same, from what the folder holds."""
    path = weights.files[0]
    for name in (_EMBEDDING, _HEAD):
        if name not in weights.specs:
            raise CheckpointError(f"{path} lacks the tensor {name}; it is not a whole model of Lit-GPT's.")
    rows, tied = weights.specs[_EMBEDDING].shape[0], torch.equal(weights.read[_EMBEDDING](), weights.read[_HEAD]())
    if (folder / "config.json").is_file():
        name, hf_config = folder.resolve().name, read_json(folder / "config.json")
        vocab_size = model_config_from_hf(hf_config, name).vocab_size
    else:
        values = read_lit_config(folder)
        name, vocab_size = values["name"], values["vocab_size"]
        hf_config = {**hf_config_from_lit(values, rows, tied), "torch_dtype": plain(weights.specs[_HEAD].dtype)}
    model = model_config_from_hf(hf_config, name)
    if model.padded_vocab_size != rows:  # Lit-GPT pads the embedding of what it trains from scratch
        hf_config = {**hf_config, "vocab_size": rows}
    if model.tie_embeddings and not tied:  # it trains head and embedding apart, whatever they were
        hf_config = {**hf_config, "tie_word_embeddings": False}
    model = model_config_from_hf(hf_config, name)
    return dataclasses.replace(model, vocab_size=min(vocab_size, rows)), hf_config


def write_prompt_style(folder: Path, out_dir: Path) -> str:
    """Writes the prompt style of a folder of Lit-GPT's beside a converted model.

    Args:
        folder: of Lit-GPT; without a prompt_style.yaml, what out_dir has is left as it is.
        out_dir: where model and tokenizer are.

    Returns:
        A sentence about a style that litft does not have; else nothing.

    Raises:
        ConfigError: prompt_style.yaml cannot be used.
    """
    if not (folder / STYLE_FILE).is_file():
        return ""
    class_path = load_yaml(folder / STYLE_FILE).get("class_path")
    if class_path is None:
        save_prompt_style(out_dir, saved_style(folder))
        return ""
    (out_dir / STYLE_FILE).unlink(missing_ok=True)
    name = str(class_path).rpartition(".")[2]
    if name in _STYLES:
        save_prompt_style(out_dir, _STYLES[name])
        return ""
    return f"litft has no prompt style {class_path}, so the model is asked in Alpaca's, or by --prompt as you write it."
