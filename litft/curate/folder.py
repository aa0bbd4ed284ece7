"""A prepared folder that is read, and written again with a score for each row. Knows no models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.disk import sha256_file
from litft.config.io import load_yaml
from litft.data.listing import table_lines
from litft.data.publish import damaged_file, publish
from litft.data.store import DTYPES, MANIFEST_FILE, TEST_FILE, TRAIN_FILE, PreparedData, find_data_dir
from litft.data.view import Table
from litft.data.vocabulary import TOKENIZER_DIR
from litft.errors import DataError


@dataclass(frozen=True)
class Folder:
    """Prepared data as it lies there.

    Attributes:
        path: the folder.
        splits: train.pt, and test.pt where rows were held out.
        manifest: what was said of them.
    """

    path: Path
    splits: dict[str, PreparedData]
    manifest: dict[str, Any]

    @property
    def train(self) -> PreparedData:
        """The rows of train.pt."""
        return self.splits[TRAIN_FILE]

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return sum(map(len, self.splits.values()))

    def digests(self) -> dict[str, str]:
        """Gives the SHA-256 of each file."""
        return {name: sha256_file(self.path / name) for name in self.splits}


def open_folder(data_dir: Path) -> Folder:
    """Opens prepared data.

    Raises:
        DataError: it is none, or holds rows of Lit-GPT, which name no tokenizer.
    """
    path = find_data_dir(data_dir)
    names = [TRAIN_FILE, *([TEST_FILE] if (path / TEST_FILE).is_file() else [])]
    splits = {name: PreparedData.load(path / name) for name in names}
    if not splits[TRAIN_FILE].meta:
        raise DataError(f"{path} holds rows of Lit-GPT; `litft prepare tokenized` makes them ready to be scored.")
    return Folder(path, splits, load_yaml(path / MANIFEST_FILE))


def check_destination(data_dir: Path, destination: Path) -> Path:
    """Gives where the scored folder goes.

    Raises:
        DataError: it is a file, or the folder that is read.
    """
    destination = destination.expanduser()
    if destination.exists() and not destination.is_dir():
        raise DataError(f"destination_path {destination} is a file; name a folder.")
    if destination.resolve() == data_dir.expanduser().resolve():
        raise DataError(f"destination_path is data_dir, {destination}, which is only read; name another folder.")
    return destination


def is_finished(destination: Path, how: Mapping[str, Any], overwrite: bool, report: Callable[[str], None]) -> bool:
    """Says whether the scored folder is there already, undamaged, with scores that were made in the same way.

    Args:
        destination: where it goes.
        how: all that decides the scores, as the manifest says it; whatever else is said there may differ.
        overwrite: whether it is to be made again in any case.
        report: is told that it is there.

    Raises:
        DataError: the destination holds other finished data, and nobody asked to replace it.
    """
    if overwrite or not (destination / MANIFEST_FILE).is_file():
        return False
    manifest = load_yaml(destination / MANIFEST_FILE)
    told, files = manifest.get("score") or {}, manifest.get("files") or {}
    if not files or any(told.get(name) != value for name, value in how.items()):
        raise DataError(
            f"destination_path {destination} already holds prepared data, not scored in this way; name another folder, "
            "or replace it with --overwrite true."
        )
    if damaged := damaged_file(destination, files):
        raise DataError(f"{damaged} is missing or was changed; write it again with --overwrite true.")
    report(f"{destination} is whole already: these rows, scored in this way.")
    return True


def write_scored(folder: Folder, destination: Path, scores: Mapping[str, Sequence[float]], how: dict[str, Any]) -> None:
    """Writes a folder again, each row with its score.

    Args:
        folder: what is scored.
        destination: where it goes; other files there stay.
        scores: for each file one number a row, NaN where there is none.
        how: what the score is, for meta and manifest: `kind`, and how it was made.

    Raises:
        DataError: it cannot be written.
    """
    tokenizer = folder.path / TOKENIZER_DIR
    publish(
        destination,
        {name: _scored(data, scores[name]) for name, data in folder.splits.items()},
        {**folder.train.meta, "score": how},
        {**folder.manifest, "score": how},
        tokenizer if tokenizer.is_dir() else None,
    )


def _scored(data: PreparedData, scores: Sequence[float]) -> dict[str, Tensor]:
    """Gives rows as the tensors of `save_prepared`."""
    return {name: getattr(data, name) for name in DTYPES} | {"score": torch.tensor(scores, dtype=torch.float32)}


def score_table(data: PreparedData, scores: Sequence[float]) -> str:
    """Gives, for each source, how many rows have a score, their mean and their quartiles, as lines to read.

    Args:
        data: the rows.
        scores: one a row, NaN where there is none.
    """
    values = torch.tensor(scores, dtype=torch.float64)
    names = [str(name) for name in data.meta["source_names"]]
    groups = [(name, values[data.source == number]) for number, name in enumerate(names)]
    if len(names) > 1:
        groups.append(("all", values))
    head = ("source", "rows", "scored", "mean", "25%", "50%", "75%")
    table = Table("", head, [_cells(name, group) for name, group in groups if len(group)])
    return "".join(table_lines(table)).rstrip("\n")


def _cells(name: str, values: Tensor) -> tuple[str, ...]:
    """Gives one line of the table."""
    known = values[~values.isnan()]
    numbers = [known.mean(), *(known.quantile(share) for share in (0.25, 0.5, 0.75))] if len(known) else [math.nan] * 4
    return (name, f"{len(values):,}", f"{len(known):,}", *(f"{float(number):.3f}" for number in numbers))
