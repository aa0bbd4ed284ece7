"""LoRA of Lit-GPT and litgpt as litft's. Knows no folders.

lora_A is (P r, in) and lora_B (sum of rows, r), the slices in the order q, k, v, as ours. What differs is to which rows
of the fused projection they belong, and the file does not say (`is_misplaced`).
Source: `LoRAQKVLinear` of Lit-GPT (2023), of litgpt 0.2 to 0.5.4 and of litgpt 0.5.5; litgpt's pull request 900.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from litft.checkpoint.layout import to_ours
from litft.checkpoint.litgpt import is_interleaved, lit_module
from litft.checkpoint.weights import HfWeights
from litft.config.convert import LitGPTVersion
from litft.config.model import ModelConfig
from litft.config.run import LORA_TARGETS, LoRAConfig
from litft.errors import CheckpointError
from litft.families.base import Regroup
from litft.methods.lora import target_slices

Layers = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LoRASettings:
    """What the file itself does not say.

    Attributes:
        alpha: None when nobody says.
        dropout: has no part in using the adapters.
        qkv: which of q, k and v have one, in this order; empty when nobody says.
        version: the release that trained them.
    """

    alpha: float | None
    dropout: float
    qkv: tuple[str, ...]
    version: LitGPTVersion


def lora_state(weights: HfWeights, model: ModelConfig, settings: LoRASettings) -> tuple[LoRAConfig, dict[str, Tensor]]:
    """Gives litft's settings and tensors of adapters that do the same.

    Args:
        weights: of the LoRA file.
        model: the base.
        settings: what is known beside it.

    Raises:
        CheckpointError: alpha or the targets are unknown, or litft has no adapter that does the same.
    """
    path = weights.files[0]
    if settings.alpha is None:
        raise CheckpointError(
            f"No hyperparameters.yaml beside {path} says alpha, by which its adapters are scaled; "
            "add --lora_alpha (Lit-GPT's default was 16)."
        )
    layers = _layers(weights, model)
    rank = _rank(layers, path)
    targets = [target for target in LORA_TARGETS if any(_target(name) == target for name in layers)]
    fused = {name: pair for name, pair in layers.items() if name.endswith(".attn.qkv")}
    parts = _qkv_parts(fused, model, rank, settings.qkv, path) if fused else ()
    widened = 1
    if fused and is_misplaced(settings.version, parts, model):
        layers |= {name: _replaced(*pair, parts, rank, model) for name, pair in fused.items()}
        widened, parts = len(parts), ("q", "k", "v")
    targets = [*parts, *targets]
    _check_layers(layers, model, tuple(targets), path)
    state = {}
    for name, (a, b) in layers.items():
        missing = 0 if name in fused else rank * (widened - 1)  # one rank for all: the others get zeros
        state[f"{name}.lora_A"] = F.pad(a, (0, 0, 0, missing))
        state[f"{name}.lora_B"] = F.pad(b, (0, missing))
    config = LoRAConfig(
        r=rank * widened, alpha=settings.alpha * widened, dropout=settings.dropout, targets=tuple(targets)
    )
    return config, state


def is_misplaced(version: LitGPTVersion, parts: tuple[str, ...], model: ModelConfig) -> bool:
    """Says whether the rows of B were added to the fused projection as if its rows were [q; k; v], which they were not.

    Lit-GPT did so until February 2024, and litgpt until 0.5.4 where q, k and v all had an adapter. Training had made
    the best of it, so the places must be kept. With one query group both layouts are the same.
    """
    if model.n_query_groups == 1 or version == "litgpt-0.5.5":
        return False
    return version == "lit-gpt-2023" or len(parts) == 3


def _layers(weights: HfWeights, model: ModelConfig) -> Layers:
    """Gives A and B of each adapted module, in float32 and by our names."""
    path, interleaved = weights.files[0], is_interleaved(weights.specs)
    ours = {lit_module(name, model, interleaved): name for name in target_slices(model, LORA_TARGETS)}
    layers: Layers = {}
    for name in weights.specs:
        module, _, kind = name.rpartition(".")
        if kind not in ("lora_A", "lora_B"):
            raise CheckpointError(f"{path} holds {name} beside its LoRA, which litft cannot take over.")
        if module not in ours:
            raise CheckpointError(f"{path} adapts {module}, for which litft has no LoRA in {model.name}.")
        pair = [f"{module}.{other}" for other in ("lora_A", "lora_B")]
        for other in pair:
            if other not in weights.specs:
                raise CheckpointError(f"{path} holds {name}, but not {other}.")
        a, b = (weights.read[other]().float() for other in pair)
        layers[ours[module]] = (a, b)
    return layers


def _rank(layers: Layers, path: Path) -> int:
    """Gives the rank that all share."""
    ranks = {b.shape[1] for _, b in layers.values() if b.dim() == 2}
    if len(ranks) != 1:
        raise CheckpointError(f"{path} holds adapters of the ranks {sorted(ranks)}; litft needs one rank for all.")
    return ranks.pop()


def _target(name: str) -> str | None:
    """Gives the target a module belongs to; None for the fused projection, which has three."""
    if name == "lm_head":
        return "head"
    return "mlp" if ".mlp." in name else "proj" if name.endswith(".attn.proj") else None


def _qkv_parts(fused: Layers, model: ModelConfig, rank: int, said: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """Gives which of q, k and v have an adapter: as somebody says, if shapes agree, else as shapes alone say."""
    name, (a, b) = next(iter(fused.items()))
    sizes = dict(zip("qkv", model.qkv_sizes, strict=True))
    choices = [parts for count in (1, 2, 3) for parts in itertools.combinations("qkv", count)]
    fits = [
        parts for parts in choices
        if a.shape[0] == rank * len(parts) and b.shape[0] == sum(sizes[part] for part in parts)
    ]  # fmt: skip
    if said and said not in fits:
        raise CheckpointError(
            f"The adapters of {name} in {path} are no LoRA on {', '.join(said)} of {model.name}: they are "
            f"{list(a.shape)} and {list(b.shape)}."
        )
    if not fits:
        raise CheckpointError(
            f"{name} in {path} has adapters {list(a.shape)} and {list(b.shape)}, not of {model.name}."
        )
    if not said and len(fits) > 1:
        listed = " or ".join(" and ".join(parts) for parts in fits)
        raise CheckpointError(
            f"Nothing beside {path} says whether its adapters are on {listed}; add --lora_targets {','.join(fits[0])} "
            "or the like (Lit-GPT's default was q,v)."
        )
    return said or fits[0]


def _replaced(a: Tensor, b: Tensor, parts: tuple[str, ...], rank: int, model: ModelConfig) -> tuple[Tensor, Tensor]:
    """Gives A and B on q, k and v, of a rank as many times as large as there were parts, that do what these did.

    A row of ours may have got its update from any of the old parts, so each new part reads with all the old A.

    Args:
        a: (P r, in), P the number of parts.
        b: (sum of rows, r).
        parts: what Lit-GPT called q, k and v; their rows lay in these places of a fused projection sorted by group.
        rank: r.
        model: sizes of q, k and v.
    """
    size_q, size_kv, _ = model.qkv_sizes
    places = {"q": (0, size_q), "k": (size_q, size_q + size_kv), "v": (size_q + size_kv, size_q + 2 * size_kv)}
    pieces = torch.split(b, [places[part][1] - places[part][0] for part in parts])
    wide = b.new_zeros(sum(model.qkv_sizes), rank * len(parts))
    for index, (part, piece) in enumerate(zip(parts, pieces, strict=True)):
        wide[slice(*places[part]), index * rank : (index + 1) * rank] = piece
    rule = Regroup("B", "B", model.n_query_groups, model.head_size)
    return a.repeat(3, 1), dict(to_ours(rule, {"B": lambda: wide}))["B"]


def _check_layers(layers: Layers, model: ModelConfig, targets: tuple[str, ...], path: Path) -> None:
    """Refuses adapters on some blocks and not on others, and one on a head that is the embedding."""
    if "head" in targets and model.tie_embeddings:
        raise CheckpointError(
            f"{path} adapts the head, which in {model.name} is also the embedding; convert the base again with "
            '"tie_word_embeddings": false in its config.json.'
        )
    if missing := sorted(target_slices(model, targets).keys() - layers.keys()):
        raise CheckpointError(f"{path} adapts {', '.join(targets)}, but not in {missing[0]}; litft adapts all blocks.")
