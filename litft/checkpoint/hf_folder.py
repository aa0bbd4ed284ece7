"""Writes a Hugging Face folder: weights in shards, config.json, tokenizer, chat template, generation_config.json.

Tensors are read, turned and written one rule at a time. Knows no method of finetuning and no other library.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.disk import read_json, require_space, write_json
from litft.checkpoint.files import MODEL_CONFIG_NAME, copy_side_files
from litft.checkpoint.layout import plain, plan_to_hf, to_theirs
from litft.checkpoint.tensors import TensorSpec, save_safetensors, with_progress
from litft.checkpoint.weights import open_weights
from litft.config.model import ModelConfig
from litft.errors import CheckpointError
from litft.families import FAMILIES, model_config_from_hf
from litft.text.chat_template import chat_template
from litft.text.encoding import Style, stop_ids
from litft.text.settings import load_json
from litft.text.style_files import save_prompt_style
from litft.text.tokenizer import Tokenizer

Read = Mapping[str, Callable[[], Tensor]]
REPORT_FILE = "export_report.json"  # what was proved of an export; by it a folder is known as one
DEFAULT_SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True)
class HfSource:
    """A model that is to become a Hugging Face folder.

    Attributes:
        model: its architecture.
        specs: dtype and shape of each tensor of ours.
        read: what gives each of them.
        side_dir: where config.json and the tokenizer lie.
        style: how the model was trained to be asked; None leaves the chat template that is there.
    """

    model: ModelConfig
    specs: Mapping[str, TensorSpec]
    read: Read
    side_dir: Path
    style: Style | None


def write_hf_folder(source: HfSource, folder: Path, max_shard_bytes: int = DEFAULT_SHARD_BYTES) -> int:
    """Fills a folder with a model that transformers loads.

    Args:
        source: the model.
        folder: exists and is empty.
        max_shard_bytes: the largest weight file; a tensor that is larger gets one of its own.

    Returns:
        Bytes of weights.

    Raises:
        CheckpointError: the tensors or config.json are not those of the architecture, or the disk is full.
    """
    check_description(source.side_dir, source.model)
    rules, specs = plan_to_hf(source.model, source.specs, source.side_dir)
    n_bytes = sum(spec.n_bytes for spec in specs.values())
    require_space(folder, n_bytes)
    tensors = (made for rule in rules for made in to_theirs(rule, source.read))
    _write_shards(folder, with_progress(tensors, n_bytes, "Exporting"), specs, max_shard_bytes)
    copy_side_files(source.side_dir, folder)
    _correct_config(folder / "config.json", source.model, specs)
    if source.style is not None:
        save_prompt_style(folder, source.style)
    tokenizer = tokenizer_of(source.side_dir)
    if tokenizer is not None:
        write_tokenizer_config(folder, tokenizer)
        write_generation_config(folder, tokenizer, source.style)
        if source.style is not None:
            write_chat_template(folder, tokenizer, source.style)
    return n_bytes


def check_hf_folder(source: HfSource, folder: Path) -> int:
    """Reads weights and config.json that were written again and compares them with what was to be written.

    A few prompts would not tell a window or a context that is longer than they are.

    Returns:
        How many tensors there are, all of them equal.

    Raises:
        CheckpointError: a tensor differs, is missing, or is too many, or config.json describes another model.
    """
    rules, specs = plan_to_hf(source.model, source.specs, source.side_dir)
    _check_written_config(folder, source.model, specs)
    written = open_weights(folder)
    if written.specs != specs:
        name = min(name for name in {*written.specs, *specs} if written.specs.get(name) != specs.get(name))
        raise CheckpointError(f"The export differs from what was to be written: {name} in {folder} has another shape.")
    tensors = (made for rule in rules for made in to_theirs(rule, source.read))
    n_bytes = sum(spec.n_bytes for spec in specs.values())
    for name, tensor in with_progress(tensors, n_bytes, "Comparing"):
        if not torch.equal(written.read[name](), tensor.cpu()):
            raise CheckpointError(
                f"The export differs from what was to be written: {name} in {folder}. Nothing was kept; export again, "
                "and if that happens twice look at the disk."
            )
    return len(specs)


def check_description(folder: Path, model: ModelConfig) -> None:
    """Refuses a config.json that describes another model than the weights are.

    Raises:
        CheckpointError: naming the field and its two values.
    """
    hf_model = model_config_from_hf(read_json(folder / "config.json"), model.name)
    for name in _unlike(model, hf_model):
        raise CheckpointError(
            f"{name} is {getattr(model, name)} in {folder / MODEL_CONFIG_NAME} and {getattr(hf_model, name)} by "
            f"{folder / 'config.json'}; correct the one that is wrong."
        )


def _unlike(first: ModelConfig, second: ModelConfig) -> list[str]:
    """Gives the fields in which two descriptions differ; how many rows of the embedding are tokens is not told."""
    names = [field.name for field in fields(ModelConfig) if field.name != "vocab_size"]
    return [name for name in names if getattr(first, name) != getattr(second, name)]


def tokenizer_of(folder: Path) -> Tokenizer | None:
    """Gives the tokenizer of a folder, None where there is no file of one.

    Raises:
        TokenizerError: its files are damaged or contradict each other.
    """
    has_one = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))
    return Tokenizer(folder) if has_one else None


def write_tokenizer_config(folder: Path, tokenizer: Tokenizer) -> None:
    """Says that a tokenizer.json that stands alone is all there is; transformers would guess a class by the model.

    Args:
        folder: a file that is there stays as it is.
        tokenizer: of the folder.
    """
    path = folder / "tokenizer_config.json"
    if path.is_file() or not (folder / "tokenizer.json").is_file():
        return
    ids = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    named = {key: tokenizer.token_text(number) for key, number in ids.items() if number is not None}
    write_json(path, {"tokenizer_class": "PreTrainedTokenizerFast", **named})


def write_chat_template(folder: Path, tokenizer: Tokenizer, style: Style) -> None:
    """Writes the template of a prompt style in both places where it is looked for, in place of any other.

    Source: transformers reads chat_template.jinja, releases before 4.44 only the key in tokenizer_config.json.
    """
    for path in folder.glob("chat_template*"):
        path.unlink()
    template = chat_template(style, tokenizer)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    path = folder / "tokenizer_config.json"
    if path.is_file():
        write_json(path, {**load_json(path), "chat_template": template})


def write_generation_config(folder: Path, tokenizer: Tokenizer, style: Style | None) -> None:
    """Makes generation_config.json name every token at which generation stops; a file that does so stays as it is."""
    path = folder / "generation_config.json"
    before, described = load_json(path), load_json(folder / "config.json")
    wanted = stop_ids(tokenizer, style)
    found = before.get("eos_token_id")
    if not wanted or set(found if isinstance(found, list) else [found]) == set(wanted):
        return
    named = {key: described[key] for key in ("bos_token_id", "pad_token_id") if described.get(key) is not None}
    values: dict[str, Any] = {**named, **before, "eos_token_id": wanted if len(wanted) > 1 else wanted[0]}
    write_json(path, values)


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


def _correct_config(config_path: Path, model: ModelConfig, specs: Mapping[str, TensorSpec]) -> None:
    """Makes config.json describe what was written."""
    before = read_json(config_path)
    hf_config = _corrected(before, model, specs)
    if json.dumps(hf_config) != json.dumps(before):
        write_json(config_path, hf_config)


def _corrected(before: dict[str, Any], model: ModelConfig, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """Gives a config.json for the exported part alone, in the dtype that transformers will load."""
    hf_config = FAMILIES[model.family].config_out(before)
    dtypes = {plain(spec.dtype) for spec in specs.values()}
    key = "dtype" if "dtype" in hf_config else "torch_dtype"
    return {**hf_config, key: dtypes.pop()} if len(dtypes) == 1 and key in hf_config else hf_config


def _check_written_config(folder: Path, model: ModelConfig, specs: Mapping[str, TensorSpec]) -> None:
    """Refuses a written config.json that describes another model, part or dtype.

    Raises:
        CheckpointError: naming what differs.
    """
    written = read_json(folder / "config.json")
    unlike = _unlike(model, model_config_from_hf(written, model.name))
    if unlike or _corrected(written, model, specs) != written:
        what = unlike[0] if unlike else "the part or the dtype"
        raise CheckpointError(
            f"The export differs from what was to be written: {what} in {folder / 'config.json'}; please report this."
        )
