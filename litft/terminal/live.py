"""The one display that rich redraws on stderr. Imported only where lines can be redrawn; bars.py is its door."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from threading import RLock

from rich import box
from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table as DrawnTable
from rich.text import Text

from litft.terminal.tables import Table, plain_time

REFRESHES = 4  # a second; each takes a millisecond or two of the computation's time
BAR_WIDTH = 24


class _Counts(ProgressColumn):
    """How much is done."""

    def render(self, task: Task) -> Text:
        """Gives `12/100 rows`, or `1.2/3.4 GB`."""
        unit, total = task.fields["unit"], task.total
        if unit == "B":
            return Text("/".join(decimal(int(size)) for size in (task.completed, total) if size is not None))
        return Text(f"{task.completed:,.0f}{'' if total is None else f'/{total:,.0f}'} {unit}")


class _Pace(ProgressColumn):
    """How fast it goes and how long it will take."""

    def render(self, task: Task) -> Text:
        """Gives `80 rows/s, 12 s left`, as far as it is known; the time left alone where the caller told it."""
        told, unit, speed = task.fields["left"], task.fields["unit"], task.finished_speed or task.speed
        left = task.time_remaining if told is None else told
        parts = []
        if told is None and speed is not None:
            parts.append(f"{decimal(int(speed))}/s" if unit == "B" else f"{speed:,.3g} {unit}/s")
        if left is not None and not task.finished:
            parts.append(f"{plain_time(left)} left")
        return Text(", ".join(parts), style="dim")


class _Display(Progress):
    """All bars, and below each its details."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Gives what is drawn."""
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["details"]:
                yield Text(f"  {task.fields['details']}", style="dim", overflow="ellipsis", no_wrap=True)


class _Shared:
    """The display that all open lines share; it starts with the first and stops with the last."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.display: _Display | None = None
        self.count = 0

    def enter(self) -> _Display:
        """Gives the display, started."""
        with self.lock:
            if self.display is None:
                columns = TextColumn("{task.description}", markup=False), BarColumn(BAR_WIDTH), _Counts(), _Pace()
                self.display = _Display(
                    *columns,
                    console=Console(stderr=True),
                    refresh_per_second=REFRESHES,
                    redirect_stdout=sys.stdout.isatty(),  # answers that go to a file go there
                )
                self.display.start()
            self.count += 1
            return self.display

    def leave(self) -> None:
        """Stops the display where no line is left."""
        with self.lock:
            self.count -= 1
            if self.count == 0 and self.display is not None:
                self.display.stop()
                self.display = None


_shared = _Shared()


class Line:
    """One bar of the display."""

    def __init__(self, title: str, total: float | None, unit: str, done: float) -> None:
        """Begins; the arguments are those of `Bar`."""
        self._display = _shared.enter()
        self._task = self._display.add_task(title, total=total, completed=int(done), unit=unit, left=None, details="")

    def count(self, done: float) -> None:
        """Shows how much is done."""
        self._display.update(self._task, completed=done)

    def show(self, done: float, total: float, left: float, details: str) -> None:
        """Shows how far it is, in the caller's own words."""
        self._display.update(self._task, completed=done, total=total, left=left, details=details)

    def say(self, text: str) -> None:
        """Writes above the bars."""
        console = self._display.console
        console.print(drawn(text) if isinstance(text, Table) else Text(text), soft_wrap=not isinstance(text, Table))

    def close(self, stays: bool) -> None:
        """Ends the line; beside others that go on it is taken away in any case."""
        if not stays or _shared.count > 1:
            self._display.remove_task(self._task)
        _shared.leave()


def drawn(table: Table) -> DrawnTable:
    """Gives a table as rich draws it."""
    shown = DrawnTable(title=table.heading, title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, text in table.rows:
        shown.add_row(Text(name), Text(text))
    return shown


def draw(table: Table) -> None:
    """Draws a table on stderr."""
    Console(stderr=True).print(drawn(table))
