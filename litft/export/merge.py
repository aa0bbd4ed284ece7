"""Adds LoRA adapters into their base: W + (alpha / r) B A, computed in float32, written in the base's dtype."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm

from litft.checkpoint.disk import publish_folder, require_free, require_space, write_json
from litft.checkpoint.files import (
    WEIGHTS_NAME,
    copy_side_files,
    load_model_config,
    resolve_checkpoint_dir,
    save_model_config,
)
from litft.checkpoint.tensors import read_safetensors_header, save_safetensors
from litft.config.answer import MergeConfig
from litft.errors import CheckpointError
from litft.methods.base import trainable_state, weights_path
from litft.methods.load import check_base, load_method
from litft.methods.lora import LoRA, LoRALinear
from litft.model.load import assign_weights, build_empty

MERGE_FILE = "merge.json"  # says what a merged model was made of, and that it may be replaced by another merge


def merge(config: MergeConfig, report: Callable[[str], None] = lambda message: None) -> Path:
    """Writes the whole model of a LoRA run, one tensor in memory at a time.

    Args:
        config: the run's final folder and where the model goes.
        report: told where it lies.

    Returns:
        The folder, a converted checkpoint like any other.

    Raises:
        CheckpointError: it is no LoRA run, a part is damaged, or the adapters change nothing.
        ConfigError: out_dir holds something else.
    """
    checkpoint_dir = resolve_checkpoint_dir(config.checkpoint_dir)
    base_dir, method = load_method(checkpoint_dir)
    check_base(checkpoint_dir)
    if not isinstance(method, LoRA):
        raise CheckpointError(f"{checkpoint_dir} is a run of {method.name}, which cannot be merged; use it as it is.")
    out_dir = config.out_dir or checkpoint_dir.parent / "merged"
    advice = "name another, or replace a merge by --overwrite true"
    require_free(out_dir, config.overwrite, MERGE_FILE, advice, (checkpoint_dir, base_dir))
    layers = adapted_layers(checkpoint_dir, base_dir, method)
    if not any(layer.lora_B.any() for layer in layers.values()):
        raise CheckpointError(
            f"The adapters of {checkpoint_dir} change nothing: all of B is zero; train before merging."
        )
    temporary = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    copy_side_files(checkpoint_dir, temporary)
    base = base_dir / WEIGHTS_NAME
    require_space(temporary, base.stat().st_size)
    specs = read_safetensors_header(base)
    save_safetensors(temporary / WEIGHTS_NAME, iter_merged(base, list(specs), layers), specs)
    save_model_config(temporary, load_model_config(base_dir))
    write_json(temporary / MERGE_FILE, {"adapters": str(checkpoint_dir), "base": str(base_dir)})
    publish_folder(temporary, out_dir)
    report(
        f"{out_dir} holds the merged model.\nNext: litft generate --checkpoint_dir {out_dir} --instruction '...'\n"
        f"  or: litft export hf --checkpoint_dir {out_dir} --out_dir {out_dir.parent / 'hf'}"
    )
    return out_dir


def adapted_layers(checkpoint_dir: Path, base_dir: Path, method: LoRA) -> dict[str, LoRALinear]:
    """Gives the adapters of a run by the name of the weight they change; the base itself takes no memory."""
    model = build_empty(load_model_config(base_dir))
    method.apply(model)
    names, path = set(trainable_state(model, method)), weights_path(checkpoint_dir, method)
    assign_weights(model, path, names, torch.float32, torch.device("cpu"))
    return {f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, LoRALinear)}


@torch.no_grad()
def iter_merged(base: Path, names: list[str], layers: dict[str, LoRALinear]) -> Iterator[tuple[str, Tensor]]:
    """Reads the base tensor by tensor and adds what the adapters say."""
    with safe_open(base, framework="pt", device="cpu") as file:
        for name in tqdm(names, desc="merging", unit="tensor", disable=None):
            weight = file.get_tensor(name)
            if name in layers:
                weight = (weight.float() + layers[name].delta()).to(weight.dtype)
            yield name, weight
