"""A run as it lies on disk, for Python and for notebooks: its numbers, its answers, its model. Knows no training.

`Result(Path("out/lora/lima"))` opens any run, also one that still goes on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litft.checkpoint.disk import read_json

if TYPE_CHECKING:
    from litft.api import LLM

SHOWN = ("steps", "epochs", "first_val_loss", "val_loss", "val_accuracy", "train_seconds", "tokens_per_second")
SHOWN_ANSWERS = 12  # the last ones
WIDTH, HEIGHT, MARGIN = 560, 200, 34  # of the curve, in its own units


class Result:
    """What a run came to.

    Attributes:
        out_dir: its folder.
    """

    def __init__(self, out_dir: str | Path, summary: Mapping[str, Any] | None = None) -> None:
        """Opens it.

        Args:
            out_dir: the run's folder.
            summary: its numbers; None reads `summary.json`.
        """
        self.out_dir, self._summary = Path(out_dir), summary

    @property
    def summary(self) -> dict[str, Any]:
        """The numbers at the end, as `summary.json` names them; of a dry run those of the plan; empty before."""
        if self._summary is not None:
            return dict(self._summary)
        path = self.out_dir / "summary.json"
        return read_json(path) if path.exists() else {}

    @property
    def final(self) -> Path:
        """The trained checkpoint: what `LLM.load` and every command takes as checkpoint_dir."""
        return self.out_dir / "final"

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `logs/metrics.csv`, numbers as numbers; None where something was not measured."""
        path = self.out_dir / "logs" / "metrics.csv"
        if not path.exists():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: _number(text) for name, text in line.items()} for line in csv.DictReader(file)]

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The answers sampled at validations: `step`, `row`, `prompt`, `answer`, `expected`."""
        path = self.out_dir / "samples.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def load(self) -> LLM:
        """Opens the trained model, to be asked."""
        from litft.api import LLM

        return LLM.load(self.final)

    def __repr__(self) -> str:
        """Gives folder and main numbers."""
        return f"Result({str(self.out_dir)!r}: {', '.join(f'{name} {text}' for name, text in self._shown())})"

    def _repr_html_(self) -> str:
        """Gives the numbers, the curve of losses and the last answers, as a notebook shows them."""
        return "".join(self._html())

    def _shown(self) -> list[tuple[str, str]]:
        """Gives the main numbers by name."""
        summary = self.summary
        return [(name, f"{summary[name]:.4g}") for name in SHOWN if summary.get(name) is not None]

    def _html(self) -> Iterator[str]:
        """Gives the parts of what a notebook shows."""
        yield f"<p><b>{escape(str(self.out_dir))}</b></p>"
        yield _table(("", ""), self._shown())
        metrics = self.metrics
        curves = {name: [(line["step"], line[name]) for line in metrics if line[name] is not None] for name in LINES}
        if any(len(points) > 1 for points in curves.values()):
            yield _curve(curves)
        if samples := self.samples[-SHOWN_ANSWERS:]:
            columns = ("step", "prompt", "answer", "expected")
            yield _table(columns, [[str(sample[name]) for name in columns] for sample in samples])


LINES = {"loss": "#4a78d0", "val_loss": "#d0662f"}  # readable on light and dark


def _number(text: str) -> int | float | str | None:
    """Gives what a cell of metrics.csv holds; a text where it is JSON."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Gives a table of texts."""
    cell = "<td style='text-align:left;vertical-align:top;white-space:pre-wrap'>"
    lines = ("".join(f"{cell}{escape(text)}</td>" for text in row) for row in rows)
    heads = "".join(f"<th style='text-align:left'>{name}</th>" for name in head)
    return f"<table><tr>{heads}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _curve(curves: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Gives the losses over the steps as a drawing (SVG).

    Args:
        curves: name -> (step, loss) of each point.
    """
    points = [point for line in curves.values() for point in line]
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*points, strict=True))

    def place(step: float, loss: float) -> str:
        x = MARGIN + (step - left) / ((right - left) or 1) * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (loss - low) / ((high - low) or 1) * (HEIGHT - 2 * MARGIN)
        return f"{x:.1f},{y:.1f}"

    parts = [f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' role='img' aria-label='losses over the steps'>"]
    style = "font-size='11' fill='currentColor'"
    for y, loss in ((MARGIN, high), (HEIGHT - MARGIN, low)):
        parts.append(f"<text x='0' y='{y + 4}' {style}>{loss:.3g}</text>")
    parts.append(f"<text x='{WIDTH - MARGIN}' y='{HEIGHT - 10}' text-anchor='end' {style}>step {right:.0f}</text>")
    for number, (name, line) in enumerate(curves.items()):
        where = " ".join(place(*point) for point in line)
        parts.append(f"<polyline points='{where}' fill='none' stroke='{LINES[name]}' stroke-width='1.5'/>")
        parts.append(f"<text x='{MARGIN + 90 * number}' y='14' font-size='11' fill='{LINES[name]}'>{name}</text>")
    return "".join(parts) + "</svg>"
