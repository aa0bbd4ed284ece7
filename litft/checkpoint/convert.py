"""Hugging Face weights to litft's layout and back, tensor by tensor, from the one map that a family declares.

Everything is planned from the headers before anything is written: a rule claims every tensor, every shape is checked.
Knows no single family.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from litft.checkpoint.disk import read_json, require_space, write_json
from litft.checkpoint.files import (
    MODEL_CONFIG_NAME,
    WEIGHTS_NAME,
    copy_side_files,
    load_model_config,
    require_converted,
    resolve_checkpoint_dir,
    save_model_config,
)
from litft.checkpoint.tensors import TensorSpec, is_whole, load_weights, save_safetensors, tensor_specs
from litft.checkpoint.weights import FILES_AND_INDICES, HfWeights, open_weights, weights_files
from litft.config.convert import FromHfConfig, ToHfConfig
from litft.config.model import ModelConfig
from litft.errors import CheckpointError, ConfigError, did_you_mean
from litft.families import model_config_from_hf, tensor_rules
from litft.families.base import Copied, Drop, Fuse, Rename, Tie, state_shapes

Report = Callable[[str], None]
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_HF_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")


def from_hf(config: FromHfConfig, report: Report = lambda message: None) -> Path:
    """Converts downloaded weights: writes lit_model.safetensors and model_config.yaml beside them.

    Args:
        config: which folder.
        report: is told, in a sentence, what was done.

    Returns:
        The folder.

    Raises:
        CheckpointError: an unknown family, missing, damaged, unexpected or misshapen tensors, or too little disk space.
    """
    folder = resolve_checkpoint_dir(config.checkpoint_dir)
    if not config.overwrite and _is_up_to_date(folder):
        report(f"{folder} is converted already (--overwrite true converts again).")
        return folder
    model = model_config_from_hf(read_json(folder / "config.json"), folder.resolve().name)
    weights = open_weights(folder)
    plan = plan_from_hf(model, weights.specs, folder)
    _check_tied(plan, weights, folder)
    n_bytes = sum(spec.n_bytes for spec in plan.specs.values())
    require_space(folder, n_bytes)
    tensors = ((rule.ours, to_ours(rule, weights.read)) for rule in plan.rules)
    save_safetensors(folder / WEIGHTS_NAME, _with_progress(tensors, n_bytes, "Converting"), plan.specs)
    save_model_config(folder, model)
    report(f"Converted {len(plan.rules)} tensors ({n_bytes / 1e6:,.1f} MB) to {folder / WEIGHTS_NAME}.")
    return folder


def to_hf(config: ToHfConfig, report: Report = lambda message: None) -> Path:
    """Writes a folder that transformers loads: weights, config.json, tokenizer.

    Args:
        config: from where to where.
        report: is told, in a sentence, what was done.

    Returns:
        The folder written.

    Raises:
        CheckpointError: the checkpoint is not converted, damaged, or does not fit its config.json.
        ConfigError: out_dir is not empty, or the checkpoint itself.
    """
    folder, out_dir = resolve_checkpoint_dir(config.checkpoint_dir), config.out_dir
    require_converted(folder)
    _check_target(folder, out_dir, config.overwrite)
    weights = load_weights(folder / WEIGHTS_NAME)
    model = load_model_config(folder)
    _check_description(folder, model)
    rules, specs = plan_to_hf(model, tensor_specs(weights), folder)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = sum(spec.n_bytes for spec in specs.values())
    require_space(out_dir.parent, n_bytes)
    with tempfile.TemporaryDirectory(prefix=f".{out_dir.name}.", dir=out_dir.parent) as temporary:
        tensors = _with_progress(_their_tensors(rules, weights), n_bytes, "Exporting")
        _write_shards(Path(temporary), tensors, specs, config.max_shard_bytes)
        copy_side_files(folder, Path(temporary))
        _correct_dtype(Path(temporary) / "config.json", specs)
        _move_into(Path(temporary), out_dir)
    report(f"Wrote {len(specs)} tensors ({n_bytes / 1e6:,.1f} MB) in Hugging Face layout to {out_dir}.")
    return out_dir


def read_model_config(folder: Path) -> ModelConfig:
    """Gives the architecture of a checkpoint that is converted or, for a run from random weights, just described.

    Raises:
        CheckpointError: the folder describes no model that litft knows.
    """
    if (folder / MODEL_CONFIG_NAME).exists():
        return load_model_config(folder)
    return model_config_from_hf(read_json(folder / "config.json"), folder.resolve().name)


@dataclass(frozen=True)
class Plan:
    """What a conversion to litft will do.

    Attributes:
        rules: one for each tensor of ours, in order.
        specs: dtype and shape of each tensor of ours.
        ties: heads in the file that must equal the embedding, and are then left out.
    """

    rules: list[Copied]
    specs: dict[str, TensorSpec]
    ties: list[Tie]


def plan_from_hf(model: ModelConfig, found: Mapping[str, TensorSpec], source: Path) -> Plan:
    """Decides where every Hugging Face tensor goes.

    Args:
        model: the architecture that config.json describes.
        found: the tensors that the files hold.
        source: their folder, for messages.

    Raises:
        CheckpointError: a tensor is missing, unclaimed, or of a wrong shape or dtype.
    """
    shapes, plan, claimed = state_shapes(model), Plan([], {}, []), set()
    for rule in tensor_rules(model):
        if isinstance(rule, Drop):
            claimed.add(rule.theirs)
        elif isinstance(rule, Tie):
            claimed.add(rule.theirs)
            plan.ties.extend([rule] if rule.theirs in found else [])
        else:
            theirs = rule.their_shapes(shapes[rule.ours])
            for name, shape in theirs.items():
                _check_tensor(name, shape, found, source)
            claimed.update(theirs)
            plan.rules.append(rule)
            plan.specs[rule.ours] = TensorSpec(_one_dtype(theirs, found, source), shapes[rule.ours])
    _refuse_unclaimed(set(found) - claimed, claimed, source)
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
        _check_tensor(rule.ours, shapes[rule.ours], found, source)
        for name, shape in rule.their_shapes(shapes[rule.ours]).items():
            specs[name] = TensorSpec(found[rule.ours].dtype, shape)
    _refuse_unclaimed(set(found) - set(shapes), set(shapes), source)
    return rules, specs


def to_ours(rule: Copied, read: Mapping[str, Callable[[], Tensor]]) -> Tensor:
    """Gives the tensor of ours that a rule makes.

    Args:
        rule: where it comes from.
        read: what gives each Hugging Face tensor.
    """
    if isinstance(rule, Rename):
        return read[rule.theirs]()
    if isinstance(rule, Fuse):
        return torch.cat([read[part]() for part in rule.parts])
    fused = read[rule.theirs]()
    groups = fused.view(rule.n_query_groups, -1, rule.head_size, *fused.shape[1:])  # (G, H/G + 2, D, C)
    parts = groups[:, :-2], groups[:, -2], groups[:, -1]
    return torch.cat([part.reshape(-1, *fused.shape[1:]) for part in parts])


def to_theirs(rule: Copied, ours: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Gives the Hugging Face tensors that a rule makes of one of ours, by name; the exact inverse of `to_ours`."""
    if isinstance(rule, Rename):
        yield rule.theirs, ours
    elif isinstance(rule, Fuse):
        yield from zip(rule.parts, torch.split(ours, list(rule.rows)), strict=True)
    else:
        kv_rows, rest = rule.n_query_groups * rule.head_size, ours.shape[1:]
        parts = torch.split(ours, [len(ours) - 2 * kv_rows, kv_rows, kv_rows])  # q, k, v
        groups = [part.reshape(rule.n_query_groups, -1, rule.head_size, *rest) for part in parts]
        yield rule.theirs, torch.cat(groups, dim=1).reshape(-1, *rest)


def _is_up_to_date(folder: Path) -> bool:
    """Says whether a whole conversion is there and newer than what it was made from."""
    made = [folder / WEIGHTS_NAME, folder / MODEL_CONFIG_NAME]
    if not all(path.is_file() for path in made):
        return False
    if not any((folder / name).is_file() for name in FILES_AND_INDICES):
        require_converted(folder)  # a finetuned model, which has no sources to make it from again
        return True
    sources = [folder / "config.json", *weights_files(folder)]
    newest = max(path.stat().st_mtime_ns for path in sources if path.is_file())
    return newest <= min(path.stat().st_mtime_ns for path in made) and is_whole(folder / WEIGHTS_NAME)


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
    if found[name].dtype not in _FLOATS:
        raise CheckpointError(
            f"{name} in {source} is {_plain(found[name].dtype)}; litft reads {', '.join(map(_plain, _FLOATS))}."
        )


def _one_dtype(names: Mapping[str, Any], found: Mapping[str, TensorSpec], source: Path) -> torch.dtype:
    """Gives the dtype that tensors to be fused share."""
    dtypes = {found[name].dtype for name in names}
    if len(dtypes) > 1:
        listed = ", ".join(f"{name} is {_plain(found[name].dtype)}" for name in names)
        raise CheckpointError(f"Tensors that become one must share a dtype, but in {source} {listed}.")
    return dtypes.pop()


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _refuse_unclaimed(extra: set[str], known: set[str], source: Path) -> None:
    """Refuses tensors that no rule speaks of."""
    if extra:
        first, more = min(extra), f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        raise CheckpointError(
            f"{source} holds the tensor {first}{more}, which this architecture has no place for."
            f"{did_you_mean(first, known)}"
        )


def _check_tied(plan: Plan, weights: HfWeights, source: Path) -> None:
    """Refuses a head that is not the embedding where the configuration says it is."""
    names = {rule.ours: rule.theirs for rule in plan.rules if isinstance(rule, Rename)}
    for tie in plan.ties:
        embedding = names[tie.ours]
        if not torch.equal(weights.read[tie.theirs](), weights.read[embedding]()):
            raise CheckpointError(
                f"{tie.theirs} in {source} differs from {embedding}, though the configuration ties them; "
                f'set "tie_word_embeddings": false in {source / "config.json"}.'
            )


def _check_target(folder: Path, out_dir: Path, overwrite: bool) -> None:
    """Refuses a target whose files would be mixed with the new ones."""
    if out_dir.resolve() == folder.resolve():
        raise ConfigError(f"out_dir is the checkpoint itself, {out_dir}; its Hugging Face files would be lost.")
    if out_dir.is_file():
        raise ConfigError(f"out_dir is {out_dir}, which is a file; name a folder.")
    if out_dir.is_dir() and any(out_dir.iterdir()) and not overwrite:
        raise ConfigError(f"out_dir is {out_dir}, which is not empty; name another folder or add --overwrite true.")


def _check_description(folder: Path, model: ModelConfig) -> None:
    """Refuses a config.json that describes another model than the weights are."""
    hf_model = model_config_from_hf(read_json(folder / "config.json"), model.name)
    for field in fields(ModelConfig):
        ours, theirs = getattr(model, field.name), getattr(hf_model, field.name)
        if ours != theirs and field.name != "vocab_size":
            raise CheckpointError(
                f"{field.name} is {ours} in {folder / MODEL_CONFIG_NAME} and {theirs} by {folder / 'config.json'}; "
                "correct the one that is wrong."
            )


def _their_tensors(rules: list[Copied], weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Gives every Hugging Face tensor in order."""
    for rule in rules:
        yield from to_theirs(rule, weights[rule.ours])


def _with_progress(tensors: Iterable[tuple[str, Tensor]], total_bytes: int, title: str) -> Iterator[tuple[str, Tensor]]:
    """Passes tensors on and shows on stderr, where that is a terminal, how many bytes are done."""
    with tqdm(total=total_bytes, desc=title, unit="B", unit_scale=True, disable=None) as bar:
        for name, tensor in tensors:
            yield name, tensor
            bar.update(tensor.nbytes)


def _write_shards(
    folder: Path, tensors: Iterator[tuple[str, Tensor]], specs: Mapping[str, TensorSpec], max_bytes: int
) -> None:
    """Writes model.safetensors, or shards of at most `max_bytes` and their index.

    Source: `save_pretrained` of transformers, for the names and the index.
    """
    shards = _split(specs, max_bytes)
    names = [f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    weight_map: dict[str, str] = {}
    for name, shard in zip(names, shards, strict=True):
        # Rules yield in the order of `specs`, so the next tensors of the stream are those of this shard.
        save_safetensors(folder / name, itertools.islice(tensors, len(shard)), {key: specs[key] for key in shard})
        weight_map |= dict.fromkeys(shard, name)
    assert next(tensors, None) is None
    if len(shards) > 1:
        total_size = sum(spec.n_bytes for spec in specs.values())
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        write_json(folder / "model.safetensors.index.json", index)


def _split(specs: Mapping[str, TensorSpec], max_bytes: int) -> list[list[str]]:
    """Divides the tensors, in order, into shards; one that is larger than a shard gets its own."""
    shards: list[list[str]] = [[]]
    filled_bytes = 0
    for name, spec in specs.items():
        if shards[-1] and filled_bytes + spec.n_bytes > max_bytes:
            shards.append([])
            filled_bytes = 0
        shards[-1].append(name)
        filled_bytes += spec.n_bytes
    return shards


def _correct_dtype(config_path: Path, specs: Mapping[str, TensorSpec]) -> None:
    """Makes config.json name the dtype of the weights, for transformers loads in the one that it names."""
    hf_config = read_json(config_path)
    dtypes = {_plain(spec.dtype) for spec in specs.values()}
    key = "dtype" if "dtype" in hf_config else "torch_dtype"
    if len(dtypes) == 1 and key in hf_config and hf_config[key] not in dtypes:
        write_json(config_path, {**hf_config, key: dtypes.pop()})


def _move_into(source_dir: Path, out_dir: Path) -> None:
    """Moves finished files to their place, the weights of an older export removed, config.json last."""
    out_dir.mkdir(exist_ok=True)
    for path in out_dir.iterdir():
        if _HF_WEIGHTS.fullmatch(path.name):
            path.unlink()
    for path in sorted(source_dir.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
        os.replace(path, out_dir / path.name)
