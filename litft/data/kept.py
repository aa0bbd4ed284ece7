"""Rows on their way to a file: collected one behind the other, equal ones once, and split. Knows no source."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from litft.data.encode import Example

MAX_TEST_ROWS = 2000


@dataclass
class Kept:
    """The rows that will be written, one behind the other."""

    input_ids: array[int] = field(default_factory=lambda: array("i"))
    target_mask: bytearray = field(default_factory=bytearray)
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    digests: set[bytes] = field(default_factory=set)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.offsets) - 1

    def add(self, example: Example) -> bool:
        """Takes a row; False when an equal one is here already."""
        ids, mask = array("i", example.input_ids), bytes(example.mask)
        digest = hashlib.blake2b(ids.tobytes() + mask, digest_size=16).digest()
        if digest in self.digests:
            return False
        self.digests.add(digest)
        self.input_ids += ids
        self.target_mask += mask
        self.offsets.append(len(self.input_ids))
        return True

    def lengths(self, longest: int, bins: int) -> list[int]:
        """Counts rows by their length, in equal steps up to the longest."""
        counts = [0] * bins
        for begin, end in pairwise(self.offsets):
            counts[min((end - begin) * bins // (longest + 1), bins - 1)] += 1
        return counts

    def tensors(self, rows: Tensor) -> dict[str, Tensor]:
        """Gives the chosen rows as the tensors of `save_prepared`.

        Args:
            rows: int64 (n,), indices.
        """
        ids = torch.frombuffer(self.input_ids, dtype=torch.int32)
        mask = torch.frombuffer(self.target_mask, dtype=torch.bool)
        spans = [(self.offsets[row], self.offsets[row + 1]) for row in rows.tolist()]
        lengths = torch.tensor([0, *(end - begin for begin, end in spans)], dtype=torch.int64)
        return {
            "input_ids": torch.cat([ids[begin:end] for begin, end in spans]),
            "target_mask": torch.cat([mask[begin:end] for begin, end in spans]),
            "offsets": lengths.cumsum(0),
            "source": torch.zeros(len(spans), dtype=torch.int16),
        }


def split_rows(count: int, test_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Chooses which rows are held out.

    Args:
        count: rows there are.
        test_fraction: share to hold out; at most 2,000 rows, and of two rows or more at least one.
        seed: the same seed and count give the same choice.

    Returns:
        Indices for training and for test, int64, each ascending.
    """
    held_out = min(MAX_TEST_ROWS, max(1, round(count * test_fraction)), count - 1) if test_fraction and count > 1 else 0
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[held_out:].sort().values, order[:held_out].sort().values
