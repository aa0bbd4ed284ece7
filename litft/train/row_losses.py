"""The loss of each training row: of one step over all processes, and when it was first and last computed in a run.

The latter shows which rows a model finds hardest, and which it never learned. It takes 16 bytes a row of `train.pt`, in
memory and in each step checkpoint, however long the run is. Knows no model.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from litft.checkpoint.disk import atomic_path
from litft.data.batches import MicroBatch
from litft.data.store import PreparedData
from litft.train.parallel import gather

ROW_LOSSES_FILE = "row_losses.csv"
COLUMNS = ("row", "source", "target_tokens", "first_loss", "last_loss", "last_step")


class RowLoss(NamedTuple):
    """What one row gave in one step.

    Attributes:
        row: its number in `train.pt`.
        micro_batch: which of its process's micro-batches it was computed in, counted from 0.
        targets: how many tokens carried loss.
        total: their losses added up, in nats.
    """

    row: int
    micro_batch: int
    targets: int
    total: float


@dataclass(frozen=True)
class WindowLosses:
    """The losses of one window.

    Attributes:
        total: over all processes, in nats.
        hands: the rows of each process, in the order in which they were computed.
    """

    total: float
    hands: list[list[RowLoss]]

    def __iter__(self) -> Iterator[RowLoss]:
        """Gives the rows of all processes."""
        for hand in self.hands:
            yield from hand


def gather_losses(fabric: Fabric, micro_batches: Sequence[MicroBatch], losses: Tensor) -> WindowLosses:
    """Gives the losses of a window to each process.

    Args:
        fabric: of the run.
        micro_batches: of this process.
        losses: the summed loss of each of their rows, (rows,).
    """
    here = losses.cpu()  # host-device sync
    places = [
        (row, number, targets)
        for number, batch in enumerate(micro_batches)
        for row, targets in zip(batch.rows, batch.row_targets, strict=True)
    ]
    own = [RowLoss(*place, value.item()) for place, value in zip(places, here, strict=True)]
    totals, hands = zip(*gather(fabric, (here.sum().item(), own)), strict=True)
    return WindowLosses(math.fsum(totals), list(hands))


class RowLosses:
    """Losses in nats per target token, as they were trained on: with dropout, noise and smoothing if there are any.

    Attributes:
        first, last: (n_rows,) float32, NaN for a row that was not computed yet or has no targets.
        last_step: (n_rows,) int32, the step of `last`, counted from 1; 0 for none.
        targets: (n_rows,) int32, tokens that carried loss in that step.
    """

    def __init__(self, n_rows: int) -> None:
        self.first = torch.full((n_rows,), math.nan)
        self.last = torch.full((n_rows,), math.nan)
        self.last_step = torch.zeros(n_rows, dtype=torch.int32)
        self.targets = torch.zeros(n_rows, dtype=torch.int32)

    def note(self, step: int, window: WindowLosses) -> None:
        """Takes the losses of a step, counted from 1; no row stands in it twice."""
        rows = torch.tensor([each.row for each in window])
        targets = torch.tensor([each.targets for each in window], dtype=torch.int32)
        means = torch.tensor([each.total for each in window]) / targets
        self.first[rows] = torch.where(self.last_step[rows] > 0, self.first[rows], means)
        self.last[rows], self.last_step[rows], self.targets[rows] = means, step, targets

    def state(self) -> dict[str, Tensor]:
        """Gives a copy of what a resumed run must know."""
        return {name: tensor.clone() for name, tensor in vars(self).items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes what `state` gave."""
        for name, tensor in vars(self).items():
            tensor.copy_(state[name])


def write_row_losses(path: Path, data: PreparedData, state: Mapping[str, Tensor]) -> None:
    """Writes the rows that were computed as CSV, in the order of the file; as a whole or not at all.

    Args:
        path: is replaced.
        data: the training file.
        state: as `RowLosses.state` gives it.
    """
    seen = torch.nonzero(state["last_step"]).squeeze(-1)
    losses = ([_plain(value) for value in state[name][seen].tolist()] for name in ("first", "last"))
    names = data.meta.get("source_names", [])
    sources = [names[source] if names else "" for source in data.source[seen].tolist()]
    columns = (seen.tolist(), sources, state["targets"][seen].tolist(), *losses, state["last_step"][seen].tolist())
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(zip(*columns, strict=True))


def source_name(data: PreparedData, row: int) -> str:
    """Gives the name of a row's source; empty where the file names none, as Lit-GPT's files do not."""
    names = data.meta.get("source_names", [])
    return str(names[int(data.source[row])]) if names else ""


def _plain(loss: float) -> str:
    """Gives a loss to be read; of a row without targets there is none."""
    return "" if math.isnan(loss) else f"{loss:.6g}"
