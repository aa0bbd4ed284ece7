"""What a person at a terminal sees and says while a run goes on: progress, Ctrl-C and signals, and what came of it.

Knows no model.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from litft.checkpoint.disk import plain_size
from litft.errors import PreemptedError
from litft.terminal.bars import Bar
from litft.terminal.tables import Table, plain_time

QUIET_SECONDS = 30.0  # longest silence where no bar can be drawn
PREEMPTING = (signal.SIGTERM, signal.SIGUSR1)  # what batch systems send, by default and with `--signal USR1@120`


class StepBar:
    """Two lines that follow the steps on a terminal, elsewhere a line now and then; a context manager."""

    def __init__(
        self, done: int, steps: int, report: Callable[[str], None], shown: bool = True, eval_every: int | None = None
    ) -> None:
        """Begins.

        Args:
            done: steps that were taken before.
            steps: of the whole run.
            report: told the lines where there is no terminal.
            shown: False in all but the first of several processes.
            eval_every: steps between two validations; the last step is followed by one too.
        """
        self._bar = Bar("training", steps, "steps", done, shown)
        self._first, self._started, self._steps, self._report = done, time.monotonic(), steps, report
        self._spoke, self._eval_every = self._started, eval_every or steps

    def show(
        self,
        step: int,
        loss: float,
        rate: float,
        tokens_per_second: float,
        memory_bytes: int,
        time_left: float | None = None,
    ) -> None:
        """Shows one more step.

        Args:
            step: how many there were.
            loss, rate, tokens_per_second: of this one.
            memory_bytes: the most that was used so far.
            time_left: seconds after which the run ends, with however many steps.
        """
        now = time.monotonic()
        pace = (now - self._started) / (step - self._first)
        left = min(pace * (self._steps - step), math.inf if time_left is None else time_left)
        speed, memory = f"{tokens_per_second:,.0f} tokens/s", plain_size(memory_bytes)
        validated = min((step // self._eval_every + 1) * self._eval_every, self._steps)
        following = f"evaluation after {validated:,}" if step < self._steps else "the last step"
        if self._bar.is_drawn:
            # The bar ends where the time does, by the steps that there will be.
            total = min(step + math.ceil(left / pace), self._steps) if pace else self._steps
            details = f"loss {loss:.3f}  rate {rate:.1e}  {speed}  {memory}  {following}"
            self._bar.show(step, total, left, details)
        elif now - self._spoke >= QUIET_SECONDS:
            self._spoke = now
            self._report(
                f"step {step}/{self._steps}: training loss {loss:.4f}, rate {rate:.1e}, {speed}, {memory}, about "
                f"{plain_time(left)} left, {following}"
            )

    def __enter__(self) -> StepBar:
        """Gives itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leaves the lines as they stand, however the steps ended."""
        self._bar.close()


def closing_words(summary: Mapping[str, Any], final: Path, data_dir: Path, method: str) -> tuple[Table, str]:
    """Gives what a person reads when a run has ended: what came of it, and what to type next.

    Args:
        summary: of the run, as `summary.json` holds it.
        final: the checkpoint that was written.
        data_dir: as it was typed.
        method: how it was trained.
    """
    losses = f"held-out {summary['first_val_loss']:.4f} -> {summary['val_loss']:.4f}"
    if summary["first_loss"] is not None:
        losses += f", training {summary['first_loss']:.4f} -> {summary['final_loss']:.4f}"
    work = f"{summary['steps']:,} steps, {summary['epochs']:.2f} epochs, ended by {summary['stopped_by']}"
    speed = f"{plain_time(summary['train_seconds'])} of training, {summary['tokens_per_second']:,.0f} tokens/s"
    rows = [
        ("loss", losses),
        ("work", work),
        ("time", speed),
        ("memory", f"{plain_size(summary['peak_memory_bytes'])} at the most"),
        ("written", str(final)),
    ]
    commands = [
        f"chat --checkpoint_dir {final}",
        f"generate --checkpoint_dir {final} --instruction '...'",
        f"evaluate --checkpoint_dir {final} --data_dir {data_dir} --generate 20",
        f"merge --checkpoint_dir {final}" if method == "lora" else f"serve --checkpoint_dir {final}",
    ]
    return Table("The result", rows), "\n".join(["Next:", *(f"  litft {words}" for words in commands)])


def stopped_by(number: int, step: int, report: Callable[[str], None]) -> BaseException:
    """Gives what a run that was asked to stop raises, once it is saved.

    Args:
        number: of the signal.
        step: the last one.
        report: told how to go on, where a person asked.
    """
    if number == signal.SIGINT:
        report(f"Stopped after step {step}; go on with --resume auto.")
        return KeyboardInterrupt()
    return PreemptedError(f"Stopped after step {step} by {signal.Signals(number).name}, with a checkpoint.")


@contextmanager
def heeding_signals(
    report: Callable[[str], None], what: str = "Stopping after this step, with a checkpoint"
) -> Iterator[Callable[[], int | None]]:
    """Lets Ctrl-C, or a signal of a batch system, wait for the end of what is being done; Ctrl-C again stops at once.

    A batch system may send its signals, SIGTERM and SIGUSR1, several times: to a group of processes, and to each.

    Args:
        report: told that one was heard.
        what: is done first.

    Yields:
        A function that gives the first that came, if one did. Outside the main thread, which alone gets signals, none
        ever does.
    """
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        heard.append(number)
        if len(heard) == 1:
            report(f"{what}; Ctrl-C again stops at once.")

    def first() -> int | None:
        return heard[0] if heard else None

    if threading.current_thread() is not threading.main_thread():
        yield first
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, *PREEMPTING)}
    try:
        yield first
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
