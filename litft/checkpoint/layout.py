"""Where every tensor goes between Hugging Face's layout and litft's, decided from headers and the family's rules.

Everything is planned before anything is written: a rule claims every tensor, every shape is checked. Reads no files.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litft.checkpoint.tensors import DTYPES, TensorSpec
from litft.config.model import ModelConfig
from litft.errors import CheckpointError, did_you_mean
from litft.families import tensor_rules
from litft.families.base import Copied, Drop, Fuse, Regroup, Rename, Split, Stack, Tie
from litft.families.shapes import state_shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Plan:
    """What a conversion to litft will do.

    Attributes:
        rules: one for each tensor, or several tensors, of ours, in order.
        specs: dtype and shape of each tensor of ours.
        ties: heads in the file that must equal the embedding, and are then left out.
        dropped: tensors in the file that no model needs.
    """

    rules: list[Copied]
    specs: dict[str, TensorSpec]
    ties: list[Tie]
    dropped: list[str]


def plan_from_hf(model: ModelConfig, found: Mapping[str, TensorSpec], source: Path) -> Plan:
    """Decides where every Hugging Face tensor goes.

    Args:
        model: the architecture that config.json describes.
        found: the tensors that the files hold.
        source: their folder, for messages.

    Raises:
        CheckpointError: a tensor is missing, unclaimed, or of a wrong shape or dtype.
    """
    shapes, plan, claimed = state_shapes(model), Plan([], {}, [], []), set()
    for rule in tensor_rules(model):
        if isinstance(rule, Drop):
            plan.dropped.extend(_names_like(rule.theirs, found))
        elif isinstance(rule, Tie):
            claimed.add(rule.theirs)
            plan.ties.extend([rule] if rule.theirs in found else [])
        else:
            theirs = rule.their_shapes(shapes)
            for name, shape in theirs.items():
                _check_tensor(name, shape, found, source)
            claimed.update(theirs)
            plan.rules.append(rule)
            kind = _one_kind(theirs, found, source)
            plan.specs.update({name: TensorSpec(kind, shapes[name]) for name in rule.our_names})
    _refuse_unclaimed(set(found) - claimed - set(plan.dropped), claimed, source)
    assert set(plan.specs) == set(shapes), set(plan.specs) ^ set(shapes)
    return plan


def plan_to_hf(
    model: ModelConfig, found: Mapping[str, TensorSpec], source: Path
) -> tuple[list[Copied], dict[str, TensorSpec]]:
    """Decides which Hugging Face tensors our tensors become.

    Args:
        model: the architecture that model_config.yaml describes.
        found: the tensors of lit_model.safetensors.
        source: the folder, for messages.

    Returns:
        The rules in order, and dtype and shape of every Hugging Face tensor.

    Raises:
        CheckpointError: a tensor is missing, too many, or of a wrong shape or dtype.
    """
    shapes = state_shapes(model)
    rules = [rule for rule in tensor_rules(model) if isinstance(rule, Copied)]
    specs: dict[str, TensorSpec] = {}
    for rule in rules:
        for name in rule.our_names:
            _check_tensor(name, shapes[name], found, source)
        kind = _one_kind(rule.our_names, found, source)
        specs.update({name: TensorSpec(kind, shape) for name, shape in rule.their_shapes(shapes).items()})
    _refuse_unclaimed(set(found) - set(shapes), set(shapes), source)
    return rules, specs


def slices_of_ours(rule: Copied, read: Mapping[str, Callable[[], Any]]) -> Iterator[tuple[str, Any]]:
    """Gives the tensors of ours that a rule makes as slices of Hugging Face's, by name, first rows first.

    Args:
        rule: where they come from.
        read: what gives each Hugging Face tensor: torch's, or an array of numpy's, which are sliced alike.
    """
    match rule:
        case Rename():
            yield rule.ours, read[rule.theirs]()
        case Fuse() | Stack():
            yield from ((rule.ours, read[part]()) for part in rule.parts)
        case Split():
            fused = read[rule.theirs]()
            yield from zip(rule.parts, fused.reshape(len(rule.parts), -1, *fused.shape[1:]), strict=True)
        case Regroup():
            fused = read[rule.theirs]()
            groups = fused.reshape(rule.n_query_groups, -1, *fused.shape[1:])  # (G, (H/G + 2) D, C)
            size = rule.head_size
            for rows in (slice(None, -2 * size), slice(-2 * size, -size), slice(-size, None)):  # queries, keys, values
                yield from ((rule.ours, group[rows]) for group in groups)


def to_ours(rule: Copied, read: Mapping[str, Callable[[], Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Gives the tensors of ours that a rule makes, by name.

    Args:
        rule: where they come from.
        read: what gives each Hugging Face tensor.
    """
    import torch  # here, as a conversion of files takes the slices and needs no torch

    for name, pairs in itertools.groupby(slices_of_ours(rule, read), key=itemgetter(0)):
        slices = [tensor for _, tensor in pairs]
        if isinstance(rule, Stack):
            yield name, torch.stack(slices)
        else:
            yield name, slices[0] if len(slices) == 1 else torch.cat(slices)


def to_theirs(rule: Copied, read: Mapping[str, Callable[[], Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Gives the Hugging Face tensors that a rule makes, by name; the exact inverse of `to_ours`.

    Args:
        rule: where they go.
        read: what gives each tensor of ours.
    """
    import torch

    match rule:
        case Rename():
            yield rule.theirs, read[rule.ours]()
        case Fuse():
            yield from zip(rule.parts, torch.split(read[rule.ours](), list(rule.rows)), strict=True)
        case Stack():
            yield from zip(rule.parts, read[rule.ours](), strict=True)
        case Split():
            yield rule.theirs, torch.cat([read[part]() for part in rule.parts])
        case Regroup():
            ours = read[rule.ours]()
            kv_rows, rest = rule.n_query_groups * rule.head_size, ours.shape[1:]
            parts = torch.split(ours, [len(ours) - 2 * kv_rows, kv_rows, kv_rows])  # q, k, v
            groups = [part.reshape(rule.n_query_groups, -1, rule.head_size, *rest) for part in parts]
            yield rule.theirs, torch.cat(groups, dim=1).reshape(-1, *rest)


def _names_like(pattern: str, found: Mapping[str, Any]) -> list[str]:
    """Gives the names that a `Drop` speaks of."""
    if pattern.endswith("*"):
        return [name for name in found if name.startswith(pattern[:-1])]
    return [pattern] if pattern in found else []


def _check_tensor(name: str, shape: tuple[int, ...], found: Mapping[str, TensorSpec], source: Path) -> None:
    """Refuses a tensor that is missing or not as the architecture wants it."""
    if name not in found:
        raise CheckpointError(
            f"{source} lacks the tensor {name}, which its configuration asks for.{did_you_mean(name, found)}"
        )
    if found[name].shape != shape:
        raise CheckpointError(
            f"{name} in {source} has shape {list(found[name].shape)}; its configuration asks for {list(shape)}."
        )
    if found[name].kind not in _FLOATS:
        listed = ", ".join(DTYPES[kind][0] for kind in _FLOATS)
        raise CheckpointError(f"{name} in {source} is {DTYPES[found[name].kind][0]}; litft reads {listed}.")


def _one_kind(names: Iterable[str], found: Mapping[str, TensorSpec], source: Path) -> str:
    """Gives the dtype that tensors to be fused share."""
    names = list(names)
    kinds = {found[name].kind for name in names}
    if len(kinds) > 1:
        listed = ", ".join(f"{name} is {DTYPES[found[name].kind][0]}" for name in names)
        raise CheckpointError(f"Tensors that become one must share a dtype, but in {source} {listed}.")
    return kinds.pop()


def plain(dtype: torch.dtype) -> str:
    """Gives the name of a dtype as config.json has it."""
    return str(dtype).removeprefix("torch.")


def _refuse_unclaimed(extra: set[str], known: set[str], source: Path) -> None:
    """Refuses tensors that no rule speaks of."""
    if extra:
        first, more = min(extra), f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise CheckpointError(
            f"{source} holds the tensor {first}{more}, which this architecture has no place for."
            f"{did_you_mean(first, known)}"
        )
