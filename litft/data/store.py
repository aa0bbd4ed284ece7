"""Prepared data on disk: one `.pt` file of flat tensors, opened without reading it into memory. Knows no datasets.

format       "litft-sft-1"
input_ids    int32 (total_tokens,)   the rows, one behind the other
target_mask  bool  (total_tokens,)   True where the token itself is to be predicted
offsets      int64 (n_examples + 1,) row i is offsets[i]:offsets[i + 1]
source       int16 (n_examples,)     index into meta["source_names"]
meta         dict  of plain types: tokenizer, prompt style, max_seq_length, ...
score        float32 (n_examples,)   where rows have one: how good or how hard each is, NaN where nobody said
draw         int64 (n_examples,)     in a shard: decides which rows are held out when all shards are joined
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from litft.checkpoint.pickled import refuse_packed, with_own_numbers
from litft.checkpoint.sealed import load_sealed
from litft.config.io import load_yaml
from litft.data.paths import path_hint
from litft.errors import ConfigError, DataError
from litft.text.tokenizer import Tokenizer

FORMAT = "litft-sft-1"
TRAIN_FILE, TEST_FILE, MANIFEST_FILE = "train.pt", "test.pt", "manifest.yaml"

# Source: Lit-GPT `scripts/prepare_alpaca.py`, IGNORE_INDEX; its labels are not shifted.
LIT_GPT_IGNORE_INDEX = -1

# What torch's reader raises on files that are cut short or of other bytes.
_DAMAGE = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)

DTYPES = {"input_ids": torch.int32, "target_mask": torch.bool, "offsets": torch.int64, "source": torch.int16}
ROW_DTYPES = {"score": torch.float32, "draw": torch.int64}


@dataclass(frozen=True)
class PreparedData:
    """Rows of token ids with the tokens to be predicted.

    Attributes:
        path: the file they come from.
        input_ids: int32 (total_tokens,).
        target_mask: bool (total_tokens,).
        offsets: int64 (n_examples + 1,).
        source: int16 (n_examples,).
        meta: how they were made; empty for Lit-GPT's files.
        score: float32 (n_examples,), how good or how hard each row is; None where no row has one.
        draw: int64 (n_examples,), decides which rows of a shard are held out later; None elsewhere.
    """

    path: Path
    input_ids: Tensor
    target_mask: Tensor
    offsets: Tensor
    source: Tensor
    meta: dict[str, Any]
    score: Tensor | None = None
    draw: Tensor | None = None

    @classmethod
    def load(cls, path: Path) -> PreparedData:
        """Opens a file memory-mapped; Lit-GPT's list of `{"input_ids", "labels"}` is read too.

        Raises:
            DataError: the file is missing, damaged or of another form.
        """
        values = load_pt(path)
        if isinstance(values, list):
            return _from_lit_gpt(path, values)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise DataError(f"{path} is not prepared data ({FORMAT}); make it with `litft prepare`.")
        tensors: dict[str, Any] = {name: values.get(name) for name in DTYPES}
        _check_form(path, tensors, values.get("meta"))
        given = {name: values[name] for name in ROW_DTYPES if values.get(name) is not None}
        _check_row_values(path, given, len(tensors["source"]))
        return cls(path=path, **tensors, meta=values["meta"], **given)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.source)

    @cached_property
    def lengths(self) -> Tensor:
        """Tokens of each row, int64 (n_examples,)."""
        return self.offsets.diff()

    @cached_property
    def target_counts(self) -> Tensor:
        """Tokens of each row that carry loss, int64 (n_examples,)."""
        before = torch.cat([torch.zeros(1, dtype=torch.int64), self.target_mask.cumsum(0)])
        return before[self.offsets].diff()

    def row(self, index: int) -> tuple[Tensor, Tensor]:
        """Gives one row: ids int32 (T,) and target mask bool (T,)."""
        begin, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.input_ids[begin:end], self.target_mask[begin:end]


def save_prepared(
    path: Path,
    *,
    input_ids: Tensor,
    target_mask: Tensor,
    offsets: Tensor,
    source: Tensor,
    meta: dict[str, Any],
    score: Tensor | None = None,
    draw: Tensor | None = None,
) -> None:
    """Writes one file; the same rows give the same bytes.

    Args:
        path: is overwritten; give a temporary name and rename.
        input_ids: (total_tokens,).
        target_mask: (total_tokens,).
        offsets: (n_examples + 1,).
        source: (n_examples,).
        meta: plain types only.
        score, draw: (n_examples,), where rows have one.
    """
    given = {"input_ids": input_ids, "target_mask": target_mask, "offsets": offsets, "source": source}
    tensors = {name: tensor.to(DTYPES[name]).contiguous() for name, tensor in given.items()}
    tensors |= {
        name: tensor.to(ROW_DTYPES[name]).contiguous()
        for name, tensor in (("score", score), ("draw", draw))
        if tensor is not None
    }
    # Through a file object: given a path, torch writes the file's own name inside, and the bytes would depend on it.
    with path.open("wb") as file:
        try:
            torch.save({"format": FORMAT, **tensors, "meta": meta}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch has words of its own for a full disk
                raise error.__context__ from error
            raise


def find_data_dir(path: Path) -> Path:
    """Gives the folder of prepared data that is meant.

    Raises:
        DataError: it is not there, with the nearest that exists; holds no train.pt; was not finished; or its manifest
            is not whole.
    """
    path = path.expanduser()
    if path.is_file():
        hint = (
            f"name its folder, {path.parent}" if path.name in (TRAIN_FILE, TEST_FILE) else "run `litft prepare` on it"
        )
        raise DataError(f"data_dir {path} is a file; {hint}.")
    if not path.is_dir():
        raise DataError(f"There is no data_dir {path}.{path_hint(path)} `litft prepare` makes one.")
    if not (path / TRAIN_FILE).is_file():
        below = ", ".join(sorted(str(found.parent) for found in path.glob(f"*/{TRAIN_FILE}")))
        hint = f"did you mean {below}?" if below else "make it with `litft prepare`."
        raise DataError(f"data_dir {path} has no {TRAIN_FILE}; {hint}")
    if (path / MANIFEST_FILE).is_file():
        _check_manifest(path / MANIFEST_FILE)
    elif PreparedData.load(path / TRAIN_FILE).meta:
        raise DataError(f"data_dir {path} has no {MANIFEST_FILE}: its preparation was interrupted; run it again.")
    return path


def _check_manifest(path: Path) -> None:
    """Makes sure that a manifest says of which sources the rows are and, at its end, what train.pt is."""
    try:
        manifest = load_sealed(path)
    except ConfigError as error:
        said = str(error).rstrip(".")
        raise DataError(f"data_dir {path.parent} is unfinished or damaged ({said}); prepare it again.") from error
    files = manifest.get("files")
    train = files.get(TRAIN_FILE) if isinstance(files, dict) else None
    is_whole = isinstance(manifest.get("sources"), dict) and isinstance(train, dict) and "sha256" in train
    if not is_whole:
        raise DataError(
            f"data_dir {path.parent} is unfinished or damaged: its {MANIFEST_FILE} does not say what its sources and "
            "files are; prepare it again."
        )


def check_hashes(folder: Path, hashes: Mapping[str, str]) -> None:
    """Refuses prepared files that are not what the manifest beside them says.

    Args:
        folder: as `find_data_dir` gave it.
        hashes: sha256 of its files, by their names; Lit-GPT's have no manifest, nothing is known of them.

    Raises:
        DataError: one was damaged or changed.
    """
    path = folder / MANIFEST_FILE
    files = load_yaml(path)["files"] if path.is_file() else {}
    for name, digest in hashes.items():
        if name in files and files[name]["sha256"] != digest:
            raise DataError(
                f"{folder / name} is damaged or was changed: its sha256 is not the one in {path}; prepare it again."
            )


def check_data_fits(data: PreparedData, tokenizer: Tokenizer, checkpoint_dir: Path) -> None:
    """Refuses data whose ids mean something else to this model.

    Args:
        data: prepared rows.
        tokenizer: of the model to be finetuned.
        checkpoint_dir: where it stands, for the command that mends it.

    Raises:
        DataError: the data was made with another tokenizer.
    """
    made_with = data.meta.get("tokenizer", {}).get("hash")
    if made_with is None:
        _check_ids(data, tokenizer)
    elif made_with != tokenizer.hash:
        folder, dataset = data.path.parent, data.meta.get("dataset", "DATASET")
        raise DataError(
            f"{data.path} was prepared with the tokenizer of {data.meta.get('checkpoint', 'another model')}, not with "
            f"that of {checkpoint_dir}; prepare the rows for this model too: `litft prepare "
            f"{dataset} --checkpoint_dir {checkpoint_dir}{_file_flag(folder, dataset)} --destination_path "
            f"{folder}-{checkpoint_dir.resolve().name}`, other flags as before."
        )


def _file_flag(folder: Path, dataset: str) -> str:
    """Gives the flag that names the rows, where they were no published dataset."""
    path = folder / MANIFEST_FILE
    manifest = load_yaml(path) if path.is_file() else {}
    source = (manifest.get("sources") or {}).get(dataset)
    if not isinstance(source, dict) or source.get("repo_id") is not None or not source.get("files"):
        return ""
    return f" --data_file {source['files'][0].get('file', 'FILE')}"


def _check_ids(data: PreparedData, tokenizer: Tokenizer) -> None:
    """Makes sure, where no tokenizer is named, that each id is at least one of this tokenizer's."""
    largest = int(data.input_ids.max()) if len(data.input_ids) else -1
    if largest >= tokenizer.vocab_size:
        raise DataError(
            f"{data.path} holds the token id {largest}, but the tokenizer has {tokenizer.vocab_size} tokens; "
            "prepare the data with this model."
        )


def load_pt(path: Path) -> object:
    """Opens a file of tensors and plain types; no code in it is executed.

    Raises:
        DataError: the file is missing or damaged, or holds more than that.
    """
    if not path.is_file():
        raise DataError(f"There is no prepared data {path}.{path_hint(path)}")
    try:
        with warnings.catch_warnings():
            # What torch would only warn of may be damage, of which a sentence is said below, or is read all the same.
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            refuse_packed(path)
            # Files of torch before 1.6 are no zip archives and cannot be mapped.
            mapped = zipfile.is_zipfile(path)
            return with_own_numbers(torch.load(path, map_location="cpu", weights_only=True, mmap=mapped))
    except _DAMAGE as error:
        raise DataError(f"{path} is damaged or not prepared data; make it again with `litft prepare`.") from error


def _check_form(path: Path, tensors: dict[str, Any], meta: object) -> None:
    """Makes sure that tensors are there, of their types, and of lengths that belong together."""
    for name, dtype in DTYPES.items():
        if not _is_flat(tensors[name]) or tensors[name].dtype != dtype:
            raise DataError(f"{path}: {name} is not a flat {dtype} tensor; make the file again.")
    offsets, total = tensors["offsets"], len(tensors["input_ids"])
    fits = len(tensors["target_mask"]) == total and len(offsets) == len(tensors["source"]) + 1
    if not fits or int(offsets[0]) != 0 or int(offsets[-1]) != total or bool((offsets.diff() < 0).any()):
        raise DataError(f"{path}: its parts are of lengths that do not belong together; make the file again.")
    if not isinstance(meta, dict):
        raise DataError(f"{path}: meta is no dict; make the file again.")


def _check_row_values(path: Path, given: dict[str, Any], count: int) -> None:
    """Makes sure that what rows may have is one number for each row."""
    for name, tensor in given.items():
        if not (_is_flat(tensor) and tensor.dtype == ROW_DTYPES[name] and len(tensor) == count):
            raise DataError(
                f"{path}: {name} is not a flat {ROW_DTYPES[name]} tensor of {count} numbers; make the file again."
            )


def _is_flat(value: object) -> TypeGuard[Tensor]:
    """Says whether a value is a tensor of one dimension."""
    return isinstance(value, Tensor) and value.dim() == 1


def _from_lit_gpt(path: Path, rows: list[object]) -> PreparedData:
    """Joins Lit-GPT's rows."""
    if not rows:
        raise DataError(f"{path} holds no rows; prepare it again.")
    pairs = [_lit_gpt_row(path, number, row) for number, row in enumerate(rows)]
    lengths = torch.tensor([0, *(len(ids) for ids, _ in pairs)], dtype=torch.int64)
    return PreparedData(
        path=path,
        input_ids=torch.cat([ids for ids, _ in pairs]),
        target_mask=torch.cat([mask for _, mask in pairs]),
        offsets=lengths.cumsum(0),
        source=torch.zeros(len(rows), dtype=torch.int16),
        meta={},
    )


def _lit_gpt_row(path: Path, number: int, row: object) -> tuple[Tensor, Tensor]:
    """Gives ids and target mask of one of Lit-GPT's rows."""
    ids, labels = (row.get("input_ids"), row.get("labels")) if isinstance(row, dict) else (None, None)
    if not _is_flat(ids) or not _is_flat(labels) or len(ids) != len(labels):
        raise DataError(f"{path}, row {number} has no input_ids and labels of one length; prepare it again.")
    mask = labels != LIT_GPT_IGNORE_INDEX
    mask[:1] = False  # nothing stands before the first token to predict it from
    return ids.to(torch.int32), mask
