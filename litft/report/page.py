"""The report as one page: of a run alone, or of several whose curves lie over each other.

All texts of data and of models are escaped. The page asks for nothing else, and runs no script but its own two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from litft.config.io import load_yaml
from litft.data.html import contents, facts_list, heading, opening, plain_table, script_element, table_part
from litft.data.overview import facts_of, ledger_of, mixture_of, shares_of
from litft.data.store import MANIFEST_FILE, TEST_FILE, PreparedData
from litft.errors import LitftError
from litft.report.answers import answers_part
from litft.report.charts import COLOURS, DrawnRun, chart_part, charts_of, drawn, is_steep, numbers_of
from litft.report.happened import (
    environment,
    numbers_table,
    planned_table,
    state_of,
    tiles_of,
    tiles_part,
    times_part,
)
from litft.report.read import RunFolder
from litft.report.rows import data_of, rows_part
from litft.report.settings import changed, command_again, differing

COMMAND = "report"
CURVES, NUMBERS, SETTINGS = "Curves", "Numbers", "Settings that differ"
RUN = "run"  # before the names of runs, which may be anything
PARTS = ("Answers over time", "Rows", "Plan and time", "Data", "Settings", "Environment")
HERE = Path(__file__).parent
# uPlot 1.6.32, as its npm package has it; MIT, see uplot/LICENSE. Source: github.com/leeoniya/uPlot.
UPLOT = HERE / "uplot" / "uPlot.iife.min.js"
UPLOT_STYLE = HERE / "uplot" / "uPlot.min.css"


def page_of(runs: Sequence[RunFolder]) -> str:
    """Gives the page.

    Args:
        runs: one, or several to be compared.
    """
    return "".join(_page(runs))


def _page(runs: Sequence[RunFolder]) -> Iterator[str]:
    """Gives the page in pieces."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    scripts = [path.read_text(encoding="utf-8") for path in (UPLOT, HERE / "page.js")]
    style = "".join(path.read_text(encoding="utf-8") for path in (UPLOT_STYLE, HERE / "page.css"))
    lines = [drawn(run) for run in runs]
    yield from opening(f"Report: {title}", COMMAND, style, scripts)
    yield contents([CURVES, *PARTS] if len(runs) == 1 else [NUMBERS, CURVES, SETTINGS])
    if len(runs) > 1:
        yield contents((run.name for run in runs), RUN)
    yield "<main>\n"
    yield from _alone(runs[0], lines) if len(runs) == 1 else _compared(runs, lines)
    yield "</main>\n"
    yield f'<script type="application/json" data-numbers>{numbers_of(lines, charts_of(lines))}</script>\n'
    yield "".join(map(script_element, scripts))
    yield "</body>\n</html>\n"


def _alone(run: RunFolder, lines: Sequence[DrawnRun]) -> Iterator[str]:
    """Gives the report of one run."""
    yield f"<p>{escape(state_of(run))}</p>\n"
    yield from _notes(run)
    yield from tiles_part(tiles_of(run))
    yield from _charts(lines)
    yield from _parts(run, 2)


def _compared(runs: Sequence[RunFolder], lines: Sequence[DrawnRun]) -> Iterator[str]:
    """Gives the report of several runs: what they have in common, then each by itself."""
    yield from table_part(numbers_table(runs))
    yield from _charts(lines)
    table = differing(runs)
    yield heading(SETTINGS)
    yield from plain_table(table) if table.rows else ['<p class="soft">None: the runs have the same settings.</p>\n']
    for run in runs:
        yield f'<details class="run"><summary>{heading(run.name, 2, RUN)}</summary>\n<p>{escape(state_of(run))}</p>\n'
        yield from _notes(run)
        yield from _parts(run, 3)
        yield "</details>\n"


def _notes(run: RunFolder) -> Iterator[str]:
    """Gives what could not be read."""
    if run.notes:
        yield f'<div class="notes">{"".join(f"<p>{escape(note)}</p>" for note in run.notes)}</div>\n'


def _charts(lines: Sequence[DrawnRun]) -> Iterator[str]:
    """Gives the charts, and what steers all of them."""
    charts = charts_of(lines)
    yield f'<section aria-label="{CURVES}">{heading(CURVES)}'
    if not charts:
        yield '<p class="soft">None: logs/metrics.csv holds no numbers yet.</p></section>\n'
        return
    has_tokens = all(any(each.train.tokens) or any(each.held_out.tokens) for each in lines)
    yield from _controls(has_tokens, is_log=is_steep(lines))
    yield "<noscript><p>The curves are drawn by a script; without it their numbers stand in tables.</p></noscript>\n"
    yield f'<p class="soft">{_how_drawn(lines)}</p>\n<div class="charts">\n'
    for number, chart in enumerate(charts):
        yield from chart_part(number, chart, lines)
    yield "</div></section>\n"


def _controls(has_tokens: bool, is_log: bool) -> Iterator[str]:
    """Gives the choice of the axis, and the way back from a zoom."""
    off, log = "" if has_tokens else " disabled", " checked" if is_log else ""
    yield '<div class="controls"><fieldset><legend>over</legend>'
    yield '<label><input type="radio" name="axis" value="step" checked> steps</label>'
    yield f'<label><input type="radio" name="axis" value="tokens"{off}> tokens</label></fieldset>'
    yield '<label><input type="checkbox" data-log' + log
    yield "> logarithmic losses and norms</label>"
    yield '<button type="button" data-all disabled>show all</button></div>\n'


def _how_drawn(lines: Sequence[DrawnRun]) -> str:
    """Says how the lines were made of the numbers."""
    said = ["Drag over a chart to zoom into all of them; names hide and show lines."]
    group = max(max(each.train.group, each.held_out.group) for each in lines)
    if any("loss:smooth" in each.train.columns for each in lines):
        faint = " over the steps themselves, drawn faintly" if len(lines) == 1 else ""
        said.append(f"Lines that differ much from step to step are running means{faint}.")
    if group > 1:
        edges = ", with the range from the lowest to the highest loss behind it" if len(lines) == 1 else ""
        said.append(f"A point is the mean of up to {group:,} lines of logs/metrics.csv{edges}.")
    if len(lines) > COLOURS:
        said.append("Colours repeat after ten runs, dashed.")
    return escape(" ".join(said))


def _parts(run: RunFolder, level: int) -> Iterator[str]:
    """Gives all of a run that is no curve.

    Args:
        run: whose it is.
        level: of the headings.
    """
    within = f"{RUN} {run.name}" if level > 2 else ""
    answers, rows, plan, data, settings, where = (heading(name, level, within) for name in PARTS)
    yield answers
    yield from answers_part(run)
    yield rows
    yield from rows_part(run, level + 1)
    yield plan
    yield f"<h{level + 1}>Where the time went</h{level + 1}>\n"
    yield from times_part(run)
    yield from table_part(planned_table(run), level + 1, within)
    yield data
    yield from _data(run, level + 1, within)
    yield settings
    table = changed(run)
    yield from plain_table(table, within) if table.rows else [f'<p class="soft">{table.notes[0]}</p>\n']
    yield where
    yield f'<p>To repeat it:</p>\n<pre tabindex="0"><code>{escape(command_again(run))}</code></pre>\n'
    yield from facts_list(environment(run))


def _data(run: RunFolder, level: int, within: str) -> Iterator[str]:
    """Gives the data's facts, ledger and mixture, if its folder is still there."""
    try:
        train = data_of(run)
        folder = train.path.parent
        manifest = load_yaml(folder / MANIFEST_FILE) if (folder / MANIFEST_FILE).is_file() else {}
        files = [train, *([PreparedData.load(folder / TEST_FILE)] if (folder / TEST_FILE).is_file() else [])]
    except LitftError as error:
        yield f'<p class="soft">Not shown: {escape(str(error))}</p>\n'
        return
    yield f'<p class="soft">{escape(_same_data(run, manifest, train))} litft inspect shows its rows.</p>\n'
    yield from facts_list(facts_of(train, manifest))
    for table in (mixture_of(files), *shares_of(manifest), ledger_of(manifest)):
        yield from table_part(table, level, within)


def _same_data(run: RunFolder, manifest: dict[str, object], train: PreparedData) -> str:
    """Says whether the folder holds what was trained on."""
    sums, files = run.provenance.get("sha256"), manifest.get("files")
    told = files.get(train.path.name) if isinstance(files, dict) else None
    before = sums.get(train.path.name) if isinstance(sums, dict) else None
    now = told.get("sha256") if isinstance(told, dict) else None
    if before is None or now is None:
        return f"Read from {train.path.parent}."
    if before != now:
        return f"{train.path.parent} has been prepared again since the run: these are its new numbers."
    return f"Read from {train.path.parent}, which is what was trained on, by its hash."
