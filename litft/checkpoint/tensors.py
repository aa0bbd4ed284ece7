"""The safetensors format: reading a header, writing piece by piece. Knows no model and no folder layout.

Torch is imported where a tensor is made, and only there: a conversion copies bits, and has done a good part of its work
in the second that torch takes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from safetensors import safe_open

from litft.checkpoint.disk import atomic_path, flush_and_hash, forget_sha256, keep_sha256
from litft.errors import CheckpointError
from litft.terminal.bars import Bar

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Bits = np.ndarray[Any, np.dtype[Any]]  # a tensor as unsigned whole numbers of its size; numpy has no bfloat16

# The name in a file -> torch's, and bytes of one number.
# Source: the safetensors format (its README and `safetensors/torch.py`).
DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_MAX_HEADER_BYTES = 100_000_000  # Source: `MAX_HEADER_SIZE` in the safetensors library
_MOST_SIZES, _LARGEST_SIZE = 8, 2**48  # of a tensor
_SHOWN = 100  # characters of a wrong shape
_PIECE_BYTES = 128 * 1024  # what a processor's cache holds is copied twice as fast as a whole tensor
_MEND = "remove it, then download or convert it again"
_KINDS = {name: kind for kind, (name, _) in DTYPES.items()}


@dataclass(frozen=True)
class TensorSpec:
    """What a file's header says of one tensor.

    Attributes:
        kind: its dtype as the file names it, such as BF16.
        shape: its sizes.
    """

    kind: str
    shape: tuple[int, ...]

    @property
    def item_bytes(self) -> int:
        """Bytes of one number."""
        return DTYPES[self.kind][1]

    @property
    def n_bytes(self) -> int:
        """Bytes of its data."""
        return prod(self.shape) * self.item_bytes

    @property
    def dtype(self) -> torch.dtype:
        """Its dtype, for those who have torch loaded."""
        import torch

        dtype: torch.dtype = getattr(torch, DTYPES[self.kind][0])
        return dtype


def tensor_specs(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    """Gives the header entries of tensors in memory."""
    return {name: _spec_of_tensor(tensor) for name, tensor in tensors.items()}


def _spec_of_tensor(tensor: Tensor) -> TensorSpec:
    """Gives the header entry of one tensor."""
    return TensorSpec(_KINDS[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))


def read_safetensors_header(path: Path) -> dict[str, TensorSpec]:
    """Reads what a safetensors file holds, and checks that all of it is there and nothing else.

    Args:
        path: the file; only its first bytes are read.

    Returns:
        Its tensors in the order in which they lie in the file.

    Raises:
        CheckpointError: the file is missing, cut short or not safetensors; a dtype is unknown, a name stands twice, or
            tensors overlap, leave gaps or do not fit their shapes.

    Source: the safetensors format, github.com/huggingface/safetensors ("Format" in its README).
    """
    header, data_bytes = _read_header(path)
    header.pop("__metadata__", None)
    try:
        places = sorted((*_offsets(entry), name) for name, entry in header.items())
        unknown = [(name, entry["dtype"]) for name, entry in header.items() if entry["dtype"] not in DTYPES]
        specs = {name: _spec_of(entry) for name, entry in header.items() if not unknown}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: its header is not that of tensors ({error}); {_MEND}.") from error
    for name, dtype in unknown:
        raise CheckpointError(f"{name} in {path} has the dtype {dtype}; litft reads {', '.join(DTYPES)}.")
    _check_places(path, places, specs)
    promised_bytes = max((end for _, end, _ in places), default=0)
    if promised_bytes != data_bytes:
        raise CheckpointError(
            f"{path} is damaged: it has {data_bytes:,} bytes of tensors and its header promises {promised_bytes:,}; "
            f"{_MEND}."
        )
    return {name: specs[name] for _, _, name in places}


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Gives the header of a safetensors file and how many bytes follow it."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            header_bytes, size_bytes = int.from_bytes(start, "little"), os.fstat(file.fileno()).st_size
            if len(start) < 8 or header_bytes > min(size_bytes - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path} is damaged or not safetensors: it has {size_bytes:,} bytes and would begin with a header "
                    f"of {header_bytes:,}; {_MEND}."
                )
            text = file.read(header_bytes)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}.") from error
    try:
        header = json.loads(text, object_pairs_hook=_without_repeats)
    except _RepeatedError as error:
        raise CheckpointError(f'{path} names "{error}" twice in its header; do not use this file.') from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged or not safetensors: its header cannot be read; {_MEND}.") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is damaged or not safetensors: its header is no map; {_MEND}.")
    return header, size_bytes - 8 - header_bytes


class _RepeatedError(Exception):
    """A name that stands twice where it must stand once."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Builds one object of a header; raises _RepeatedError, where json would silently keep the last of two."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise _RepeatedError(name)
        made[name] = value
    return made


def _offsets(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Gives where a tensor begins and ends, in bytes after the header."""
    begin, end = entry["data_offsets"]
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise ValueError(f"data_offsets {[begin, end]}")
    return begin, end


def _spec_of(entry: Mapping[str, Any]) -> TensorSpec:
    """Turns one header entry into a spec."""
    shape = entry["shape"]
    # The product of many sizes of many digits would take hours.
    if not isinstance(shape, list) or len(shape) > _MOST_SIZES or not all(map(_is_size, shape)):
        raise ValueError(f"shape {str(shape)[:_SHOWN]}")
    return TensorSpec(entry["dtype"], tuple(shape))


def _is_size(value: object) -> bool:
    """Says whether a tensor can have so many rows."""
    return type(value) is int and 0 <= value <= _LARGEST_SIZE


def _check_places(path: Path, places: list[tuple[int, int, str]], specs: Mapping[str, TensorSpec]) -> None:
    """Refuses tensors, given in order, that overlap, leave bytes between them, or are not as long as they must be."""
    place = 0
    for begin, end, name in places:
        if begin != place:
            fault = (
                "overlaps the one before it" if begin < place else f"leaves {begin - place:,} bytes unused before it"
            )
            raise CheckpointError(f"{path} is damaged: the tensor {name} {fault}; {_MEND}.")
        if end - begin != specs[name].n_bytes:
            shape = list(specs[name].shape)
            raise CheckpointError(
                f"{path} is damaged: the tensor {name} of shape {shape} has {end - begin:,} bytes and needs "
                f"{specs[name].n_bytes:,}; {_MEND}."
            )
        place = end


def is_whole(path: Path) -> bool:
    """Says whether a safetensors file is there and as long as its header promises."""
    try:
        read_safetensors_header(path)
    except CheckpointError:
        return False
    return True


def save_safetensors(
    path: Path,
    pieces: Iterable[tuple[str, Tensor | Bits]],
    specs: Mapping[str, TensorSpec],
    metadata: Mapping[str, str] | None = None,
    keeps_digest: bool = False,
) -> None:
    """Writes a safetensors file, one tensor in memory at a time; it appears whole or not at all.

    Args:
        path: the file; its folder exists.
        pieces: every tensor of `specs` by its name, in any order; whole, or its bits in slices, first rows first.
        specs: what will come, so that the header can be written first.
        metadata: the file's notes; by default `{"format": "pt"}`, without which older loaders refuse the file.
        keeps_digest: whether its SHA-256 is kept beside it; it is computed while the disk takes the file.

    Raises:
        CheckpointError: the disk is full or cannot be written.
    """
    header, places = _layout(specs, metadata or {"format": "pt"})
    forget_sha256(path)
    ends = {name: place + specs[name].n_bytes for name, place in places.items()}
    try:
        with atomic_path(path) as temporary:
            with temporary.open("wb") as file:
                file.write(header)
                for name, piece in pieces:
                    assert isinstance(piece, np.ndarray) or _spec_of_tensor(piece) == specs[name], name
                    file.seek(places[name])
                    places[name] += _write(file, piece if isinstance(piece, np.ndarray) else as_bits(piece))
                assert places == ends, {name for name in ends if places[name] != ends[name]}
            digest = flush_and_hash(temporary) if keeps_digest else None
        if digest:
            keep_sha256(path, digest)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error.strerror}.") from error


def _write(file: BinaryIO, piece: Bits) -> int:
    """Writes the bytes of an array and gives how many they are."""
    raw = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
    for start in range(0, len(raw), _PIECE_BYTES):
        file.write(raw[start : start + _PIECE_BYTES])
    return len(raw)


def as_bits(tensor: Tensor) -> Bits:
    """Gives the bits of a tensor of any dtype; those of a contiguous one on the CPU are not copied."""
    import torch

    flat: Bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return flat.view(f"u{tensor.dtype.itemsize}").reshape(tuple(tensor.shape))


def as_tensor(bits: Bits, spec: TensorSpec) -> Tensor:
    """Gives bits as the tensor that they are; nothing is copied."""
    import torch

    return torch.from_numpy(bits.reshape(-1).view(np.uint8)).view(spec.dtype).reshape(spec.shape)


def map_safetensors(path: Path, specs: Mapping[str, TensorSpec]) -> dict[str, Bits]:
    """Gives the bits of every tensor of a file, mapped into memory: read when used.

    Args:
        path: must stay as it is while the bits live.
        specs: its header.
    """
    whole = np.asarray(np.memmap(path, np.uint8, mode="c"))  # "c": what someone changed would stay in memory
    place, bits = len(whole) - sum(spec.n_bytes for spec in specs.values()), {}
    for name, spec in specs.items():
        bits[name] = whole[place : place + spec.n_bytes].view(f"u{spec.item_bytes}").reshape(spec.shape)
        place += spec.n_bytes
    return bits


def _layout(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Gives the header and the place of every tensor in the file, the widest dtypes first so that all are aligned."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for name, spec in sorted(specs.items(), key=lambda item: (-item[1].item_bytes, item[0])):
        ends = [place, place + spec.n_bytes]
        entries[name] = {"dtype": spec.kind, "shape": list(spec.shape), "data_offsets": ends}
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


Piece = TypeVar("Piece", "Tensor", Bits)


def with_progress(pieces: Iterable[tuple[str, Piece]], total_bytes: int, title: str) -> Iterator[tuple[str, Piece]]:
    """Passes tensors on and shows on stderr, where that is a terminal, how many bytes are done."""
    with Bar(title, total_bytes, "B") as bar:
        for name, piece in pieces:
            yield name, piece
            bar.update(piece.nbytes)
