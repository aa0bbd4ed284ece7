"""What a person at a terminal sees and says while a run goes on: progress, Ctrl-C and SIGTERM. Knows no model."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm

QUIET_SECONDS = 30.0  # longest silence where no bar can be drawn


class StepBar:
    """A progress bar on a terminal, elsewhere a line now and then."""

    def __init__(self, done: int, steps: int, report: Callable[[str], None], shown: bool = True) -> None:
        """Begins.

        Args:
            done: steps that were taken before.
            steps: of the whole run.
            report: told the lines where there is no terminal.
            shown: False in all but the first of several processes.
        """
        self._bar = tqdm(initial=done, total=steps, unit="step", disable=None if shown else True)
        self._first, self._started, self._steps, self._report = done, time.monotonic(), steps, report
        self._spoke = self._started

    def show(
        self, step: int, loss: float, rate: float, tokens_per_second: float, time_left: float | None = None
    ) -> None:
        """Shows one more step.

        Args:
            step: how many there were.
            loss, rate, tokens_per_second: of this one.
            time_left: seconds after which the run ends, with however many steps.
        """
        now = time.monotonic()
        pace = (now - self._started) / (step - self._first)
        left = min(pace * (self._steps - step), math.inf if time_left is None else time_left)
        # The bar tells its own time left, by the steps that it thinks there will be.
        self._bar.total = min(step + math.ceil(left / pace), self._steps) if pace else self._steps
        self._bar.set_postfix(loss=f"{loss:.3f}", rate=f"{rate:.1e}", refresh=False)
        self._bar.update()
        if self._bar.disable and now - self._spoke >= QUIET_SECONDS:
            self._spoke = now
            shown = f"{left:.0f} s" if left < 100 else f"{left / 60:.0f} min"
            self._report(
                f"step {step}/{self._steps}: training loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s, "
                f"about {shown} left"
            )

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()


@contextmanager
def finishing_steps(report: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Lets the first Ctrl-C, or SIGTERM as a batch system sends it, wait for the end of a step; a second stops at once.

    Args:
        report: told that it was heard.

    Yields:
        A function that says whether one came. Outside the main thread, which alone gets signals, none ever did.
    """
    asked = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        report("Stopping after this step, with a checkpoint; Ctrl-C again stops at once.")

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
