"""In which order rows stand in train.pt. An order is one function and one row of `ORDERS`.

`--train.shuffle false` keeps it from window to window; within a window, which is one step, rows stand by length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from litft.config.mix import Order
from litft.data.mixing.parts import Rows


def order_of(order: Order, rows: Sequence[Rows], seed: int) -> Tensor:
    """Gives the order of rows that stand part by part.

    Args:
        order: which.
        rows: of each part, as they were drawn.
        seed: decides where chance does.

    Returns:
        Their places among all of them, (n,) int64.
    """
    return ORDERS[order](rows, seed)


def _shuffled(rows: Sequence[Rows], seed: int) -> Tensor:
    """By chance."""
    return torch.randperm(sum(map(len, rows)), generator=torch.Generator().manual_seed(seed))


def _by_source(rows: Sequence[Rows], seed: int) -> Tensor:
    """Source by source, as the folders name them, each as it was drawn."""
    names = dict.fromkeys(name for there in rows for name in there.part.sources)
    places = {name: place for place, name in enumerate(names)}
    return torch.tensor([places[name] for there in rows for name in there.source_names]).argsort(stable=True)


def _by_length(rows: Sequence[Rows], seed: int) -> Tensor:
    """The shortest first, in tokens."""
    return torch.cat([there.lengths for there in rows]).argsort(stable=True)


def _by_score(rows: Sequence[Rows], seed: int) -> Tensor:
    """The lowest first; rows without a score last, as torch sorts NaN."""
    return torch.cat([there.scores for there in rows]).argsort(stable=True)


def _by_score_descending(rows: Sequence[Rows], seed: int) -> Tensor:
    """The highest first; rows without a score last."""
    return (-torch.cat([there.scores for there in rows])).argsort(stable=True)


def _as_given(rows: Sequence[Rows], seed: int) -> Tensor:
    """Folder by folder as their rows stand there; what is repeated comes again behind the whole of its folder."""
    keys = []
    for place, there in enumerate(rows):
        times: Counter[int] = Counter()
        for number in there.numbers.tolist():
            keys.append((place, times[number], number))
            times[number] += 1
    return torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=torch.int64)


ORDERS: dict[Order, Callable[[Sequence[Rows], int], Tensor]] = {
    "shuffled": _shuffled,
    "source": _by_source,
    "length": _by_length,
    "score": _by_score,
    "score_descending": _by_score_descending,
    "given": _as_given,
}
