"""The folders that are mixed, and rows of them. Knows no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.config.io import load_yaml
from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE, PreparedData, find_data_dir
from litft.errors import DataError

# What rows must share to be learned by one model in one way.
_SHARED = {"tokenizer": "tokenizer", "prompt_style": "prompt style", "new_tokens": "new tokens"}


@dataclass(frozen=True)
class Part:
    """One prepared folder.

    Attributes:
        name: as the user gave it.
        folder: where it lies.
        sources: what each of its sources is called in the mix.
        files: its rows by the names of their files; test.pt is missing where nothing was held out.
        manifest: what was said of it.
    """

    name: str
    folder: Path
    sources: tuple[str, ...]
    files: dict[str, PreparedData]
    manifest: dict[str, Any]

    @property
    def train(self) -> PreparedData:
        """The training rows."""
        return self.files[TRAIN_FILE]


@dataclass(frozen=True)
class Rows:
    """Rows of one file of a part, in their order; a row may stand here several times.

    Attributes:
        part: the folder.
        file: which of its files.
        numbers: which rows, int64 (n,).
    """

    part: Part
    file: str
    numbers: Tensor

    def __len__(self) -> int:
        """How many rows these are."""
        return len(self.numbers)

    @property
    def data(self) -> PreparedData:
        """The file they lie in."""
        return self.part.files[self.file]

    @property
    def lengths(self) -> Tensor:
        """Tokens of each, int64 (n,)."""
        return self.data.lengths[self.numbers]

    @property
    def target_counts(self) -> Tensor:
        """Tokens of each that carry loss, int64 (n,)."""
        return self.data.target_counts[self.numbers]

    @property
    def scores(self) -> Tensor:
        """The score of each, float32 (n,); NaN where there is none."""
        score = self.data.score
        return torch.full((len(self),), torch.nan) if score is None else score[self.numbers]

    @property
    def source_names(self) -> list[str]:
        """What the source of each is called in the mix."""
        return [self.part.sources[number] for number in self.data.source[self.numbers].tolist()]

    def only(self, numbers: Sequence[int] | Tensor) -> Rows:
        """Gives other rows of the same file."""
        return Rows(self.part, self.file, torch.as_tensor(numbers, dtype=torch.int64))


def open_parts(names: Sequence[str], keeps_names: bool) -> list[Part]:
    """Opens prepared folders.

    Args:
        names: as the user gave them.
        keeps_names: parts of one whole keep the names of their sources; others are called by their folders.

    Raises:
        DataError: one is no prepared data, or was made with another tokenizer or prompt style than the first.
    """
    parts = [_open(name, keeps_names) for name in names]
    for part in parts[1:]:
        for field, said in _SHARED.items():
            if parts[0].train.meta.get(field) != part.train.meta.get(field):
                raise DataError(
                    f"{part.name} was prepared with another {said} than {parts[0].name}; prepare it again with "
                    "the same."
                )
    return parts


def all_rows(parts: Sequence[Part], file: str) -> list[Rows]:
    """Gives all rows of a file of each part that has it."""
    return [Rows(part, file, torch.arange(len(part.files[file]))) for part in parts if file in part.files]


def _open(name: str, keeps_names: bool) -> Part:
    """Opens one folder."""
    folder = find_data_dir(Path(name))
    files = {TRAIN_FILE: PreparedData.load(folder / TRAIN_FILE)}
    if not files[TRAIN_FILE].meta:
        raise DataError(f"{folder} holds rows of Lit-GPT; `litft prepare tokenized` makes them ready to be mixed.")
    if (folder / TEST_FILE).is_file():
        files[TEST_FILE] = PreparedData.load(folder / TEST_FILE)
    sources = tuple(files[TRAIN_FILE].meta["source_names"])
    if not keeps_names:
        sources = (folder.name,) if len(sources) == 1 else tuple(f"{folder.name}/{source}" for source in sources)
    return Part(name, folder, sources, files, load_yaml(folder / MANIFEST_FILE))
