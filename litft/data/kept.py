"""Rows on their way to a file: collected one behind the other, equal ones once, and split. Knows no source."""

from __future__ import annotations

import hashlib
import math
from array import array
from dataclasses import dataclass, field

import torch
from torch import Tensor

from litft.data.encode import Example

MAX_TEST_ROWS = 2000

DRAW_BYTES = 8  # of what tells a row from others: by these it is drawn

Part = dict[str, Tensor]


@dataclass
class Kept:
    """The rows that will be written, one behind the other, in about five bytes a token."""

    input_ids: array[int] = field(default_factory=lambda: array("i"))
    target_mask: bytearray = field(default_factory=bytearray)
    offsets: array[int] = field(default_factory=lambda: array("q", [0]))
    draws: bytearray = field(default_factory=bytearray)
    scores: array[float] = field(default_factory=lambda: array("f"))
    digests: set[bytes] = field(default_factory=set)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.offsets) - 1

    def add(self, example: Example, draw: bytes | None = None, score: float | None = None) -> bool:
        """Takes a row; False when an equal one is here already.

        Args:
            example: the row.
            draw: of the row that it was made of: they are held out together, or not.
            score: of the row, if it has one.
        """
        return self.take(*_bytes_of(example), draw, math.nan if score is None else score)

    def take(self, ids: bytes, mask: bytes, draw: bytes | None = None, score: float = math.nan) -> bool:
        """Does so with a row of bytes.

        Args:
            ids: as int32.
            mask: a byte for each.
            draw, score: as `add` takes them, NaN for no score.
        """
        digest = digest_of(ids, mask)
        if digest in self.digests:
            return False
        self.digests.add(digest)
        self.draws += draw or digest[:DRAW_BYTES]
        self.scores.append(score)
        self.input_ids.frombytes(ids)
        self.target_mask += mask
        self.offsets.append(len(self.input_ids))
        return True

    def lengths(self, longest: int, bins: int) -> list[int]:
        """Counts rows by their length, in equal steps up to the longest."""
        steps = torch.frombuffer(self.offsets, dtype=torch.int64).diff() * bins // (longest + 1)
        counts: list[int] = steps.clamp(max=bins - 1).bincount(minlength=bins).tolist()
        return counts

    def split(self, test_fraction: float, seed: int) -> tuple[Part, Part]:
        """Gives the rows for training and those held out, as the tensors of `save_prepared`; none stay here.

        Args:
            test_fraction, seed: as `split_rows` takes them.
        """
        self.digests.clear()
        train, test = split_rows(torch.frombuffer(self.draws, dtype=torch.int64), test_fraction, seed)
        held_out = self._copied(test)
        return self._moved(train), held_out

    def whole(self) -> Part:
        """Gives all rows, with what decides which of them are held out later; none stay here."""
        self.digests.clear()
        draws = torch.frombuffer(self.draws, dtype=torch.int64)
        return {**self._moved(torch.arange(len(draws))), "draw": draws}

    def _copied(self, rows: Tensor) -> Part:
        """Gives rows, ascending, as tensors of their own."""
        spans, offsets = self._spans(rows)
        ids, mask = array("i"), bytearray()
        for begin, end in spans:
            ids += self.input_ids[begin:end]
            mask += self.target_mask[begin:end]
        return self._part(rows, ids, mask, offsets)

    def _moved(self, rows: Tensor) -> Part:
        """Gives rows, ascending, in the memory they lie in: a copy would take as much as the whole preparation."""
        spans, offsets = self._spans(rows)
        with memoryview(self.input_ids) as ids, memoryview(self.target_mask) as mask:
            place = 0
            for begin, end in spans:
                ids[place : place + end - begin] = ids[begin:end]
                mask[place : place + end - begin] = mask[begin:end]
                place += end - begin
        del self.input_ids[place:], self.target_mask[place:]
        return self._part(rows, self.input_ids, self.target_mask, offsets)

    def _part(self, rows: Tensor, ids: array[int], mask: bytearray, offsets: Tensor) -> Part:
        """Gives rows as the tensors of `save_prepared`, in the memory they lie in."""
        part = {
            "input_ids": torch.frombuffer(ids, dtype=torch.int32) if ids else torch.zeros(0, dtype=torch.int32),
            "target_mask": torch.frombuffer(mask, dtype=torch.bool) if mask else torch.zeros(0, dtype=torch.bool),
            "offsets": offsets,
            "source": torch.zeros(len(rows), dtype=torch.int16),
        }
        scores = torch.frombuffer(self.scores, dtype=torch.float32)
        return part if scores.isnan().all() else {**part, "score": scores[rows]}

    def _spans(self, rows: Tensor) -> tuple[list[tuple[int, int]], Tensor]:
        """Says where rows lie, neighbours together, and gives their offsets when they lie by themselves."""
        starts = torch.frombuffer(self.offsets, dtype=torch.int64)
        begins, ends = starts[rows], starts[rows + 1]
        gap = torch.ones(min(len(rows), 1), dtype=torch.bool)
        parted = begins[1:] != ends[:-1]
        spans = zip(begins[torch.cat([gap, parted])].tolist(), ends[torch.cat([parted, gap])].tolist(), strict=True)
        return list(spans), torch.cat([torch.zeros(1, dtype=torch.int64), ends - begins]).cumsum(0)


def draw_of(example: Example) -> bytes:
    """Gives what decides whether a row, and all that is made of it, is held out."""
    return digest_of(*_bytes_of(example))[:DRAW_BYTES]


def _bytes_of(example: Example) -> tuple[bytes, bytes]:
    """Gives ids and mask of a row as bytes."""
    return array("i", example.input_ids).tobytes(), bytes(example.mask)


def digest_of(ids: bytes, mask: bytes) -> bytes:
    """Gives what tells a row from others.

    Args:
        ids: as int32.
        mask: a byte for each.
    """
    return hashlib.blake2b(ids + mask, digest_size=16).digest()


def split_rows(draws: Tensor, test_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Chooses which rows are held out, by what they are: in another order, or in shards, the same rows are chosen.

    Args:
        draws: for each row a number that its digest decides, int64 (n,).
            Rows of one draw came of one row and stay together.
        test_fraction: share to hold out; at most 2,000 rows, and of two draws or more at least one.
        seed: the same seed and rows give the same choice.

    Returns:
        Indices for training and for test, int64, each ascending.
    """
    count = len(draws)
    held_out = min(MAX_TEST_ROWS, max(1, round(count * test_fraction)), count - 1) if test_fraction and count > 1 else 0
    key = torch.empty(1, dtype=torch.int64).random_(generator=torch.Generator().manual_seed(seed))
    values = draws * (key | 1)  # an odd number times others leaves them different
    is_test = torch.zeros(count, dtype=torch.bool)
    if held_out:
        last = values.sort().values[held_out - 1]
        is_test = values <= last if bool((values > last).any()) else values < last
    return torch.nonzero(~is_test).squeeze(1), torch.nonzero(is_test).squeeze(1)
