"""A model's weights as they are with what was trained put in: LoRA added, new rows set in their places.

W + (alpha / r) B A, with DoRA by rows as large as was trained, is computed in float32. Each weight is computed when it
is read, from a base that may lie on disk, so that no second model is held in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from litft.checkpoint.tensors import TensorSpec
from litft.config.model import ModelConfig
from litft.errors import CheckpointError
from litft.methods.base import Full, Method, trainable_state, weights_path
from litft.methods.lora import LoRA
from litft.methods.lora_linear import LoRALinear
from litft.methods.new_tokens import EmbeddingWithNewRows, HeadWithNewRows, WithNewTokens, with_rows
from litft.model.gpt import GPT
from litft.model.load import assign_weights, build_empty

Read = Mapping[str, Callable[[], Tensor]]
Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True)
class Changes:
    """What a LoRA run trained, by the name of the weight that it changes.

    Attributes:
        layers: adapters, each to be added to its weight.
        rows: new rows of embedding and head, and the id of the first.
    """

    layers: Mapping[str, LoRALinear]
    rows: Mapping[str, tuple[Tensor, int]]


def inner_method(method: Method) -> Method:
    """Gives the method itself of one that trains new tokens beside it."""
    return method.method if isinstance(method, WithNewTokens) else method


def can_be_whole(method: Method) -> bool:
    """Says whether what a method trains can stand in the weights of a plain model."""
    return isinstance(inner_method(method), Full | LoRA)


def changes_of(model: nn.Module) -> Changes:
    """Gives what was trained of a model that LoRA was applied to."""
    layers: dict[str, LoRALinear] = {}
    rows: dict[str, tuple[Tensor, int]] = {}
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear):
            layers[f"{path.removesuffix('.base')}.weight"] = module  # a head with new rows has its own as base
        elif isinstance(module, EmbeddingWithNewRows | HeadWithNewRows):
            rows[f"{path}.weight"] = module.new_rows.detach(), module.first_id
            rows[f"{path}.bias"] = torch.zeros(len(module.new_rows)), module.first_id
    return Changes(layers, rows)


def load_changes(checkpoint_dir: Path, base: ModelConfig, method: Method) -> Changes:
    """Gives what a finished LoRA run trained; the base itself takes no memory.

    Args:
        checkpoint_dir: the run's final folder.
        base: the sizes of its base.
        method: as `method.yaml` describes it.

    Raises:
        CheckpointError: the file is damaged or of another model.
    """
    model = build_empty(base)
    method.apply(model)
    names, path = set(trainable_state(model, method)), weights_path(checkpoint_dir, method)
    assign_weights(model, path, names, torch.float32, torch.device("cpu"))
    return changes_of(model)


def merged_weights(read: Read, specs: Specs, changes: Changes) -> tuple[dict[str, Callable[[], Tensor]], Specs]:
    """Gives what reads each weight with the changes put in, and what it will be: the dtype is that of the base.

    Args:
        read: what gives each weight of the base.
        specs: dtype and shape of each.
        changes: what was trained.
    """
    merged, grown = dict(read), dict(specs)
    for name in read:
        if name in changes.layers:
            merged[name] = partial(_added, read[name], changes.layers[name])
        if name in changes.rows:
            rows, first_id = changes.rows[name]
            merged[name] = partial(_grown, merged[name], rows, first_id)
            count, *rest = specs[name].shape
            grown[name] = dataclasses.replace(specs[name], shape=(max(count, first_id + len(rows)), *rest))
    return merged, grown


def require_effect(read: Read, specs: Specs, changes: Changes, source: Path) -> None:
    """Refuses adapters that change no weight of their base.

    Args:
        read, specs, changes: as `merged_weights` takes them.
        source: their folder, for the message.

    Raises:
        CheckpointError: every B is zero, or every sum is rounded back to the base.
    """
    if changes.rows:
        return
    require_nonzero(changes, source)
    merged, _ = merged_weights(read, specs, changes)
    if all(torch.equal(merged[name](), read[name]()) for name in changes.layers):
        dtype = str(specs[next(iter(changes.layers))].dtype).removeprefix("torch.")
        raise CheckpointError(
            f"The adapters of {source} change nothing: each sum is rounded back to its base in {dtype}; train longer "
            "or at a higher rate."
        )


def require_nonzero(changes: Changes, source: Path) -> None:
    """Refuses adapters that are as they began.

    Raises:
        CheckpointError: every B is zero.
    """
    if not any(layer.lora_B.any() for layer in changes.layers.values()):
        raise CheckpointError(f"The adapters of {source} change nothing: all of B is zero; train before merging.")


def build_whole(model: ModelConfig, read: Read) -> GPT:
    """Gives a plain model of these weights, in float32 on the CPU."""
    gpt = build_empty(model)
    state = {name: get().float() for name, get in read.items()}
    if model.tie_embeddings:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    gpt.load_state_dict(state, assign=True)
    gpt.tie_weights()
    return gpt.eval()


@torch.no_grad()
def _added(get: Callable[[], Tensor], layer: LoRALinear) -> Tensor:
    """Reads a weight and puts its adapter in: the sum of the two is float32 (float64 to a weight of that dtype)."""
    weight = get()
    return layer.merged(weight).to(weight.dtype)


def _grown(get: Callable[[], Tensor], rows: Tensor, first_id: int) -> Tensor:
    """Reads a weight and puts new rows in their places."""
    weight = get()
    return with_rows(weight, rows.to(weight.device), first_id)
