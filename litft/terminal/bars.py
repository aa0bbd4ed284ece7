"""Progress of long work: a bar where one can be drawn, nothing elsewhere. Knows no command's work.

Everything that is drawn goes to stderr and through one display of rich (live.py), which is imported only when there is
something to draw: a command without a terminal, or one that only prints its help, never pays for it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from litft.terminal.shown import harmless, without_secrets
from litft.terminal.tables import Table

if TYPE_CHECKING:
    from litft.terminal.live import Line

Item = TypeVar("Item")
SECONDS = 0.1  # between two counts that reach the display: rows may come by the ten thousand a second
_lines: list[Line] = []  # those that are drawn now


class Bar:
    """One line of progress, and a line of details below it if `show` gives some; a context manager."""

    def __init__(
        self,
        title: str,
        total: float | None,
        unit: str,
        done: float = 0,
        is_shown: bool = True,
        stays: bool = True,
    ) -> None:
        """Begins.

        Args:
            title: what goes on.
            total: how much there is to do; None where nobody knows.
            unit: what is counted, such as `rows`; `B` for bytes.
            done: how much of it was done before.
            is_shown: False where there is nothing to see, as in all but the first of several processes.
            stays: whether the finished line stays on the screen.
        """
        self._done, self._stays, self._told = done, stays, 0.0
        self._line: Line | None = None
        if is_shown and (_lines or can_draw()):  # beside a line: rich 14 and older say that theirs is no terminal
            from litft.terminal.live import Line  # rich: 0.1 s that only a drawn bar pays

            self._line = Line(title, total, unit, done)
            _lines.append(self._line)

    @property
    def is_drawn(self) -> bool:
        """Whether there is a line on the screen."""
        return self._line is not None

    def update(self, count: float = 1) -> None:
        """Counts so much more as done."""
        self._done += count
        if self._line is not None and time.monotonic() - self._told >= SECONDS:
            self._told = time.monotonic()
            self._line.count(self._done)

    def show(self, done: float, total: float, left: float, details: str) -> None:
        """Shows how far it is, in the caller's own words.

        Args:
            done, total: of the whole.
            left: seconds until the end.
            details: for the line below.
        """
        self._done = done
        if self._line is not None:
            self._line.show(done, total, left, details)

    def close(self) -> None:
        """Leaves the line as it stands, or takes it away."""
        if self._line is not None:
            self._line.count(self._done)
            if self._line in _lines:
                _lines.remove(self._line)
                self._line.close(self._stays)
            self._line = None

    def __enter__(self) -> Bar:
        """Gives itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes it, however the work ended."""
        self.close()


def tracked(
    items: Iterable[Item], title: str, unit: str, total: int | None = None, done: int = 0, stays: bool = True
) -> Iterator[Item]:
    """Gives the items on and shows how many were taken.

    Args:
        items: what is worked on.
        title, unit, done, stays: as a `Bar` takes them.
        total: how many there are; None asks the items.
    """
    if total is None and isinstance(items, Sized):
        total = done + len(items)
    with Bar(title, total, unit, done, stays=stays) as bar:
        for item in items:
            yield item
            bar.update()


def say(text: str) -> None:
    """Shows a person what is going on, on stderr and above the bars; a `Table` is drawn where it can be.

    Nothing in it reaches the terminal but to be shown, and no secret does.
    """
    text = text.harmless() if isinstance(text, Table) else harmless(without_secrets(text))
    if _lines:
        _lines[0].say(text)
    elif isinstance(text, Table) and can_draw():
        from litft.terminal.live import draw

        draw(text)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def close_all() -> None:
    """Ends all lines, as when an error leaves them behind: the terminal has its cursor back."""
    while _lines:
        _lines.pop().close(stays=True)


def can_draw() -> bool:
    """Says whether lines can be redrawn: on a terminal, or in a notebook; never in CI, whose logs keep every line."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        return False
    if "IPython" in sys.modules and _is_notebook():
        return find_spec("ipywidgets") is not None  # by which rich redraws there
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _is_notebook() -> bool:
    """Says whether a notebook's kernel runs this process."""
    from rich.console import Console

    return Console(stderr=True).is_jupyter
