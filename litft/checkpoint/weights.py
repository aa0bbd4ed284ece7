"""The weight files of a Hugging Face folder, whatever their kind, as one set of named tensors read when asked for.

Reads `model.safetensors` and `pytorch_model.bin`, whole or in shards with an index. Knows no family and no layout.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from litft.checkpoint.disk import read_json
from litft.checkpoint.tensors import (
    Bits,
    TensorSpec,
    as_bits,
    as_tensor,
    map_safetensors,
    read_safetensors_header,
    tensor_specs,
)
from litft.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

# In the order in which transformers looks for them. Source: `modeling_utils.py` of transformers.
FILES_AND_INDICES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(?P<end>\.\w+)")


# What may be mistaken for weights that litft reads, and what to do instead.
_NOT_READ = {
    "adapter_config.json": "it is a PEFT adapter, which must be merged into its base model first",
    "consolidated*": "that is Meta's or Mistral's own format, download the repository in HF format",
    "*.gguf": "download the model in HF format",
    "lit_model*.pth*": "it is Lit-GPT's, which `litft convert from_litgpt` reads",
    "*-of-*.safetensors": "the index model.safetensors.index.json is missing, download it",
    "*-of-*.bin": "the index pytorch_model.bin.index.json is missing, download it",
}


@dataclass(frozen=True)
class HfWeights:
    """The tensors of one model.

    Attributes:
        specs: dtype and shape of each, from the headers alone.
        read: for each, what gives the tensor; memory is used only while the tensor lives.
        files: where they come from.
        bits: for each, what gives its bits; without torch where the file is safetensors.
    """

    specs: dict[str, TensorSpec]
    read: dict[str, Callable[[], Tensor]]
    files: list[Path]
    bits: dict[str, Callable[[], Bits]] = field(default_factory=dict)


def weights_files(folder: Path) -> list[Path]:
    """Gives the weight files of a Hugging Face folder; safetensors win over pickled files.

    Args:
        folder: a model folder.

    Returns:
        One file, or every shard that the index names, in order.

    Raises:
        CheckpointError: there are none, the index is malformed, or a shard is missing.
    """
    found = _file_or_index(folder)
    return _shards(found) if found.suffix == ".json" else [found]


def _file_or_index(folder: Path) -> Path:
    """Gives the one weight file, or the index of the shards."""
    for name in FILES_AND_INDICES:
        if (folder / name).is_file():
            return folder / name
    for pattern, advice in _NOT_READ.items():
        for path in sorted(folder.glob(pattern)):
            raise CheckpointError(f"{folder} holds {path.name}, but no weights that litft reads; {advice}.")
    raise CheckpointError(f"{folder} holds no Hugging Face weights ({', '.join(FILES_AND_INDICES)}).")


def _shards(index: Path) -> list[Path]:
    """Gives the shards of an index, all of which are there."""
    names = sorted(set(_weight_map(index).values()))
    for expected in _all_of(names):
        if expected not in names:
            raise CheckpointError(f"{index} does not name the shard {expected}; download the index again.")
        if not (index.parent / expected).is_file():
            raise CheckpointError(
                f"The shard {expected} that {index.name} names is missing from {index.parent}; download it again."
            )
    return [index.parent / name for name in names]


def _all_of(names: list[str]) -> list[str]:
    """Gives these shard names and those that "00001-of-00003" says are their companions."""
    expected = set(names)
    for match in filter(None, map(_SHARD.fullmatch, names)):
        stem, count, end = match["stem"], match["count"], match["end"]
        expected |= {f"{stem}-{number:05d}-of-{count}{end}" for number in range(1, int(count) + 1)}
    return sorted(expected)


def _weight_map(index: Path) -> dict[str, str]:
    """Gives tensor name -> shard name of an index, none of them outside its folder."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f'{index} has no "weight_map" from tensors to files; download it again.')
    for shard in sorted(set(weight_map.values())):
        if not shard.endswith((".safetensors", ".bin")) or re.search(r"[\\/:]", shard) or not shard.isprintable():
            raise CheckpointError(
                f'{index} names the shard "{shard}", which is no weight file beside it; do not use this model.'
            )
    return weight_map


def open_weights(folder: Path, standard_name: Callable[[str], str] = str) -> HfWeights:
    """Opens the weights of a Hugging Face folder; only headers are read.

    Args:
        folder: a model folder.
        standard_name: gives the name under which a tensor is to be known from its name in the file.

    Raises:
        CheckpointError: a file is missing, damaged, or holds something else than tensors.
    """
    source, files = _file_or_index(folder), weights_files(folder)
    readers = {path: _open_bin(path) if path.suffix == ".bin" else _open_safetensors(path) for path in files}
    if source.suffix == ".json":
        for name, shard in _weight_map(source).items():
            if name not in readers[folder / shard][0]:
                raise CheckpointError(f"{name} should be in {folder / shard} by {source.name}, but is not there.")
    weights = HfWeights({}, {}, files)
    for path, (specs, bits) in readers.items():
        for name, spec in specs.items():
            known = standard_name(name)
            if known in weights.specs:
                raise CheckpointError(f"{name} stands twice in {folder}, the second time in {path.name}.")
            weights.specs[known], weights.bits[known] = spec, bits[name]
            weights.read[known] = partial(_read_tensor, bits[name], spec)
    return weights


def _read_tensor(bits: Callable[[], Bits], spec: TensorSpec) -> Tensor:
    """Gives the tensor of some bits."""
    return as_tensor(bits(), spec)


Opened = tuple[dict[str, TensorSpec], dict[str, Callable[[], Bits]]]


def _open_safetensors(path: Path) -> Opened:
    """Opens one safetensors file."""
    specs = read_safetensors_header(path)
    bits = map_safetensors(path, specs)
    return specs, {name: partial(bits.__getitem__, name) for name in bits}


def _open_bin(path: Path) -> Opened:
    """Opens one pickled file; nothing in it is executed, and its tensors stay on disk until they are used."""
    from torch import Tensor

    from litft.checkpoint.pickled import load_pickled

    tensors = load_pickled(path, "download it again, as safetensors if you can")
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{path} is not a map from names to tensors; is it a training checkpoint?")
    return tensor_specs(tensors), {name: partial(as_bits, tensor) for name, tensor in tensors.items()}
