"""Documents packed end to end in one row: where each lies, and how attention is kept inside each.

Linear layers, norms and the head run on the packed tokens. Attention runs on documents of like length, side by side as
a small padded batch: a causal query sees nothing to its right, so padding on the right changes no real token.

A document may go on from another, a beginning that several share: it sees the tokens of that too, and its positions go
on from there, so that each is what it would be with the beginning written before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

MULTIPLE = 16  # of tokens in a group's rows: on a CPU each new shape costs a compiled kernel
LIKE_LENGTH = 0.8  # documents of at least this share of the longest of a group join it; the rest of its row is padding


@dataclass(frozen=True)
class Group:
    """Documents that are attended to together.

    Attributes:
        count, length: documents, and tokens of each row of the padded batch.
        start, stop: where the first of them begins in the packed row, and the last one ends; they follow each other.
        places: (count * length,) int64, which token of these stands where in the padded batch, the last one of its
            document where there is padding; None where there is no padding.
        back: (tokens of the group,) int64, where each token stands in the padded batch; None likewise.
        padding: (count, length) bool, True where there is padding.
        past: where the tokens of what they go on from stand in the packed row; None for nothing.
    """

    start: int
    stop: int
    count: int
    length: int
    places: Tensor | None
    back: Tensor | None
    padding: Tensor
    past: slice | None

    @property
    def past_tokens(self) -> int:
        """Tokens that each of them goes on from."""
        return self.past.stop - self.past.start if self.past else 0


class Documents:
    """The documents of one packed row.

    Attributes:
        lengths: tokens of each.
        positions: (T,) int64, from 0 in each document, or from where the one ends that it goes on from.
        is_simple: whether none goes on from another.
    """

    def __init__(self, documents: Sequence[tuple[int, int]], device: torch.device) -> None:
        """Takes tokens of each document and the number of the one it goes on from, which stands before it, or -1."""
        self.lengths = tuple(length for length, _ in documents)
        first = [self.lengths[after] if after >= 0 else 0 for _, after in documents]
        ranges = [torch.arange(at, at + length) for at, length in zip(first, self.lengths, strict=True)]
        self.positions = _moved(torch.cat(ranges), device)
        self.is_simple = all(after < 0 for _, after in documents)
        self._documents, self._device = documents, device

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All documents, in their order; made when they are asked for, as some kernels need none."""
        return tuple(_groups(self._documents, self._device))

    @cached_property
    def starts(self) -> Tensor:
        """Where each document begins, and the last one ends: (documents + 1,) int32."""
        return _moved(torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32), self._device)

    def spread(self, x: Tensor, with_past: bool = False) -> list[Tensor]:
        """Gives the rows of each group: (1, H, T, D) -> [(count, H, length, D), ...].

        Args:
            x: of all tokens.
            with_past: whether each row begins with what it goes on from, for keys and values.
        """
        tokens = x[0].transpose(0, 1)  # (T, H, D)
        parts = torch.split(tokens, [group.stop - group.start for group in self.groups])
        rows = [_spread(part, group).transpose(1, 2) for part, group in zip(parts, self.groups, strict=True)]
        return (
            [after_past(x, each, group) for each, group in zip(rows, self.groups, strict=True)] if with_past else rows
        )

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Undoes `spread`, without the padding: [(count, H, length, D), ...] -> (1, H, T, D)."""
        tokens = [_join(part.transpose(1, 2), group) for part, group in zip(parts, self.groups, strict=True)]
        return torch.cat(tokens).transpose(0, 1)[None]


def after_past(x: Tensor, rows: Tensor, group: Group) -> Tensor:
    """Puts before the rows of a group what they go on from: (count, H, length, D) -> (count, H, past + length, D).

    Args:
        x: (1, H, T, D), all tokens.
        rows: those of the group.
        group: says where.
    """
    if group.past is None:
        return rows
    return torch.cat((x[:, :, group.past].expand(group.count, -1, -1, -1), rows), dim=2)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Gives it on a device; a GPU goes on meanwhile, which it does not where the memory copied from is not pinned."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _groups(documents: Sequence[tuple[int, int]], device: torch.device) -> Iterator[Group]:
    """Gives runs of documents of like length that go on from the same one."""
    starts = [0, *accumulate(length for length, _ in documents)]
    first = 0
    while first < len(documents):
        longest, past = documents[first]
        stop = first + 1
        while stop < len(documents) and _joins(documents[stop], longest, past):
            stop += 1
        places = back = None
        sizes = torch.tensor([length for length, _ in documents[first:stop]])[:, None]
        columns = torch.arange(-(-longest // MULTIPLE) * MULTIPLE)
        padding = columns >= sizes
        if padding.any():
            begins = sizes.cumsum(0) - sizes
            places = _moved((begins + torch.minimum(columns, sizes - 1)).flatten(), device)
            back = _moved((~padding).flatten().nonzero().squeeze(-1), device)
        seen = slice(starts[past], starts[past + 1]) if past >= 0 else None
        padding = _moved(padding, device)
        yield Group(starts[first], starts[stop], stop - first, len(columns), places, back, padding, seen)
        first = stop


def _joins(document: tuple[int, int], longest: int, past: int) -> bool:
    """Says whether a document belongs to the group of one before it."""
    length, after = document
    return after == past and LIKE_LENGTH * longest <= length <= longest


def _spread(tokens: Tensor, group: Group) -> Tensor:
    """(tokens, H, D) -> (count, length, H, D)."""
    if group.places is not None and group.back is not None:
        tokens = _Spread.apply(tokens, group.places, group.back)  # type: ignore[no-untyped-call]
    return tokens.reshape(group.count, group.length, *tokens.shape[1:])


def _join(rows: Tensor, group: Group) -> Tensor:
    """(count, length, H, D) -> (tokens, H, D)."""
    rows = rows.flatten(0, 1)
    if group.back is None:
        return rows
    return _Join.apply(rows, group.back)  # type: ignore[no-any-return, no-untyped-call]


class _Spread(torch.autograd.Function):
    """x[places]; what flows back to padding is nothing, so the gradient is a choice of rows too, not a sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return gradients[0].index_select(0, back), None, None


class _Join(torch.autograd.Function):
    """x[back]; the gradient of padding is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        ctx.rows = len(x)
        return x.index_select(0, back)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (back,) = ctx.saved_tensors
        zeros = gradients[0].new_zeros(ctx.rows, *gradients[0].shape[1:])
        return zeros.index_copy_(0, back, gradients[0]), None
