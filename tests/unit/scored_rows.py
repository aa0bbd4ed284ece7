"""Prepared folders with rows of chosen answers, beside a random model of a few thousand weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny_run import make_world
from tiny_text import BOS

from litft.checkpoint.disk import sha256_file
from litft.data.store import save_prepared
from litft.text.tokenizer import Tokenizer

Row = tuple[list[int], list[bool]]


def draw_row(generator: torch.Generator, *lengths: int) -> Row:
    """Draws a row: BOS, then questions and answers in turn, each of so many tokens."""
    ids, mask = [BOS], [False]
    for index, length in enumerate(lengths):
        ids += torch.randint(3, 259, (length,), generator=generator).tolist()
        mask += [bool(index % 2)] * length
    return ids, mask


def draw_rows(seed: int = 0) -> list[Row]:
    """Draws rows of one answer and of two, of many lengths, and one that answers nothing."""
    generator = torch.Generator().manual_seed(seed)
    one = [draw_row(generator, 3 + number % 7, 2 + number % 5) for number in range(14)]
    two = [draw_row(generator, 4, 3 + number, 2, 6) for number in range(5)]
    return [*one, *two, draw_row(generator, 0, 9)]


def write_folder(folder: Path, by: Tokenizer, rows: Sequence[Row], held_out: int = 4, **meta: Any) -> Path:
    """Writes prepared data as `litft prepare` would, the last rows held out, two sources in turn."""
    folder.mkdir()
    told = {"tokenizer": {"hash": by.hash}, "source_names": ["plums", "pears"], "train_on": "completions"}
    for name, part in (("train.pt", rows[:-held_out]), ("test.pt", rows[-held_out:])):
        save_prepared(
            folder / name,
            input_ids=torch.tensor([number for ids, _ in part for number in ids]),
            target_mask=torch.tensor([learn for _, mask in part for learn in mask]),
            offsets=torch.tensor([0, *(len(ids) for ids, _ in part)]).cumsum(0),
            source=torch.arange(len(part)) % 2,
            meta={**told, **meta},
        )
    digest = sha256_file(folder / "train.pt")
    (folder / "manifest.yaml").write_text(f"dataset: fruit\nsources: {{}}\nfiles: {{train.pt: {{sha256: {digest}}}}}\n")
    return folder


def make_scored_world(folder: Path, **meta: Any) -> Path:
    """Makes `model/` and `fruit/`."""
    make_world(folder)
    write_folder(folder / "fruit", Tokenizer(folder / "model"), draw_rows(), **meta)
    return folder
