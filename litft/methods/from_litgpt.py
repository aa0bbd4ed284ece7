"""`litft convert from_litgpt`: a whole model, or what a finetuning run trained, from Lit-GPT or litgpt.

Knows which file of a folder is meant and which release wrote it; the tensors are for the modules beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from litft.checkpoint.disk import (
    atomic_folder,
    atomic_path,
    keep_sha256,
    require_free,
    require_space,
    weights_sha256,
    write_json,
)
from litft.checkpoint.files import (
    WEIGHTS_NAME,
    copy_side_files,
    load_model_config,
    require_converted,
    resolve_checkpoint_dir,
    save_model_config,
)
from litft.checkpoint.litgpt import (
    MADE_FROM_FILE,
    convert_model,
    is_interleaved,
    open_lit_weights,
    write_prompt_style,
)
from litft.checkpoint.tensors import load_weights, save_safetensors, tensor_specs
from litft.checkpoint.weights import HfWeights
from litft.config.convert import FromLitGPTConfig, LitGPTVersion
from litft.config.io import dump_yaml, load_yaml
from litft.config.model import ModelConfig
from litft.errors import CheckpointError, ConfigError
from litft.methods.base import Method, trainable_state, weights_path
from litft.methods.litgpt_adapter import adapter_state
from litft.methods.litgpt_lora import LoRASettings, lora_state
from litft.methods.load import METHOD_FILE
from litft.methods.lora import LoRA
from litft.model.load import build_empty

Report = Callable[[str], None]

# Source: `finetune/*.py` of Lit-GPT (names of 2023) and of litgpt (since 0.2).
_WHOLE = ("lit_model.pth", "lit_model_finetuned.pth")
_TRAINED = (
    "lit_model_lora_finetuned.pth",
    "lit_model_adapter_finetuned.pth",
    "lit_model.pth.lora",
    "lit_model.pth.adapter",
    "lit_model.pth.adapter_v2",
)
_HYPERPARAMETERS = "hyperparameters.yaml"


def from_litgpt(config: FromLitGPTConfig, report: Report = lambda message: None) -> Path:
    """Writes a litft checkpoint: a converted model, or what the final folder of a litft run would be.

    Args:
        config: from where to where.
        report: is told, in sentences, what was done and what was assumed.

    Returns:
        The folder written.

    Raises:
        CheckpointError: a file is missing, damaged or of an unknown family, or does something that litft cannot.
        ConfigError: out_dir holds something else, or a flag is missing or too many.
    """
    folder, out_dir = resolve_checkpoint_dir(config.checkpoint_dir), config.out_dir
    base_dir = None if config.base_dir is None else resolve_checkpoint_dir(config.base_dir)
    inputs = (folder, base_dir) if base_dir else (folder,)
    advice = "name another, or replace a former conversion by --overwrite true"
    require_free(out_dir, config.overwrite, MADE_FROM_FILE, advice, inputs)
    weights = open_lit_weights(_file(folder, config))
    with atomic_folder(out_dir) as temporary:
        told = _write(weights, folder, base_dir, temporary, config)
        told += [write_prompt_style(folder, temporary)]
        write_json(temporary / MADE_FROM_FILE, {"source": str(weights.files[0]), "base": base_dir and str(base_dir)})
    report(
        f"{out_dir} is written. {' '.join(filter(None, told))}\n"
        f"Next: litft generate --checkpoint_dir {out_dir} --instruction '...'"
    )
    return out_dir


def _file(folder: Path, config: FromLitGPTConfig) -> Path:
    """Gives the file that is meant: a trained one where a base is named, else a whole model."""
    if config.checkpoint_file is not None:
        return folder / config.checkpoint_file
    kind, other = (_TRAINED, _WHOLE) if config.base_dir else (_WHOLE, _TRAINED)
    found = [name for name in kind if (folder / name).is_file()]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise ConfigError(f"{folder} holds {' and '.join(found)}; choose by --checkpoint_file.")
    others = [name for name in other if (folder / name).is_file()]
    if others and not config.base_dir:
        raise ConfigError(
            f"{folder} holds {others[0]}, which needs its base: convert that too and name it by --base_dir."
        )
    if others:
        raise ConfigError(f"{folder} holds {others[0]}, a whole model; leave out --base_dir.")
    raise CheckpointError(f"{folder} holds no {', '.join(kind)}; name the .pth file by --checkpoint_file.")


def _write(
    weights: HfWeights, folder: Path, base_dir: Path | None, out_dir: Path, config: FromLitGPTConfig
) -> list[str]:
    """Writes all but the prompt style, by what the file holds, and says what was done."""
    path = weights.files[0]
    is_lora = any(".lora_" in name for name in weights.specs)
    is_adapter = any(name.endswith(".gating_factor") for name in weights.specs)
    if not (is_lora or is_adapter):
        if base_dir is not None:
            raise ConfigError(f"{path} is a whole model; leave out --base_dir.")
        model, n_bytes = convert_model(weights, folder, out_dir)
        return [f"It holds {model.name}, {n_bytes / 1e6:,.1f} MB in litft's layout, from {path}."]
    if base_dir is None:
        raise ConfigError(f"{path} holds adapters only; convert their base model too and name it by --base_dir.")
    require_converted(base_dir)
    model = load_model_config(base_dir)
    version = _version(weights, folder, config.version)
    method: Method
    if is_lora:
        lora, state = lora_state(weights, model, _lora_settings(folder, version, config))
        method = LoRA(lora)
    else:
        method, state = adapter_state(weights, model, version, load_weights(base_dir / WEIGHTS_NAME))
    _write_run(method, state, model, base_dir, out_dir, config.out_dir)
    kind = f"It holds the {method.name} of {path}, on {base_dir}"
    assumed = "" if model.n_query_groups == 1 else f", taken as trained by {_SPANS[version]} (--version names another)"
    return [f"{kind}{assumed}."]


_SPANS: dict[LitGPTVersion, str] = {
    "lit-gpt-2023": "Lit-GPT before February 2024",
    "litgpt-0.2": "litgpt up to 0.5.4",
    "litgpt-0.5.5": "litgpt 0.5.5 or later",
}


def _version(weights: HfWeights, folder: Path, said: LitGPTVersion) -> LitGPTVersion:
    """Gives the release that trained adapters, as far as names tell; it decides what their rows mean.

    Source: the files were renamed in March 2024, a month after the rows were put right; `norm_qk` came with 0.5.5.
    """
    if said != "auto":
        return said
    if any(".attn.qkv." in name for name in weights.specs):
        return "litgpt-0.5.5"
    if weights.files[0].name.endswith(".pth"):
        return "lit-gpt-2023"
    if is_interleaved(weights.specs):
        return "litgpt-0.2"
    description = folder / "model_config.yaml"
    is_new = description.is_file() and "norm_qk" in load_yaml(description)
    return "litgpt-0.5.5" if is_new else "litgpt-0.2"


def _lora_settings(folder: Path, version: LitGPTVersion, config: FromLitGPTConfig) -> LoRASettings:
    """Gives what flags say of LoRA, else what the folder says."""
    path = folder / _HYPERPARAMETERS
    saved: dict[str, Any] = load_yaml(path) if path.is_file() else {}
    names = {"lora_query": "q", "lora_key": "k", "lora_value": "v"}
    parts = tuple(part for name, part in names.items() if saved.get(name))
    alpha = saved.get("lora_alpha") if config.lora_alpha is None else config.lora_alpha
    if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, int | float)):
        raise CheckpointError(f"{path} has lora_alpha = {alpha!r}; add the right one by --lora_alpha.")
    said = tuple(part for part in "qkv" if part in (config.lora_targets or parts))
    return LoRASettings(alpha, float(saved.get("lora_dropout") or 0.0), said, version)


def _write_run(
    method: Method, state: dict[str, Tensor], model: ModelConfig, base_dir: Path, out_dir: Path, final: Path
) -> None:
    """Writes what a finished run leaves, but for its logs.

    Args:
        method: with its settings.
        state: what it trained.
        model: the base's architecture.
        base_dir: the base.
        out_dir: where to write.
        final: what out_dir will be called.

    Raises:
        CheckpointError: a tensor does not fit the base.
    """
    empty = build_empty(model)
    method.apply(empty)
    for name, tensor in trainable_state(empty, method).items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"What was trained does not fit {base_dir}: {name} has shape {list(state[name].shape)}, and the "
                f"base asks for {list(tensor.shape)}."
            )
    require_space(out_dir, sum(tensor.nbytes for tensor in state.values()))
    copy_side_files(base_dir, out_dir)
    save_model_config(out_dir, model)
    save_safetensors(weights_path(out_dir, method), state.items(), tensor_specs(state))
    keep_sha256(weights_path(out_dir, method))
    record = {
        "method": method.name,
        "base": str(base_dir),
        "base_from_here": os.path.relpath(base_dir.resolve(), final.resolve()),
        "base_sha256": weights_sha256(base_dir / WEIGHTS_NAME),
        "settings": method.settings(),
    }
    with atomic_path(out_dir / METHOD_FILE) as path:
        path.write_text(dump_yaml(record), encoding="utf-8")
