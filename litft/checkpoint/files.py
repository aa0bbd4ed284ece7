"""Checkpoint folders and safe writing: finding a folder, checking it, reading and writing its files.

The layout is that of downloaded, converted and finetuned folders alike. Knows no Hugging Face tensor names.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from litft.config.io import dump_yaml, load_yaml
from litft.config.model import ModelConfig
from litft.errors import CheckpointError, ConfigError, did_you_mean

CHECKPOINTS_DIR = Path("checkpoints")
WEIGHTS_NAME = "lit_model.safetensors"
MODEL_CONFIG_NAME = "model_config.yaml"
ADAPTER_NAMES = ("lora.safetensors", "adapter.safetensors")

# Source: the safetensors format (its README and `safetensors/torch.py`).
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# Everything beside the weights that a model needs to be used: the tokenizer in its several forms, and the descriptions.
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template*",
    "prompt_style.yaml",
)


def resolve_checkpoint_dir(path: Path) -> Path:
    """Gives the folder that is meant: `path` itself, or `checkpoints/path` for an `ORG/NAME`.

    Args:
        path: what the user typed.

    Raises:
        CheckpointError: there is no such folder; with the nearest name that exists, or the model of a run's folder.
    """
    for candidate in (path, CHECKPOINTS_DIR / path):
        if (candidate / "final").is_dir() and not (candidate / "config.json").exists():
            raise CheckpointError(f"{candidate} is the folder of a run; its model is {candidate / 'final'}.")
        if candidate.is_dir():
            return candidate
    if path.exists():
        raise CheckpointError(f"{path} is a file; a checkpoint is a folder, such as {path.parent}.")
    known = _known_checkpoints(path)
    hint = did_you_mean(str(path), known) or did_you_mean(path.name, [Path(name).name for name in known])
    if not hint and not path.is_absolute() and len(path.parts) == 2:
        hint = f" `litft download --repo_id {path}` fetches a model of that name."
    raise CheckpointError(f'No checkpoint folder "{path}", neither here nor under {CHECKPOINTS_DIR}/.{hint}')


def _known_checkpoints(path: Path) -> list[str]:
    """Gives the folders the user may have meant: those under checkpoints/ and the neighbours of the path."""
    names = [str(folder.relative_to(CHECKPOINTS_DIR)) for folder in CHECKPOINTS_DIR.glob("*/*") if folder.is_dir()]
    neighbours = path.parent.glob("*") if path.parent.is_dir() else ()
    return names + [str(folder) for folder in neighbours if folder.is_dir()]


def require_converted(checkpoint_dir: Path) -> None:
    """Makes sure that a folder holds whole weights in litft's layout and their description.

    Args:
        checkpoint_dir: as `resolve_checkpoint_dir` gave it.

    Raises:
        CheckpointError: something is missing or damaged, with the command that mends it.
    """
    if not checkpoint_dir.is_dir():
        raise CheckpointError(f'No checkpoint folder "{checkpoint_dir}".')
    weights = checkpoint_dir / WEIGHTS_NAME
    missing = [name for name in (WEIGHTS_NAME, MODEL_CONFIG_NAME) if not (checkpoint_dir / name).is_file()]
    if not missing:
        read_safetensors_header(weights)
        return
    adapter = next((name for name in ADAPTER_NAMES if (checkpoint_dir / name).is_file()), None)
    if adapter is not None:
        way = (
            f"`litft merge --checkpoint_dir {checkpoint_dir}` writes one"
            if adapter == "lora.safetensors"
            else ("adapters cannot be merged, use them with `litft generate`")
        )
        raise CheckpointError(f"{checkpoint_dir} holds only {adapter}, not a whole model; {way}.")
    if not (checkpoint_dir / "config.json").is_file():
        raise CheckpointError(f"{checkpoint_dir} is not a checkpoint: it has neither {missing[0]} nor config.json.")
    raise CheckpointError(
        f"{checkpoint_dir} is not converted (no {missing[0]}); "
        f"run `litft convert from_hf --checkpoint_dir {checkpoint_dir}`."
    )


def load_model_config(checkpoint_dir: Path) -> ModelConfig:
    """Gives the architecture from a folder's model_config.yaml.

    Raises:
        CheckpointError: the file is missing, malformed, or describes no possible model.
    """
    path = checkpoint_dir / MODEL_CONFIG_NAME
    try:
        return ModelConfig.from_dict(load_yaml(path))
    except ConfigError as error:
        raise CheckpointError(f"The model's description {path} cannot be used: {error}") from error


def save_model_config(checkpoint_dir: Path, config: ModelConfig) -> None:
    """Writes a folder's model_config.yaml."""
    with atomic_path(checkpoint_dir / MODEL_CONFIG_NAME) as path:
        path.write_text(dump_yaml(config.to_dict()), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, is not JSON, or holds something else than an object.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}; is {path.parent} a model folder?") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again.") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}; a JSON object is needed.")
    return loaded


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a JSON object, indented as Hugging Face does."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def copy_side_files(source_dir: Path, target_dir: Path) -> list[Path]:
    """Copies tokenizer, prompt style and descriptions, everything but weights, to another checkpoint folder.

    Args:
        source_dir: a checkpoint folder.
        target_dir: is created; files of the same names are replaced.

    Returns:
        The files written.
    """
    target_dir.mkdir(parents=True, exist_ok=True)
    found = {path for pattern in SIDE_FILES for path in source_dir.glob(pattern) if path.is_file()}
    copied = []
    for path in sorted(found):
        with atomic_path(target_dir / path.name) as temporary:
            shutil.copyfile(path, temporary)
        copied.append(target_dir / path.name)
    return copied


def require_space(folder: Path, needed_bytes: int) -> None:
    """Refuses to start writing what will not fit.

    Args:
        folder: exists, on the disk to be written.
        needed_bytes: how much will be written.

    Raises:
        CheckpointError: less is free than is needed.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise CheckpointError(
            f"{folder} has {free_bytes / 1e9:.1f} GB free and {needed_bytes / 1e9:.1f} GB are needed; "
            "free some space or choose another disk."
        )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, which becomes `path` if the block ends well and vanishes if it does not.

    Args:
        path: the file that is to appear whole or not at all; its folder exists.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
        _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    """Waits until a file's contents, or a folder's list of names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Gives the SHA-256 of a file as hexadecimal digits, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@dataclass(frozen=True)
class TensorSpec:
    """What a file's header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of its data."""
        return prod(self.shape) * self.dtype.itemsize


def tensor_specs(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Gives the header entries of tensors in memory."""
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def read_safetensors_header(path: Path) -> dict[str, TensorSpec]:
    """Reads what a safetensors file holds, and checks that all of it is there.

    Args:
        path: the file; only its first bytes are read.

    Raises:
        CheckpointError: the file is missing, cut short or not safetensors, or a dtype is unknown.

    Source: the safetensors format, github.com/huggingface/safetensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            header_bytes = int.from_bytes(start, "little")
            size_bytes = os.fstat(file.fileno()).st_size
            text = file.read(header_bytes) if len(start) == 8 and header_bytes <= size_bytes - 8 else b""
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error
    try:
        entries = json.loads(text)
        specs = {name: _spec_of(entry) for name, entry in entries.items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        whole_bytes = 8 + header_bytes + max(ends, default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged or not safetensors: its header cannot be read; {_MEND}.") from error
    if whole_bytes != size_bytes:
        raise CheckpointError(
            f"{path} is damaged: it has {size_bytes:,} bytes and its header promises {whole_bytes:,}; {_MEND}."
        )
    return specs


def is_whole(path: Path) -> bool:
    """Says whether a safetensors file is there and as long as its header promises."""
    try:
        read_safetensors_header(path)
    except CheckpointError:
        return False
    return True


_MEND = "remove it, then download or convert it again"


def _spec_of(entry: Mapping[str, Any]) -> TensorSpec:
    """Turns one header entry into a spec; raises KeyError for a dtype that torch does not have."""
    return TensorSpec(DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"]))


def save_safetensors(
    path: Path,
    tensors: Iterable[tuple[str, Tensor]],
    specs: Mapping[str, TensorSpec],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a safetensors file, one tensor in memory at a time; it appears whole or not at all.

    Args:
        path: the file; its folder exists.
        tensors: every tensor of `specs` once, in any order.
        specs: what will come, so that the header can be written first.
        metadata: the file's notes; by default `{"format": "pt"}`, without which older loaders refuse the file.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    header, offsets = _layout(specs, metadata or {"format": "pt"})
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(header)
            written = set()
            for name, tensor in tensors:
                assert specs[name] == TensorSpec(tensor.dtype, tuple(tensor.shape)), name
                file.seek(offsets[name])
                file.write(_raw_bytes(tensor))
                written.add(name)
            assert written == set(specs), set(specs) - written
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror}.") from error


def _raw_bytes(tensor: Tensor) -> memoryview:
    """Gives the bytes of a tensor of any dtype, bfloat16 too, which numpy does not know; contiguous ones uncopied."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _layout(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Gives the header and the place of every tensor in the file, the widest dtypes first so that all are aligned."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for name, spec in sorted(specs.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        ends = [place, place + spec.n_bytes]
        entries[name] = {"dtype": _DTYPE_NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": ends}
        place += spec.n_bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    starts = {name: len(header) + entry["data_offsets"][0] for name, entry in entries.items() if name in specs}
    return header, starts


def load_weights(path: Path) -> dict[str, Tensor]:
    """Gives every tensor of a safetensors file, mapped into memory: read when used.

    Args:
        path: must stay as it is while the tensors live.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    names = read_safetensors_header(path)
    with safe_open(path, framework="pt", device="cpu") as file:
        return {name: file.get_tensor(name) for name in names}
