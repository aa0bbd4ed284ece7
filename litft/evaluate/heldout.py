"""How well a model foresees prepared rows: loss, perplexity and accuracy, whole and by source.

The numbers are those of training's validation, `train/evaluate.py`: the same targets, batches and sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from litft.data.batches import Batching, collate, split_rows
from litft.data.overview import source_names
from litft.data.store import PreparedData
from litft.generate.sample import evaluating
from litft.model.gpt import GPT
from litft.terminal.bars import Bar
from litft.train.loss import chunk_tokens, sum_loss_and_correct


class Foreseen(NamedTuple):
    """What a model makes of some rows.

    Attributes:
        rows: how many there are.
        tokens: how many of their tokens carry loss.
        loss: mean of these, in nats.
        accuracy: share of these that were the likeliest token.
    """

    rows: int
    tokens: int
    loss: float
    accuracy: float

    @property
    def perplexity(self) -> float:
        """The number of tokens that the model hesitates between: e to the loss."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    def to_dict(self) -> dict[str, float]:
        """Gives plain types, the perplexity too."""
        return {**self._asdict(), "perplexity": self.perplexity}


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Gives the loss of each token, (N, V) and (N,) -> (N,), in nats: that of every recipe as it comes."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def measure(
    model: GPT, data: PreparedData, rows: Sequence[int], micro_batch_size: int, longest: int
) -> dict[str | None, Foreseen]:
    """Gives what a model makes of rows.

    Args:
        model: in any mode.
        data: the prepared file.
        rows: which of its rows, each with at least one token that carries loss.
        micro_batch_size: of the longest rows, how many are computed at once.
        longest: tokens of the longest row.

    Returns:
        All of them first, under no name; then those of each source, where there are several.
    """
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(int(data.source[row]), []).append(row)
    batching, names = Batching(micro_batch_size, longest, packed=True), source_names(data)
    sums: dict[str, tuple[int, float, float, int]] = {}
    with Bar("measuring", len(rows), "rows") as bar:
        for source, group in sorted(groups.items()):
            sums[names[source]] = (len(group), *_sums(model, data, group, batching, bar))
    whole = (sum(parts) for parts in zip(*sums.values(), strict=True))
    found: dict[str | None, Foreseen] = {None: _means(*whole)}
    if len(sums) > 1:
        found |= {name: _means(*each) for name, each in sums.items()}
    return found


def _means(rows: int, loss: float, correct: float, tokens: int) -> Foreseen:
    """Divides sums by their count."""
    return Foreseen(rows, tokens, loss / tokens, correct / tokens)


def _sums(
    model: GPT, data: PreparedData, rows: Sequence[int], batching: Batching, bar: Bar
) -> tuple[float, float, int]:
    """Gives the sum of losses, how many targets were likeliest, and how many there are."""
    device = next(model.parameters()).device
    loss, correct, tokens = torch.zeros((), device=device), torch.zeros((), device=device), 0
    chunk = chunk_tokens(model.config.padded_vocab_size, device)
    with evaluating(model):
        for chosen in split_rows(data, rows, batching):
            batch = collate(data, chosen, batching).to(device)
            hidden = model(batch.input_ids, documents=batch.documents)
            batch_loss, batch_correct = sum_loss_and_correct(model.head, hidden, batch.targets, token_loss, chunk)
            loss, correct, tokens = loss + batch_loss, correct + batch_correct, tokens + batch.target_tokens
            bar.update(len(chosen))
    return loss.item(), correct.item(), tokens  # host-device sync
