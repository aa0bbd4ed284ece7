"""The safetensors format: reading a header, writing tensor by tensor. Knows no model and no folder layout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from litft.checkpoint.disk import atomic_path
from litft.errors import CheckpointError

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
