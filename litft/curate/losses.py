"""How well a model foresees the answers of prepared rows: mean nats a token, with what was asked and without it.

Knows no files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from litft.data.batches import IGNORE, Batching, MicroBatch, iter_micro_batches
from litft.data.store import PreparedData
from litft.generate.sample import evaluating
from litft.model.gpt import GPT
from litft.train.loss import chunk_tokens, iter_targets


class RowLoss(NamedTuple):
    """What a model makes of one row.

    Attributes:
        row: its number in the file.
        tokens: how many tokens of it carry loss.
        loss: their mean loss where they stand, in nats.
        alone: their mean loss where each answer stands alone; None where nobody asked.
    """

    row: int
    tokens: int
    loss: float
    alone: float | None


def iter_row_losses(
    model: GPT, data: PreparedData, begin: int | None, micro_batch_size: int, done: Collection[int] = ()
) -> Iterator[list[RowLoss]]:
    """Gives the losses of all rows, a micro-batch at a time, the longest rows first.

    Which rows share a micro-batch does not depend on `done`, so that a run that goes on gives the same bits.

    Args:
        model: in any mode; it is asked without dropout and without gradients.
        data: the rows.
        begin: the token that stands before an answer alone; None: no loss of answers alone.
        micro_batch_size: rows computed at once.
        done: rows whose losses are known; a micro-batch of nothing else is left out.
    """
    device = next(model.parameters()).device
    known = frozenset(done)
    for batch in iter_micro_batches(data, range(len(data)), _packed(data, micro_batch_size)):
        if known.issuperset(batch.rows):
            continue
        counts = torch.tensor(batch.row_targets)
        with evaluating(model):
            given = target_sums(model, batch.to(device)) / counts
            alone = None
            if begin is not None:
                alone = _sums_alone(model, answers_alone(data, batch.rows, begin), batch, micro_batch_size) / counts
        yield [
            RowLoss(row, int(counts[index]), float(given[index]), None if alone is None else float(alone[index]))
            for index, row in enumerate(batch.rows)
        ]


def target_sums(model: GPT, batch: MicroBatch) -> Tensor:
    """Gives the summed loss of each row's targets, in nats: (rows,) float64 on the CPU.

    Each token's loss is float32, of float32 logits, whatever the weights are.
    """
    hidden = model(batch.input_ids, documents=batch.documents)
    chunk = chunk_tokens(model.config.padded_vocab_size, hidden.device)
    losses = [
        F.cross_entropy(model.head(chosen).float(), ids, reduction="none")
        for chosen, ids in iter_targets(hidden, batch.targets, chunk)
    ]
    each = torch.zeros(batch.targets.shape, dtype=torch.float64)
    each[batch.targets.cpu() != IGNORE] = torch.cat(losses).double().cpu()  # host-device sync
    return torch.stack([losses.sum() for losses in batch.of_rows(each)])


def _packed(data: PreparedData, micro_batch_size: int) -> Batching:
    """Lets so many of the longest rows share a micro-batch, and more of shorter ones."""
    return Batching(micro_batch_size, int(data.lengths.max()), packed=True)


def _sums_alone(model: GPT, answers: PreparedData, batch: MicroBatch, micro_batch_size: int) -> Tensor:
    """Gives what the answers of each row of a batch cost alone, (B,) float64."""
    device = next(model.parameters()).device
    sums = torch.zeros(len(batch.rows), dtype=torch.float64)
    for part in iter_micro_batches(answers, range(len(answers)), _packed(answers, micro_batch_size)):
        owners = answers.source[list(part.rows)].long()
        sums.index_add_(0, owners, target_sums(model, part.to(device)))
    return sums


def answers_alone(data: PreparedData, rows: Sequence[int], begin: int) -> PreparedData:
    """Gives each answer of some rows behind one token and nothing else.

    Args:
        data: the rows; an answer is a run of tokens with loss, its end token included.
        rows: which of them.
        begin: the token before.

    Returns:
        One row an answer; `source` says to which of `rows` it belongs, by its place there.
    """
    ids, owners = [], []
    for index, row in enumerate(rows):
        row_ids, mask = data.row(row)
        for first, last in runs(mask):
            ids.append(torch.cat([torch.tensor([begin], dtype=torch.int32), row_ids[first:last]]))
            owners.append(index)
    offsets = torch.tensor([0, *map(len, ids)], dtype=torch.int64).cumsum(0)
    mask = torch.ones(int(offsets[-1]), dtype=torch.bool)
    mask[offsets[:-1]] = False
    return PreparedData(data.path, torch.cat(ids), mask, offsets, torch.tensor(owners, dtype=torch.int16), {})


def runs(mask: Tensor) -> list[tuple[int, int]]:
    """Gives the runs of True, each from its first to behind its last. The first token of a row is never a target."""
    edges = torch.zeros(len(mask) + 1, dtype=torch.int8)
    edges[1:-1] = mask[1:]
    steps = torch.diff(edges, prepend=edges.new_zeros(1))
    begins, ends = ((steps == step).nonzero().flatten().tolist() for step in (1, -1))
    return list(zip(begins, ends, strict=True))
