"""From prepared rows to micro-batches, window by window: packed end to end, or padded. Knows no tokenizer, no model."""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from litft.config.plan import Window
from litft.config.train import TrainConfig
from litft.data.prefixes import shared_beginnings
from litft.data.store import PreparedData

MULTIPLE = 16  # of tokens in a packed row: each new shape costs a compiled kernel, and tensor cores like round numbers
IGNORE = -100  # the target of a position that carries no loss; cross_entropy's own default


@dataclass(frozen=True)
class MicroBatch:
    """Rows computed at once: packed end to end in one row, or one to a row, padded on the right to the longest.

    Attributes:
        input_ids: (B, T) int64; what stands in the padding is never seen, causality hides it from every real token.
        targets: (B, T) int64, the token that follows where it carries loss, IGNORE elsewhere.
        rows: numbers of the rows in the prepared file, as a message can name them; longest first, or, where they share
            what they begin with, by that.
        lengths: tokens of each row.
        row_targets: of each row, how many targets are not IGNORE.
        packed: whether the rows stand in one, B = 1.
        shared: of rows in one, tokens that several of them begin with, which stand once before them all.
        after: of each row, which of these it goes on from; -1 for none.
        target_places: (N,) int64, which of all B T positions have a target, once the batch is on its device.
    """

    input_ids: Tensor
    targets: Tensor
    rows: tuple[int, ...]
    lengths: tuple[int, ...]
    row_targets: tuple[int, ...]
    packed: bool
    shared: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    target_places: Tensor | None = None

    @property
    def documents(self) -> tuple[tuple[int, int], ...] | None:
        """What is packed into one row, as the model asks for it: tokens, and which document is gone on from, or -1.

        Padding is a document of its own: the length of a row may say how its positions are rotated.
        """
        if not self.packed:
            return None
        own = zip(self.own_lengths, self.after or (-1,) * len(self.rows), strict=True)
        padding = [(self.padding_tokens, -1)] if self.padding_tokens else []
        return (*((length, -1) for length in self.shared), *own, *padding)

    @property
    def own_lengths(self) -> tuple[int, ...]:
        """Tokens of each row without what it shares with others."""
        places = self.after or (-1,) * len(self.rows)
        begun = (self.shared[place] if place >= 0 else 0 for place in places)
        return tuple(length - shared for length, shared in zip(self.lengths, begun, strict=True))

    @property
    def tokens(self) -> int:
        """Real tokens, padding left out."""
        return sum(self.lengths)

    @property
    def target_tokens(self) -> int:
        """Targets that are not IGNORE."""
        return sum(self.row_targets)

    def of_rows(self, values: Tensor) -> list[Tensor]:
        """Gives what stands at the own tokens of each row: (B, T) -> one (n,) a row, without padding."""
        if self.packed:
            stop = values.shape[1] - self.padding_tokens
            return list(torch.split(values[0, sum(self.shared) : stop], list(self.own_lengths)))
        return [line[:length] for line, length in zip(values, self.lengths, strict=True)]

    @property
    def padding_tokens(self) -> int:
        """How many positions are padding."""
        return self.input_ids.numel() - sum(self.shared) - sum(self.own_lengths)

    def to(self, device: torch.device) -> MicroBatch:
        """Gives the same batch on a device."""
        # What is on the CPU need not be asked of a GPU, nor waited for: where targets are, and copies of pinned memory.
        places = (self.targets != IGNORE).flatten().nonzero().squeeze(-1)
        tensors = [self.input_ids, self.targets, places]
        if device.type == "cuda":
            tensors = [tensor.pin_memory() for tensor in tensors]
        input_ids, targets, places = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return dataclasses.replace(self, input_ids=input_ids, targets=targets, target_places=places)


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


@dataclass(frozen=True)
class Batching:
    """How the rows of a window are split.

    Attributes:
        micro_batch_size: rows to a micro-batch; packed, it stands for so many rows of `max_seq_length` tokens.
        max_seq_length: the longest row.
        packed: whether rows are packed end to end.
        shares: whether what packed rows begin with alike is computed once.
    """

    micro_batch_size: int
    max_seq_length: int
    packed: bool
    shares: bool = False

    @property
    def tokens(self) -> int:
        """Tokens that a packed micro-batch has room for."""
        return self.micro_batch_size * self.max_seq_length

    def times(self, factor: int) -> Batching:
        """Gives the same with micro-batches that are so many times larger."""
        return dataclasses.replace(self, micro_batch_size=factor * self.micro_batch_size)


def build_batching(train: TrainConfig, data: PreparedData, context: int | None = None) -> Batching:
    """Gives how a run splits its windows.

    Args:
        train: batch size, length and packing.
        data: its rows were prepared for a length, which counts where the run names none.
        context: the longest text of the model, if it is known.
    """
    longest = train.max_seq_length or data.meta.get("max_seq_length") or int(data.lengths.max())
    longest = min(longest, context or longest)
    return Batching(train.micro_batch_rows, longest, train.pack != "padded", train.pack == "shared_prefix")


def iter_micro_batches(data: PreparedData, rows: Sequence[int], batching: Batching) -> Iterator[MicroBatch]:
    """Splits rows into micro-batches; the largest come first, so that a lack of memory shows at once.

    How a window is split does not change its gradient.

    Args:
        data: the prepared file.
        rows: which of its rows, in any order.
        batching: how many share a micro-batch.
    """
    for chosen in split_rows(data, rows, batching):
        yield collate(data, chosen, batching)


def split_rows(data: PreparedData, rows: Sequence[int], batching: Batching) -> list[list[int]]:
    """Gives the rows of each micro-batch; the arguments are those of `iter_micro_batches`.

    Rows are read only where it counts how they begin.
    """
    ordered = sorted(rows, key=lambda row: int(data.lengths[row]), reverse=True)
    if batching.packed:
        lengths = [int(data.lengths[row]) for row in ordered]
        if batching.shares:
            starts = [before_targets(*data.row(row)) for row in ordered]
            bins = pack_alike(starts, lengths, batching.tokens)
        else:
            bins = pack(lengths, batching.tokens)
        return [[ordered[place] for place in chosen] for chosen in bins]
    size = batching.micro_batch_size
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def pack(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Puts each length into the fullest bin that still has room for it, or into a new one: best-fit decreasing.

    Args:
        lengths: longest first; one above `room` has a bin alone.
        room: of a bin.

    Returns:
        The places in `lengths` of each bin, longest first; the bins too, as the largest length opens the first.

    Source: Johnson 1973; never more than 11/9 of the fewest bins, and 4.
    """
    bins: list[list[int]] = []
    left: list[tuple[int, int]] = []  # (room, bin), sorted
    for place, length in enumerate(lengths):
        found = bisect.bisect_left(left, (length, -1))
        if found == len(left):
            bins.append([place])
            bisect.insort(left, (room - length, len(bins) - 1))
            continue
        space, chosen = left.pop(found)
        bins[chosen].append(place)
        bisect.insort(left, (space - length, chosen))
    return bins


def pack_alike(starts: Sequence[list[int]], lengths: Sequence[int], room: int) -> list[list[int]]:
    """Packs rows of which each bin holds only once what several of its rows begin with.

    Those that begin alike are packed by themselves; then the bins that this left with room are packed together.

    Args:
        starts: of each row the tokens that may be shared.
        lengths: of each row; one above `room` has a bin alone.
        room: of a bin.

    Returns:
        The places of the rows of each bin; the fullest part opens the first.
    """
    parts: list[tuple[int, list[int]]] = []  # tokens, places
    for shared, places in shared_beginnings(starts):
        ordered = sorted(places, key=lambda place: lengths[place], reverse=True)
        own = [lengths[place] - shared for place in ordered]
        for chosen in pack(own, room - shared):
            parts.append((shared + sum(own[each] for each in chosen), [ordered[each] for each in chosen]))
    parts.sort(key=lambda part: part[0], reverse=True)
    bins = pack([tokens for tokens, _ in parts], room)
    return [[place for part in chosen for place in parts[part][1]] for chosen in bins]


def before_targets(ids: Tensor, mask: Tensor) -> list[int]:
    """Gives the tokens of a row that others may share: those that no target follows, as a target belongs to one row.

    Args:
        ids: (T,), the row.
        mask: (T,) bool, True for the tokens that are targets.
    """
    first = int(mask[1:].int().argmax())  # 0 where there is no target: nothing is shared
    return cast(list[int], ids[:first].tolist())


def collate(data: PreparedData, rows: Sequence[int], batching: Batching) -> MicroBatch:
    """Makes one micro-batch of rows: targets are shifted by one within each.

    Args:
        data: the prepared file.
        rows: which of its rows.
        batching: whether they are packed, and share what they begin with.
    """
    read = [data.row(row) for row in rows]
    found = [(ids.long(), torch.where(mask[1:], ids[1:].long(), IGNORE)) for ids, mask in read]
    counts = tuple(int(mask[1:].sum()) for _, mask in read)
    if batching.packed:
        starts = [before_targets(*each) for each in read] if batching.shares else None
        return _packed(rows, found, counts, starts)
    lengths = tuple(len(ids) for ids, _ in found)
    input_ids = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    targets = torch.full_like(input_ids, IGNORE)
    for line, (ids, wanted) in enumerate(found):
        input_ids[line, : len(ids)], targets[line, : len(wanted)] = ids, wanted
    return MicroBatch(input_ids, targets, tuple(rows), lengths, counts, packed=False)


def _packed(
    rows: Sequence[int],
    found: Sequence[tuple[Tensor, Tensor]],
    counts: tuple[int, ...],
    starts: Sequence[list[int]] | None,
) -> MicroBatch:
    """Puts rows, ids and targets of each, end to end; before them what several begin with, if it is to stand once.

    Args:
        rows: their numbers.
        found: ids and targets of each.
        counts: of the targets of each.
        starts: what of each row may be shared; None where nothing is to be.
    """
    groups = [(0, list(range(len(rows))))]
    if starts is not None:
        groups = shared_beginnings(starts)
    beginnings = [(shared, found[places[0]][0][:shared]) for shared, places in groups if shared]
    ids = [tokens for _, tokens in beginnings]
    targets = [torch.full_like(tokens, IGNORE) for tokens in ids]
    order, after = [], []
    for number, (shared, places) in enumerate(groups):
        for place in places:
            order.append(place)
            after.append(number if shared else -1)
            ids.append(found[place][0][shared:])
            targets.append(torch.cat((found[place][1][shared:], torch.tensor([IGNORE]))))
    padding = -sum(len(each) for each in ids) % MULTIPLE
    ids.append(torch.zeros(padding, dtype=torch.int64))
    targets.append(torch.full((padding,), IGNORE))
    return MicroBatch(
        torch.cat(ids)[None],
        torch.cat(targets)[None],
        tuple(rows[place] for place in order),
        tuple(len(found[place][0]) for place in order),
        tuple(counts[place] for place in order),
        packed=True,
        shared=tuple(shared for shared, _ in beginnings),
        after=tuple(after) if beginnings else (),
    )
