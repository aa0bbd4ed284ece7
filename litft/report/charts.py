"""Which charts a report has, and how one stands in the page: in words, drawn, and as a table. Knows no files.

They are drawn by uPlot, as page.js asks it to.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, NamedTuple

from litft.checkpoint.disk import plain_size
from litft.data.html import plain_table
from litft.data.view import Table
from litft.report.read import RunFolder
from litft.report.thin import Curves, thin

TRAIN, HELD_OUT = "train", "held_out"
TABLE_STEPS = 24  # rows of a chart's table
MOST_SOURCES = 8  # that get a line, or of several runs a chart
STEEP = 20  # times the lowest loss
COLOURS = 10  # that page.css names; further lines are dashed

# How a number is written; page.js writes those at the axes.
FORMS: dict[str, Callable[[float], str]] = {
    "number": "{:.4g}".format,
    "share": lambda value: f"{100 * value:.3g}%",
    "rate": "{:.3g}".format,
    "count": "{:,.0f}".format,
    "bytes": lambda value: plain_size(int(value)),
}


class Series(NamedTuple):
    """One line.

    Attributes:
        run: its number among the runs.
        part: whether its points are steps or validations.
        column: of that part.
        label: in the key of the chart; empty for what belongs to another line.
        look: line, faint, points (a line with a dot at each), low or high (the edges of a range).
        colour: 0 to 9; further ones repeat, dashed.
        key: lines of one key are shown and hidden together.
    """

    run: int
    part: str
    column: str
    label: str
    look: str
    colour: int
    key: str


@dataclass(frozen=True)
class Chart:
    """Lines over steps or tokens.

    Attributes:
        title: what is drawn.
        form: how its numbers are written.
        series: the lines.
        from_zero: whether the axis begins at 0.
        can_log: whether a logarithmic axis tells more.
        is_wide: whether it takes the whole width of the page.
    """

    title: str
    form: str
    series: list[Series]
    from_zero: bool = False
    can_log: bool = False
    is_wide: bool = False


@dataclass(frozen=True)
class DrawnRun:
    """A run as its lines need it."""

    name: str
    train: Curves
    held_out: Curves

    def curves(self, series: Series) -> Curves:
        """Gives the part that a line is of."""
        return self.train if series.part == TRAIN else self.held_out


def drawn(run: RunFolder) -> DrawnRun:
    """Gives a run's curves, thinned."""
    return DrawnRun(run.name, thin(run.train), thin(run.held_out))


def charts_of(runs: Sequence[DrawnRun]) -> list[Chart]:
    """Gives the charts for which at least one of these runs has numbers."""
    losses = [_loss_chart(runs[0])] if len(runs) == 1 else _loss_charts(runs)
    rest = [
        _one_line(runs, TRAIN, "learning_rate", "Learning rate", "rate", from_zero=True),
        _one_line(runs, TRAIN, "grad_norm", "Gradient norm, before clipping", "number", can_log=True),
        _one_line(runs, TRAIN, "tokens_per_second", "Tokens per second", "count", from_zero=True),
        _one_line(runs, TRAIN, "peak_memory_bytes", "Memory, the most so far", "bytes", from_zero=True),
        _one_line(runs, TRAIN, "padding_share", "Padding among the positions", "share", from_zero=True),
    ]
    accuracy = _one_line(runs, HELD_OUT, "val_accuracy", "Token accuracy, held out", "share")
    return [chart for chart in [*losses, accuracy, *_source_charts(runs), *rest] if chart.series]


def _loss_chart(run: DrawnRun) -> Chart:
    """Gives the losses of a run alone, in one chart."""
    series: list[Series] = []
    if has(run.train, "loss"):
        if "loss:low" in run.train.columns:
            series += [Series(0, TRAIN, f"loss:{what}", "", what, 0, "loss") for what in ("high", "low")]
        is_smooth = "loss:smooth" in run.train.columns
        if is_smooth:
            series.append(Series(0, TRAIN, "loss", "", "faint", 0, "loss"))
        column = "loss:smooth" if is_smooth else "loss"
        series.append(Series(0, TRAIN, column, "training", "line", 0, "loss"))
    if has(run.held_out, "val_loss"):
        series.append(Series(0, HELD_OUT, "val_loss", "held out", "points", 1, "val_loss"))
    return Chart("Loss, in nats per target token", "number", series, can_log=True, is_wide=True)


def _loss_charts(runs: Sequence[DrawnRun]) -> list[Chart]:
    """Gives the losses of several runs, a line for each."""
    return [
        _one_line(runs, HELD_OUT, "val_loss", "Held-out loss, in nats per target token", "number", can_log=True),
        _one_line(runs, TRAIN, "loss", "Training loss, in nats per target token", "number", can_log=True),
    ]


def _one_line(
    runs: Sequence[DrawnRun],
    part: str,
    column: str,
    title: str,
    form: str,
    from_zero: bool = False,
    can_log: bool = False,
) -> Chart:
    """Gives a chart with a line for each run that has these numbers; smoothed, where steps differ much."""
    series = []
    for number, run in enumerate(runs):
        curves = run.train if part == TRAIN else run.held_out
        shown = f"{column}:smooth" if f"{column}:smooth" in curves.columns else column
        if not has(curves, column):
            continue
        key = f"run {number}" if len(runs) > 1 else column
        label = run.name if len(runs) > 1 else title.partition(",")[0].lower()
        if shown != column and len(runs) == 1:
            series.append(Series(number, part, column, "", "faint", 0, key))
        look = "line" if part == TRAIN else "points"
        series.append(Series(number, part, shown, label, look, number, key))
    return Chart(title, form, series, from_zero, can_log)


def _source_charts(runs: Sequence[DrawnRun]) -> Iterator[Chart]:
    """Gives what was held out, source by source: of one run in one chart, of several in one for each source."""
    whats = (("val_loss_by_source", "Held-out loss", "number"), ("val_accuracy_by_source", "Token accuracy", "share"))
    for name, title, form in whats:
        columns = dict.fromkeys(c for run in runs for c in run.held_out.columns if c.startswith(f"{name}:"))
        if len(runs) > 1:
            for column in list(columns)[:MOST_SOURCES]:
                yield _one_line(runs, HELD_OUT, column, f"{title} of {column.partition(':')[2]}", form)
            continue
        series = [
            Series(0, HELD_OUT, column, column.partition(":")[2], "points", number, column)
            for number, column in enumerate(list(columns)[:MOST_SOURCES])
        ]
        left_out = f", the first {MOST_SOURCES} of {len(columns)}" if len(columns) > MOST_SOURCES else ""
        yield Chart(f"{title} by source{left_out}", form, series)


def is_steep(runs: Sequence[DrawnRun]) -> bool:
    """Says whether a plain axis would show little of the losses but how high they were at first."""
    losses = [value for run in runs for value in run.held_out.columns.get("val_loss", ()) if value is not None]
    return len(losses) > 1 and min(losses) > 0 and max(losses) > STEEP * min(losses)


def has(curves: Curves, column: str) -> bool:
    """Says whether there is anything to draw."""
    return any(value is not None for value in curves.columns.get(column, ()))


def numbers_of(runs: Sequence[DrawnRun], charts: Sequence[Chart]) -> str:
    """Gives what page.js draws, as JSON that may stand in a page."""
    used = {(each.run, each.part, each.column) for chart in charts for each in chart.series}
    told: list[dict[str, Any]] = []
    for number, run in enumerate(runs):
        parts: dict[str, Any] = {}
        for part, curves in ((TRAIN, run.train), (HELD_OUT, run.held_out)):
            wanted = {column for run_number, p, column in used if (run_number, p) == (number, part)}
            values = curves.to_dict()
            parts[part] = {name: values[name] for name in values if name in wanted | {"step", "tokens"}}
        told.append(parts)
    shown = [{**asdict(chart), "series": [each._asdict() for each in chart.series]} for chart in charts]
    text = json.dumps({"runs": told, "charts": shown}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def chart_part(number: int, chart: Chart, runs: Sequence[DrawnRun]) -> Iterator[str]:
    """Gives a chart: what it says in words, its key, the place where it is drawn, and its numbers.

    Args:
        number: of the chart.
        chart: it itself.
        runs: whose lines it has.
    """
    title, shown = escape(chart.title), [each for each in chart.series if each.label]
    yield f'<figure class="chart{" whole" if chart.is_wide else ""}" data-chart="{number}">\n'
    yield f'<figcaption><h3>{title}</h3><p class="soft">{escape(_in_words(chart, shown, runs))}</p></figcaption>\n'
    yield '<ul class="keys">'
    for each in shown:
        points = _known(each, runs)
        look = f'<i class="swatch c{each.colour % COLOURS}{" dashed" if each.colour >= COLOURS else ""}"></i>'
        value = FORMS[chart.form](points[-1][1])
        yield f'<li><button type="button" aria-pressed="true" data-key="{escape(each.key)}">{look}'
        yield f"<span>{escape(each.label)}</span> <b>{value}</b></button></li>"
    yield '</ul>\n<p class="read" aria-live="polite"></p>\n'
    yield f'<div class="plot" tabindex="0" role="application" aria-roledescription="chart" aria-label="{title}; '
    yield 'left and right read the values, plus and minus zoom, escape shows all"></div>\n'
    yield "<details><summary>numbers</summary>\n"
    yield from plain_table(_table(chart, shown, runs))
    yield "</details>\n</figure>\n"


def _known(series: Series, runs: Sequence[DrawnRun]) -> list[tuple[int, float]]:
    """Gives the steps and values of a line."""
    curves = runs[series.run].curves(series)
    pairs = zip(curves.step, curves.columns[series.column], strict=True)
    return [(step, value) for step, value in pairs if value is not None]


def _in_words(chart: Chart, shown: Sequence[Series], runs: Sequence[DrawnRun]) -> str:
    """Says where lines begin and end, and lie lowest and highest; of many lines, which ends lowest and highest."""
    write = FORMS[chart.form]
    if len(shown) > 2:
        ends = sorted((_known(each, runs)[-1][1], each.label) for each in shown)
        (low, first), (high, last) = ends[0], ends[-1]
        return f"At the end from {write(low)} ({first}) to {write(high)} ({last})."
    sentences = []
    for each in shown:
        points = _known(each, runs)
        (low, low_step), (high, high_step) = (choose((v, s) for s, v in points) for choose in (min, max))
        name = f"{each.label}: " if len(shown) > 1 else ""
        if low == high:
            sentences.append(f"{name}{write(low)} throughout.")
            continue
        outer = (points[0][0], points[-1][0])
        between = [f"lowest {write(low)} at step {low_step:,}"] if low_step not in outer else []
        between += [f"highest {write(high)} at step {high_step:,}"] if high_step not in outer else []
        sentences.append(f"{name}{'; '.join([f'{write(points[0][1])} to {write(points[-1][1])}', *between])}.")
    return " ".join(sentences)


def _table(chart: Chart, shown: Sequence[Series], runs: Sequence[DrawnRun]) -> Table:
    """Gives values at steps that are evenly chosen; each line's last one up to that step."""
    lines = [_known(each, runs) for each in shown]
    steps = sorted({step for line in lines for step, _ in line})
    chosen = sorted({steps[round(at * (len(steps) - 1) / max(TABLE_STEPS - 1, 1))] for at in range(TABLE_STEPS)})
    rows = []
    for step in chosen:
        places = [bisect_right(line, step, key=lambda point: point[0]) for line in lines]
        cells = [FORMS[chart.form](line[at - 1][1]) if at else "-" for line, at in zip(lines, places, strict=True)]
        rows.append((f"{step:,}", *cells))
    notes = (f"{len(chosen)} of {len(steps):,} steps; all are in logs/metrics.csv",) if len(chosen) < len(steps) else ()
    return Table(f"{chart.title}: numbers", ("step", *(each.label for each in shown)), rows, notes)
