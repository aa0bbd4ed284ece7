"""The table that compares the runs of a sweep: on the terminal, as `sweep.csv` and as `sweep.md`. Knows no torch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import atomic_path, plain_size

# Column -> the name in `summary.json`, what stands above it for a person, and how it is shown.
COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "best_val_loss": ("best held-out loss", "{:.4f}".format),
    "best_step": ("at step", "{:,}".format),
    "val_loss": ("held-out loss of final/", "{:.4f}".format),
    "final_loss": ("training loss", "{:.4f}".format),
    "tokens_per_second": ("tokens/s", "{:,.0f}".format),
    "peak_memory_bytes": ("memory", plain_size),
}
WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"


@dataclass
class Row:
    """One run of a sweep, as far as it is known.

    Attributes:
        name: of the run and of its folder.
        values: its own, by dotted leaf.
        state: waiting, running, done or failed.
        summary: what `summary.json` holds, once it is done.
        error: the sentence of a failed one.
    """

    name: str
    values: Mapping[str, Any]
    state: str = WAITING
    summary: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


def best_of(rows: Sequence[Row]) -> Row | None:
    """Gives the run whose `final/` has the lowest held-out loss; the first of equal ones, None until one is done."""
    done = [row for row in rows if row.state == DONE]
    return min(done, key=lambda row: row.summary["val_loss"], default=None)


def comparison(rows: Sequence[Row], out_dir: Path) -> str:
    """Gives the table as Markdown, which is a table on a terminal too, and below it which run is the best.

    Args:
        rows: all runs of the sweep.
        out_dir: its folder.
    """
    best = best_of(rows)
    head = ["run", *rows[0].values, *(shown for shown, _ in COLUMNS.values()), "state"]
    lines = [[f"{row.name}{' *' if row is best else ''}", *_cells(row)] for row in rows]
    text = aligned([head, *lines])
    text += "".join(f"\n{row.name} failed: {row.error}" for row in rows if row.state == FAILED)
    if best:
        text += f"\n* the lowest held-out loss at the end: {out_dir / best.name / 'final'}"
    return text


def _cells(row: Row) -> list[str]:
    """Gives what stands behind a run's name."""
    numbers = (_shown(row.summary.get(name), show) for name, (_, show) in COLUMNS.items())
    return [*(str(value) for value in row.values.values()), *numbers, row.state]


def _shown(value: Any, show: Callable[[Any], str]) -> str:
    """Gives a number to be read, nothing for one that is not there."""
    return "" if value is None else show(value)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Gives a Markdown table whose columns stand below each other; the first line is its head."""
    lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    rows = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_comparison(rows: Sequence[Row], out_dir: Path) -> None:
    """Writes `sweep.md` and `sweep.csv`; in the second all numbers are whole, memory in bytes."""
    with atomic_path(out_dir / "sweep.md") as temporary:
        temporary.write_text(comparison(rows, out_dir) + "\n", encoding="utf-8")
    with atomic_path(out_dir / "sweep.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *rows[0].values, *COLUMNS, "state", "error"])
        for row in rows:
            numbers = (row.summary.get(name) for name in COLUMNS)
            writer.writerow([row.name, *row.values.values(), *numbers, row.state, row.error])
