"""The micro-batches of a run, counted before one is computed. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass

from litft.config.plan import TrainPlan
from litft.data.batches import MULTIPLE, Batching, before_targets, rows_of_window, split_rows
from litft.data.prefixes import shared_beginnings
from litft.data.store import PreparedData
from litft.train.state import Inputs


@dataclass(frozen=True)
class Batches:
    """The micro-batches of a run's first epoch, or of the whole run where that is shorter.

    Attributes:
        examples, tokens, targets: of their rows.
        positions: that are computed: tokens, of which those that rows share count once, and padding.
        padding: of these.
        micro_batches: how many there are.
        longest: rows of the one with the most positions.
        next_longest: rows of the one that comes after it in its window; none where it is the last.
    """

    examples: int
    tokens: int
    targets: int
    positions: int
    padding: int
    micro_batches: int
    longest: list[int]
    next_longest: list[int]

    @property
    def largest_step(self) -> list[int]:
        """Rows of a step that takes as much memory as any: the second micro-batch finds the gradient of the first."""
        return [*self.longest, *self.next_longest]


def count_batches(inputs: Inputs, plan: TrainPlan) -> Batches:
    """Splits the windows of the first epoch."""
    data, seed = inputs.train, inputs.config.seed if inputs.config.train.shuffle else None
    examples = tokens = targets = positions = padding = micro_batches = 0
    most: tuple[tuple[int, int], list[int], list[int]] = ((0, 0), [], [])
    for step in range(min(plan.steps, plan.steps_per_epoch)):
        splits = split_rows(data, rows_of_window(inputs.train_rows, plan.window(step), seed), inputs.batching)
        for rows, neighbour in zip(splits, [*splits[1:], []], strict=True):
            computed, empty = count_positions(data, rows, inputs.batching)
            size = computed, int(data.target_counts[rows].sum())
            if size > most[0]:
                most = size, rows, neighbour
            positions, padding, targets = positions + computed, padding + empty, targets + size[1]
            examples, tokens = examples + len(rows), tokens + int(data.lengths[rows].sum())
        micro_batches += len(splits)
    _, longest, neighbour = most
    return Batches(examples, tokens, targets, positions, padding, micro_batches, longest, neighbour)


def count_positions(data: PreparedData, rows: list[int], batching: Batching) -> tuple[int, int]:
    """Gives the positions of one micro-batch, what rows share counted once, and how many of them are padding."""
    lengths = data.lengths[rows]
    if not batching.packed:
        positions = len(rows) * int(lengths.max())
        return positions, positions - int(lengths.sum())
    groups = shared_beginnings([before_targets(*data.row(row)) for row in rows]) if batching.shares else []
    tokens = int(lengths.sum()) - sum(shared * (len(places) - 1) for shared, places in groups)
    positions = -(-tokens // MULTIPLE) * MULTIPLE
    return positions, positions - tokens
