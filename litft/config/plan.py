"""The arithmetic of a run, computed once: steps, windows, learning rates, when to validate and save. Pure numbers.

A window is one optimizer step's examples: `global_batch_size` of them, fewer at the end of an epoch or of the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from litft.config.optim import OptimConfig
from litft.config.train import EvalConfig, TrainConfig


@dataclass(frozen=True)
class Window:
    """The examples of one optimizer step: positions `start` to `stop` in the order of this epoch."""

    epoch: int
    start: int
    stop: int


@dataclass(frozen=True)
class TrainPlan:
    """What a run will do, step by step.

    Attributes:
        n_examples: training rows.
        steps, steps_per_epoch: optimizer steps.
        examples: rows computed in the whole run, repeats counted.
        warmup_steps, decay_steps: where the learning rate reaches its highest and its lowest value.
        save_every, eval_every, export_every: in steps; None for no export.
        ends_by: the bound that the run meets: epochs, max_iters or max_steps.
    """

    n_examples: int
    global_batch_size: int
    micro_batch_size: int
    steps: int
    steps_per_epoch: int
    examples: int
    warmup_steps: int
    decay_steps: int
    save_every: int
    eval_every: int
    export_every: int | None
    ends_by: str
    optim: OptimConfig

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        return self.examples / self.n_examples

    def window(self, step: int) -> Window:
        """Gives the examples of step `step`, counted from 0; a window never spans two epochs."""
        epoch, index = divmod(step, self.steps_per_epoch)
        start = index * self.global_batch_size
        left = self.examples - epoch * self.n_examples - start
        return Window(epoch, start, min(start + self.global_batch_size, self.n_examples, start + left))

    def learning_rate(self, step: int, time_share: float = 0.0) -> float:
        """Gives the rate of step `step`, counted from 0: never zero at the first, the minimum from `decay_steps` on.

        Linear warmup over `(step + 1) / warmup_steps`, then the schedule's shape down to `min_learning_rate`.

        Args:
            step: as above.
            time_share: of the time that the run has, what is spent when this step ends; where it is further on than the
                steps are, it leads. A warmup that was given in steps keeps to them.
        """
        highest, lowest = self.optim.learning_rate, self.optim.min_learning_rate
        warmup = max(self.warmup_steps, 1)
        place = max(step + 1, time_share * self.decay_steps)
        warmed = place if self.optim.lr_warmup_steps < 1 else step + 1
        if warmed <= warmup and time_share < 1:
            return highest * warmed / warmup
        left = max(self.decay_steps - place, 0)  # steps until the minimum
        return lowest + (highest - lowest) * self._height(left, max(self.decay_steps - warmup, 1))

    def _height(self, left: float, whole: int) -> float:
        """Gives the schedule's height, 1 to 0, where `left` of the `whole` steps after the warmup are still to come.

        Source: wsd, warmup-stable-decay, arXiv 2404.06395.
        """
        if self.optim.schedule == "constant":
            return 1.0
        if self.optim.schedule == "linear":
            return left / whole
        if self.optim.schedule == "cosine":
            return (1 - math.cos(math.pi * left / whole)) / 2
        decay = min(max(self.optim.decay_fraction * self.decay_steps, 1), whole)
        return min(left / decay, 1.0)

    def validates_after(self, step: int) -> bool:
        """Says whether validation follows step `step`, counted from 0; it always follows the last."""
        return (step + 1) % self.eval_every == 0 or step + 1 == self.steps

    def saves_after(self, step: int) -> bool:
        """Says whether a resumable checkpoint follows step `step`, counted from 0; the last one writes `final`."""
        return (step + 1) % self.save_every == 0 and step + 1 < self.steps

    def exports_after(self, step: int) -> bool:
        """Says whether a Hugging Face folder is written after step `step`, counted from 0."""
        return self.export_every is not None and (step + 1) % self.export_every == 0


def build_plan(n_examples: int, train: TrainConfig, optim: OptimConfig, evaluation: EvalConfig) -> TrainPlan:
    """Computes the whole run from its configuration; the first bound of the run wins.

    Args:
        n_examples: training rows, at least 1.
        train: batch sizes and bounds.
        optim: learning rate and schedule.
        evaluation: the validation interval.
    """
    bounds: dict[str, int] = {}
    if train.epochs:
        bounds["epochs"] = train.epochs * n_examples
    if train.max_iters:
        bounds["max_iters"] = train.max_iters * train.micro_batch_rows
    steps_per_epoch = math.ceil(n_examples / train.global_batch_size)
    if train.max_steps:
        epochs, steps = divmod(train.max_steps, steps_per_epoch)
        bounds["max_steps"] = epochs * n_examples + min(steps * train.global_batch_size, n_examples)
    ends_by = min(bounds, key=lambda name: bounds[name])
    examples = bounds[ends_by]
    whole_epochs, rest = divmod(examples, n_examples)
    steps = whole_epochs * steps_per_epoch + math.ceil(rest / train.global_batch_size)
    decay_steps = optim.decay_steps or steps
    return TrainPlan(
        n_examples=n_examples,
        global_batch_size=train.global_batch_size,
        micro_batch_size=train.micro_batch_rows,
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        examples=examples,
        warmup_steps=min(steps_of(optim.lr_warmup_steps, steps, least=0), max(decay_steps - 1, 0)),
        decay_steps=decay_steps,
        save_every=steps_of(train.save_interval, steps),
        eval_every=steps_per_epoch if evaluation.interval == "epoch" else steps_of(evaluation.interval, steps),
        export_every=None if train.export_interval is None else steps_of(train.export_interval, steps),
        ends_by=ends_by,
        optim=optim,
    )


def steps_of(interval: float, steps: int, least: int = 1) -> int:
    """Turns an interval into steps: below 1 it is a fraction of the run, from 1 on it is steps already."""
    return max(round(interval * steps) if interval < 1 else int(interval), least)
