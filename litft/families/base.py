"""What a model family declares: how its sizes are spelled and how its tensors are named and laid out on disk.

Everything here is data; `checkpoint/layout.py` runs the rules in both directions. Knows no torch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litft.config.model import ModelConfig
from litft.families.fields import HfFields
from litft.families.shapes import Shape

Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Rename:
    """One tensor under two names, bit for bit the same."""

    ours: str
    theirs: str

    @property
    def our_names(self) -> tuple[str, ...]:
        """Our tensors that this rule makes."""
        return (self.ours,)

    def their_shapes(self, shapes: Shapes) -> dict[str, Shape]:
        """Gives the Hugging Face tensors that our tensors of these shapes become."""
        return {self.theirs: shapes[self.ours]}


@dataclass(frozen=True)
class Fuse:
    """Our tensor is several Hugging Face tensors, one below the other; `rows` counts the rows of each."""

    ours: str
    parts: tuple[str, ...]
    rows: tuple[int, ...]

    @property
    def our_names(self) -> tuple[str, ...]:
        """Our tensors that this rule makes."""
        return (self.ours,)

    def their_shapes(self, shapes: Shapes) -> dict[str, Shape]:
        """Gives the Hugging Face tensors that our tensors of these shapes become."""
        return {part: (rows, *shapes[self.ours][1:]) for part, rows in zip(self.parts, self.rows, strict=True)}


@dataclass(frozen=True)
class Split:
    """Our tensors are rows of one Hugging Face tensor, one below the other: the inverse of `Fuse`."""

    parts: tuple[str, ...]
    theirs: str

    @property
    def our_names(self) -> tuple[str, ...]:
        """Our tensors that this rule makes."""
        return self.parts

    def their_shapes(self, shapes: Shapes) -> dict[str, Shape]:
        """Gives the Hugging Face tensors that our tensors of these shapes become."""
        first = shapes[self.parts[0]]
        return {self.theirs: (sum(shapes[part][0] for part in self.parts), *first[1:])}


@dataclass(frozen=True)
class Stack:
    """Our tensor holds several Hugging Face tensors of one shape, along a new first dimension."""

    ours: str
    parts: tuple[str, ...]

    @property
    def our_names(self) -> tuple[str, ...]:
        """Our tensors that this rule makes."""
        return (self.ours,)

    def their_shapes(self, shapes: Shapes) -> dict[str, Shape]:
        """Gives the Hugging Face tensors that our tensors of these shapes become."""
        return dict.fromkeys(self.parts, shapes[self.ours][1:])


@dataclass(frozen=True)
class Regroup:
    """Our rows [q; k; v] are, in Hugging Face's tensor, sorted by query group: its queries, its key, its value.

    Source: `FalconAttention._split_heads` (new decoder) of transformers; one group a head is GPT-NeoX's layout.
    """

    ours: str
    theirs: str
    n_query_groups: int
    head_size: int

    @property
    def our_names(self) -> tuple[str, ...]:
        """Our tensors that this rule makes."""
        return (self.ours,)

    def their_shapes(self, shapes: Shapes) -> dict[str, Shape]:
        """Gives the Hugging Face tensors that our tensors of these shapes become."""
        return {self.theirs: shapes[self.ours]}


@dataclass(frozen=True)
class Drop:
    """A tensor that some files hold and no model needs, such as a causal mask; a final `*` stands for any ending."""

    theirs: str


@dataclass(frozen=True)
class Tie:
    """A head that is the embedding `ours`; a file may hold it, then it must be equal."""

    ours: str
    theirs: str


Copied = Rename | Fuse | Split | Stack | Regroup
Rule = Copied | Drop | Tie


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: what `ModelConfig.family` says.
        model_types: the values of `model_type` in config.json that mean this family.
        config_from_hf: gives the sizes from the fields of a config.json.
        rules: gives the map of its tensors; `{i}` in a key stands for the index of the block.
        prefixes: old beginning of a Hugging Face name -> the one that `rules` speak of, for files with another layout.
        config_out: gives the config.json of the part of a model that litft reads and exports.
    """

    name: str
    model_types: tuple[str, ...]
    config_from_hf: Callable[[HfFields], ModelConfig]
    rules: Callable[[ModelConfig], list[Rule]]
    prefixes: tuple[tuple[str, str], ...] = ()
    config_out: Callable[[Mapping[str, Any]], dict[str, Any]] = dict

    def standard_name(self, theirs: str) -> str:
        """Gives the name that the rules use for a Hugging Face tensor."""
        for old, new in self.prefixes:
            if theirs.startswith(old):
                return new + theirs.removeprefix(old)
        return theirs


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
    """Gives the rules of the embedding and of the head, tied or not.

    Args:
        config: says whether the head is tied and has a bias.
        embedding: Hugging Face's name of the embedding, without `.weight`.
        head: Hugging Face's name of the head.
    """
    rules = rename_linear("transformer.wte", embedding, bias=False)
    if config.tie_embeddings:
        rules.append(Tie("transformer.wte.weight", f"{head}.weight"))
    else:
        rules += rename_linear("lm_head", head, bias=False)
    return rules + ([Rename("lm_head.bias", f"{head}.bias")] if config.lm_head_bias else [])


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
    return "{i}" in rule.theirs if isinstance(rule, Drop | Tie | Split) else "{i}" in rule.ours


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
