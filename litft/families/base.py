"""What a model family declares: how its sizes are spelled and how its tensors are named and laid out on disk.

Everything here is data; `checkpoint/convert.py` runs the rules in both directions. Knows no torch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litft.config.model import ModelConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Rename:
    """One tensor under two names, bit for bit the same."""

    ours: str
    theirs: str

    def their_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Gives the Hugging Face tensors that make up our tensor of this shape."""
        return {self.theirs: shape}


@dataclass(frozen=True)
class Fuse:
    """Our tensor is several Hugging Face tensors, one below the other; `rows` counts the rows of each."""

    ours: str
    parts: tuple[str, ...]
    rows: tuple[int, ...]

    def their_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Gives the Hugging Face tensors that make up our tensor of this shape."""
        return {part: (rows, *shape[1:]) for part, rows in zip(self.parts, self.rows, strict=True)}


@dataclass(frozen=True)
class Regroup:
    """Our rows [q; k; v] are, in Hugging Face's tensor, sorted by query group: its queries, its key, its value.

    Source: `FalconAttention._split_heads` (new decoder) of transformers; one group a head is GPT-NeoX's layout.
    """

    ours: str
    theirs: str
    n_query_groups: int
    head_size: int

    def their_shapes(self, shape: Shape) -> dict[str, Shape]:
        """Gives the Hugging Face tensors that make up our tensor of this shape."""
        return {self.theirs: shape}


@dataclass(frozen=True)
class Drop:
    """A tensor that some files hold and no model needs, such as a causal mask."""

    theirs: str


@dataclass(frozen=True)
class Tie:
    """A head that is the embedding `ours`; a file may hold it, then it must be equal."""

    ours: str
    theirs: str


Copied = Rename | Fuse | Regroup
Rule = Copied | Drop | Tie


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: what `ModelConfig.family` says.
        model_types: the values of `model_type` in config.json that mean this family.
        config_from_hf: gives the sizes from a config.json and the model's name.
        rules: gives the map of its tensors; `{i}` in a key stands for the index of the block.
    """

    name: str
    model_types: tuple[str, ...]
    config_from_hf: Callable[[Mapping[str, Any], str], ModelConfig]
    rules: Callable[[ModelConfig], list[Rule]]


def rename_linear(ours: str, theirs: str, bias: bool) -> list[Rule]:
    """Gives the rules of a layer whose weight, and bias if it has one, only change their names.

    Args:
        ours: our name of the layer, without `.weight`.
        theirs: Hugging Face's name of the layer.
        bias: whether the layer has a bias.
    """
    return [Rename(f"{ours}.{kind}", f"{theirs}.{kind}") for kind in (("weight", "bias") if bias else ("weight",))]


def fuse_qkv(ours: str, parts: Sequence[str], config: ModelConfig) -> list[Rule]:
    """Gives the rules of three separate projections that become one."""
    kinds = ("weight", "bias") if config.qkv_bias else ("weight",)
    return [Fuse(f"{ours}.{kind}", tuple(f"{part}.{kind}" for part in parts), config.qkv_sizes) for kind in kinds]


def regroup_qkv(ours: str, theirs: str, config: ModelConfig) -> list[Rule]:
    """Gives the rules of a fused projection whose rows are sorted by query group."""
    kinds = ("weight", "bias") if config.qkv_bias else ("weight",)
    groups, size = config.n_query_groups, config.head_size
    return [Regroup(f"{ours}.{kind}", f"{theirs}.{kind}", groups, size) for kind in kinds]


def head_rules(config: ModelConfig, embedding: str, head: str) -> list[Rule]:
    """Gives the rules of the embedding and of the head, tied or not."""
    rules: list[Rule] = [Rename("transformer.wte.weight", embedding)]
    head_rule = Tie("transformer.wte.weight", head) if config.tie_embeddings else Rename("lm_head.weight", head)
    return [*rules, head_rule]


def rules_per_block(rules: Iterable[Rule], n_layer: int) -> list[Rule]:
    """Writes the rules with `{i}` out once for every block, block after block."""
    expanded: list[Rule] = []
    for in_block, group in itertools.groupby(rules, key=_is_in_block):
        members = list(group)
        indices = range(n_layer) if in_block else range(1)
        expanded.extend(_at_block(rule, index) for index in indices for rule in members)
    return expanded


def _is_in_block(rule: Rule) -> bool:
    """Says whether the rule stands for one tensor in every block."""
    return "{i}" in (rule.theirs if isinstance(rule, Drop) else rule.ours)


def _at_block(rule: Rule, index: int) -> Rule:
    """Puts the index of a block in place of `{i}`."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        if isinstance(value, str):
            changes[field.name] = value.replace("{i}", str(index))
        elif field.name == "parts":
            changes[field.name] = tuple(part.replace("{i}", str(index)) for part in value)
    return dataclasses.replace(rule, **changes)


def state_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Gives the name and shape of every tensor of a litft model of these sizes."""
    width, rows = config.n_embd, config.padded_vocab_size
    shapes: dict[str, Shape] = {"transformer.wte.weight": (rows, width)}
    for index in range(config.n_layer):
        prefix = f"transformer.h.{index}"
        shapes |= {f"{prefix}.{name}": shape for name, shape in _block_shapes(config).items()}
    shapes |= _norm_shapes("transformer.ln_f", config)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (rows, width)
    return shapes


def _block_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Gives the tensors of one block, named from the block on."""
    width, inner = config.n_embd, config.intermediate_size
    shapes = _norm_shapes("norm_1", config)
    shapes |= _linear_shapes("attn.qkv", sum(config.qkv_sizes), width, config.qkv_bias)
    shapes |= _linear_shapes("attn.proj", width, config.n_head * config.head_size, config.proj_bias)
    if not config.shared_attention_norm:
        shapes |= _norm_shapes("norm_2", config)
    if config.mlp == "gated":
        shapes |= _linear_shapes("mlp.gate", inner, width, config.mlp_bias)
    shapes |= _linear_shapes("mlp.up", inner, width, config.mlp_bias)
    return shapes | _linear_shapes("mlp.down", width, inner, config.mlp_bias)


def _linear_shapes(name: str, rows: int, columns: int, bias: bool) -> dict[str, Shape]:
    """Gives the weight of a linear layer and, if it has one, its bias."""
    shapes: dict[str, Shape] = {f"{name}.weight": (rows, columns)}
    return {**shapes, f"{name}.bias": (rows,)} if bias else shapes


def _norm_shapes(name: str, config: ModelConfig) -> dict[str, Shape]:
    """Gives the weight of a norm and, for LayerNorm, its bias."""
    shapes: dict[str, Shape] = {f"{name}.weight": (config.n_embd,)}
    return {**shapes, f"{name}.bias": (config.n_embd,)} if config.norm == "layernorm" else shapes
