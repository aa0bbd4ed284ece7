"""From prepared rows to padded micro-batches, window by window. Knows no tokenizer and no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from litft.config.plan import Window
from litft.data.store import PreparedData

IGNORE = -100  # the target of a position that carries no loss; cross_entropy's own default


@dataclass(frozen=True)
class MicroBatch:
    """Rows computed at once, padded on the right to the longest of them.

    Attributes:
        input_ids: (B, T) int64; what stands in the padding is never seen, causality hides it from every real token.
        targets: (B, T) int64, the token that follows where it carries loss, IGNORE elsewhere.
        rows: numbers of the rows in the prepared file, as a message can name them.
        tokens: real tokens, padding left out; target_tokens: how many targets are not IGNORE.
    """

    input_ids: Tensor
    targets: Tensor
    rows: tuple[int, ...]
    tokens: int
    target_tokens: int

    @property
    def padding_tokens(self) -> int:
        """How many positions are padding."""
        return self.input_ids.numel() - self.tokens

    def to(self, device: torch.device) -> MicroBatch:
        """Gives the same batch on a device."""
        ids, targets = self.input_ids.to(device), self.targets.to(device)
        return MicroBatch(ids, targets, self.rows, self.tokens, self.target_tokens)


def rows_within(data: PreparedData, max_seq_length: int | None) -> Tensor:
    """Gives the numbers of the rows of at most `max_seq_length` tokens, (n,) int64; all where there is no limit."""
    return torch.nonzero(data.lengths <= (max_seq_length or int(data.lengths.max()))).squeeze(-1)


def epoch_order(n_examples: int, seed: int | None, epoch: int) -> Tensor:
    """Gives the order of an epoch, (n_examples,) int64: every example once, the same for the same seed and epoch.

    Without a seed the order is that of the file.
    """
    if seed is None:
        return torch.arange(n_examples)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(n_examples, generator=generator)


def rows_of_window(rows: Tensor, window: Window, seed: int | None) -> list[int]:
    """Gives the rows of one optimizer step: its slice of the epoch's order.

    Args:
        rows: (n_examples,) int64, the numbers of all rows of the run.
        window: which of them, by their places in the order.
        seed: of the run; None where it keeps the order of the file.
    """
    order = epoch_order(len(rows), seed, window.epoch)
    chosen: list[int] = rows[order[window.start : window.stop]].tolist()
    return chosen


def iter_micro_batches(data: PreparedData, rows: Sequence[int], micro_batch_size: int) -> Iterator[MicroBatch]:
    """Splits rows into micro-batches; rows of like length share one, the longest come first.

    The order within a window does not change its gradient; it saves padding, and a lack of memory shows at once.

    Args:
        data: the prepared file.
        rows: which of its rows, in any order.
        micro_batch_size: rows to a batch; the last may hold fewer.
    """
    ordered = sorted(rows, key=lambda row: int(data.lengths[row]), reverse=True)
    for start in range(0, len(ordered), micro_batch_size):
        yield collate(data, ordered[start : start + micro_batch_size])


def collate(data: PreparedData, rows: Sequence[int]) -> MicroBatch:
    """Pads rows to the longest of them and shifts the targets by one."""
    length = max(int(data.lengths[row]) for row in rows)
    input_ids = torch.zeros(len(rows), length, dtype=torch.int64)
    targets = torch.full((len(rows), length), IGNORE)
    for index, row in enumerate(rows):
        ids, mask = data.row(row)
        size = len(ids)
        input_ids[index, :size] = ids
        targets[index, : size - 1] = torch.where(mask[1:], ids[1:].long(), IGNORE)
    tokens = sum(int(data.lengths[row]) for row in rows)
    return MicroBatch(input_ids, targets, tuple(rows), tokens, int((targets != IGNORE).sum()))
