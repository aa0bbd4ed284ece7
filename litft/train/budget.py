"""The time of a run: `train.max_time` or `train.max_gpu_hours` sets the schedule's end, validations, checkpoints and
which step is the last.

All of the run counts: loading, steps, validations, checkpoints and the end. What the end will take is kept for it, as
long as the like of it took before. Knows no model; its clock is an argument.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

from lightning_fabric import Fabric

from litft.config.plan import TrainPlan
from litft.config.train import EvalConfig, TrainConfig
from litft.train.parallel import from_first
from litft.train.state import Progress, Run

REMEMBERED = 8  # steps; the slowest of them is what the next one is thought to take
KNOWN = 3  # steps of a session from which its pace is told; the first one may compile
WRITE_RATE = 2e8  # bytes a second that a checkpoint is thought to be written at, until one was
WRITES_AT_END = 2  # the last step's checkpoint, and `final/`


class Budget:
    """Asked before each step and told how long everything took.

    Attributes:
        is_last: whether the step that was begun is the last for which there is time.
        validates, saves, exports: whether that follows it.
        limited_by: the setting that bounds the time, if one does.
    """

    def __init__(
        self,
        plan: TrainPlan,
        train: TrainConfig,
        evaluation: EvalConfig,
        before: dict[str, float],
        clock: Callable[[], float],
        spent: dict[str, float] | None = None,
        processes: int = 1,
    ) -> None:
        """Begins.

        Args:
            plan: of the run.
            train, evaluation: the bounds of the time and the intervals.
            before: what `state` gave; or less: `elapsed` seconds, and those that a `validation`, a `checkpoint` and an
                `export` are thought to take.
            clock: gives seconds; the same to all processes of a run.
            spent: is told the seconds of everything but steps, added up by what they went into.
            processes: of the run, which share its GPU-hours.
        """
        self._plan, self._train, self._evaluation = plan, train, evaluation
        name, seconds = train.time_limit(processes) or ("", None)
        self.limited_by: str | None = name or None
        self._limit: float | None = seconds
        self._clock, self._spent = clock, {} if spent is None else spent
        self._began = clock() - before.get("elapsed", 0.0)
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        self._took = {name: before.get(name, 0.0) for name in ("validation", "checkpoint", "export")}
        self._share = before.get("share", 0.0)
        self.is_last = self.validates = self.saves = self.exports = False

    def elapsed(self) -> float:
        """Gives the seconds of the run so far, those before it was resumed included."""
        return self._clock() - self._began

    def time_left(self) -> float | None:
        """Gives the seconds that the bound of the time leaves for steps and what lies between; None without a bound."""
        return None if self._limit is None else max(self._limit - self._kept_for_the_end() - self.elapsed(), 0.0)

    def state(self) -> dict[str, float]:
        """Gives what a resumed run must know."""
        return {"elapsed": self.elapsed(), "share": self._share, **self._took}

    def begin_step(self, step: int) -> float:
        """Decides what follows step `step`, counted from 0, and gives the share of the time spent when it ends.

        It is 1 for the last step, and 0 as long as the steps, not the time, will end the run.
        """
        plan, before = self._plan, self._share
        self.validates, self.saves = plan.validates_after(step), plan.saves_after(step)
        self.exports = plan.exports_after(step)
        if self._limit is None or not self._steps:
            return before
        end, spent = self._limit - self._kept_for_the_end(), self.elapsed() + max(self._steps)
        if len(self._steps) >= KNOWN and self._needed(step) > end - self.elapsed():
            self._share = max(before, min(spent / end, 1.0) if end > 0 else 1.0)
        if self._share > (step + 1) / plan.steps:  # a fraction is a fraction of the time then
            self.validates |= _passes(before, self._share, self._evaluation.interval)
            self.saves |= _passes(before, self._share, self._train.save_interval)
            self.exports |= _passes(before, self._share, self._train.export_interval)
        self.is_last = spent + self._follows() + max(self._steps) > end
        if self.is_last:
            self._end(before)
        return 1.0 if self.is_last else self._share

    def is_over(self) -> bool:
        """Says, after a step, whether there is time for no other."""
        if self._limit is None:
            return False
        if not self.is_last and self.elapsed() >= self._limit - self._kept_for_the_end():
            self.is_last = True  # a step took longer than any before it
            self._end(self._share)
        return self.is_last

    @contextmanager
    def spending(self, what: str) -> Iterator[None]:
        """Notes how long the block takes: a `step`, a `validation`, a `checkpoint` or an `export`."""
        started = self._clock()
        yield
        seconds = self._clock() - started
        if what == "step":
            self._steps.append(seconds)
        else:
            self._took[what] = seconds
            self._spent[what] = self._spent.get(what, 0.0) + seconds

    def expect(self, what: str, seconds: float) -> None:
        """Takes what it will take, where that is more than `spending` saw: what goes on beside the steps."""
        self._took[what] = max(self._took[what], seconds)

    def _end(self, before: float) -> None:
        """Lets what is due by the end follow the last step; `before` is the share of the time at its beginning.

        The share stays as it is: a run that goes on with more time has not come to its end.
        """
        self.exports |= _passes(before, 1.0, self._train.export_interval)

    def _kept_for_the_end(self) -> float:
        """Gives the seconds from the end of the last step to that of the run."""
        export = self._took["export"] if _passes(0.0, 1.0, self._train.export_interval) else 0.0
        return self._took["validation"] + WRITES_AT_END * self._took["checkpoint"] + export

    def _needed(self, step: int) -> float:
        """Gives the seconds that all steps from this one on would take, and what lies between them."""
        left, took = self._plan.steps - step, self._took
        saves = left // self._plan.save_every
        between = (left // self._plan.eval_every + saves) * took["validation"] + saves * took["checkpoint"]
        return left * median(self._steps) + between

    def _follows(self) -> float:
        """Gives the seconds that what follows the step will take."""
        took = self._took
        validation = took["validation"] if self.validates or self.saves else 0.0
        return validation + self.saves * took["checkpoint"] + self.exports * took["export"]


def open_budget(run: Run, progress: Progress) -> Budget:
    """Gives the budget of a run that begins or goes on: its time counts from when its inputs had been checked."""
    config, fabric = run.inputs.config, run.fabric
    written = 3 * 4 * run.inputs.trainable_parameters  # bytes of what is trained, and of AdamW's two moments
    before = {"checkpoint": written / WRITE_RATE, **progress.budget}
    now = time.perf_counter() - run.inputs.started
    before["elapsed"] = from_first(fabric, before.get("elapsed", 0.0) + now)
    limited = config.train.time_limit(config.processes) is not None  # else nobody asks what time it is
    clock = partial(_first_clock, fabric) if limited else time.perf_counter
    return Budget(run.plan, config.train, config.eval, before, clock, progress.spent, config.processes)


def _first_clock(fabric: Fabric) -> float:
    """Gives the first process's time."""
    return from_first(fabric, time.perf_counter())


def _passes(before: float, now: float, interval: float | str | None) -> bool:
    """Says whether a multiple of the interval, a fraction of the run, lies between these shares of it."""
    if not isinstance(interval, float) or interval >= 1:  # none, `epoch`, or a number of steps
        return False
    return now // interval > before // interval
