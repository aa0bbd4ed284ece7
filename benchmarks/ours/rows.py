"""Prepared rows of random tokens whose lengths are those of a dataset, for `benchmarks/gpu.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from litft.checkpoint.disk import sha256_file
from litft.data.store import PreparedData, save_prepared
from litft.text.tokenizer import Tokenizer

FIRST_ID, IDS = 3, 1000  # ids that any tokenizer has, without its first few, which are special ones


def write_rows(
    folder: Path, tokenizer_dir: Path, lengths: Path | Sequence[Sequence[int]], count: int, longest: int
) -> None:
    """Writes `train.pt` and a small `test.pt`.

    Args:
        folder: is made.
        tokenizer_dir: of the tokenizer that the rows are said to be of.
        lengths: prepared rows whose lengths are taken, or tenths of the lengths of prompts and of answers.
        count: rows to train on.
        longest: no row has more tokens.
    """
    generator = torch.Generator().manual_seed(1)
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(tokenizer_dir)
    for name, rows in (("train.pt", count), ("test.pt", 8)):
        prompts, answers = lengths_of(lengths, rows, generator)
        prompts = prompts.clamp(max=longest // 2)
        answers = torch.minimum(answers, longest - prompts)
        both = torch.stack((prompts, answers), dim=1).flatten()
        total = int(both.sum())
        save_prepared(
            folder / name,
            input_ids=torch.randint(FIRST_ID, FIRST_ID + IDS, (total,), generator=generator),
            target_mask=torch.repeat_interleave(torch.arange(len(both)) % 2 == 1, both),
            offsets=torch.cat((torch.zeros(1, dtype=torch.int64), (prompts + answers).cumsum(0))),
            source=torch.zeros(rows),
            meta={"tokenizer": {"hash": tokenizer.hash}, "source_names": ["random"], "max_seq_length": longest},
        )
    told = f"sources: {{}}\nfiles: {{train.pt: {{sha256: {sha256_file(folder / 'train.pt')}}}}}\n"
    (folder / "manifest.yaml").write_text(told, encoding="utf-8")


def lengths_of(
    lengths: Path | Sequence[Sequence[int]], count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Gives the tokens of the prompt and of the answer of each row, two (count,) int64."""
    if isinstance(lengths, Path):
        data = PreparedData.load(lengths)
        chosen = torch.randint(len(data), (count,), generator=generator)
        answers = data.target_counts[chosen].long()
        return data.lengths[chosen].long() - answers, answers
    prompts, answers = (drawn(tenths, count, generator) for tenths in lengths)
    return prompts, answers


def drawn(tenths: Sequence[int], count: int, generator: torch.Generator) -> Tensor:
    """Draws lengths, (count,) int64: between two tenths all are as likely; the longest one stands for itself alone."""
    ends = torch.tensor(tenths, dtype=torch.float64)
    ends[-1] = 1.5 * ends[-2]  # the last tenth is a long tail: most of it lies near its beginning
    place = torch.rand(count, generator=generator, dtype=torch.float64) * (len(tenths) - 1)
    lower = place.long()
    found = torch.lerp(ends[lower], ends[lower + 1], place - lower).round().long()
    found[0] = tenths[-1]
    return found
