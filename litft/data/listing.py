"""What `litft inspect` writes to a terminal or a pipe: the same lines, coloured or not. Knows no files."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from litft.data.view import LENGTHS, ROWS, STEP, Run, ShownBatch, ShownRow, ShownStep, Table, View, visible
from litft.terminal.shown import Painted
from litft.text.frames import ANSWER, END, PROMPT, TARGET, TEMPLATE
from litft.text.token_texts import TokenText

WIDTH = 100
BAR = 48
BETWEEN = "\u2502"  # stands around each token

_LABEL, _POSITION = 8, 5

# Source: ECMA-48, select graphic rendition.
_COLOURS = {TEMPLATE: "34", PROMPT: "36", ANSWER: "33", TARGET: "32;1", END: "35;1"}
_REVERSE, _RESET = "\x1b[7m", "\x1b[0m"

LEGEND = (
    "A line begins with what its tokens are, the position of its first, and * where they carry loss. "
    f"{BETWEEN} stands between tokens, \u00ab\u00bb around special ones; \u21b5 is a line end, \u2026 a character that "
    "goes on in the next token."
)


def iter_lines(view: View, in_colour: bool) -> Iterator[str]:
    """Gives the lines, each with its end.

    Args:
        view: what to show.
        in_colour: with the escapes of a terminal.
    """
    yield f"{view.title}\n"
    yield from (f"  {name}: {value}\n" for name, value in view.facts)
    for table in view.tables:
        yield f"\n{table.title}\n"
        yield from table_lines(table)
    yield f"\n{LENGTHS}\n"
    yield from _lengths(view.lengths)
    if view.step is not None:
        yield f"\n{STEP}\n"
        yield from _step(view.step)
    yield f"\n{ROWS}: {view.chosen}\n"
    if view.rows:
        yield _wrapped(LEGEND)
    for row in view.rows:
        yield from _row(row, in_colour)


def _wrapped(text: str) -> str:
    """Gives a sentence in lines that are not too wide."""
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ") + "\n"


def table_lines(table: Table) -> Iterator[str]:
    """Gives the rows of a table, aligned, and what is said below them, each with its end."""
    rows = [table.head, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.head))]
    for first, *rest in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]
        yield f"  {'  '.join(cells)}".rstrip() + "\n"
    yield from map(_wrapped, table.notes)


def _lengths(lengths: list[tuple[str, int]]) -> Iterator[str]:
    """Draws the histogram."""
    highest, wide = max(count for _, count in lengths), max(len(name) for name, _ in lengths)
    filled = [place for place, (_, count) in enumerate(lengths) if count]
    for place, (name, count) in enumerate(lengths):
        if count or place - 1 in filled or place + 1 in filled:
            yield f"  {name:>{wide}}  {count:>7,}  {'#' * -(-count * BAR // highest)}".rstrip() + "\n"
        elif place and lengths[place - 1][1] == 0 and place - 2 in filled:
            yield f"  {'...':>{wide}}\n"


def _step(step: ShownStep) -> Iterator[str]:
    """Draws micro-batches."""
    yield _wrapped(step.summary)
    yield "  Positions count from 0 in each row. - is read, # predicts a token with loss, . is padding.\n"
    yield "  Rows of a packed micro-batch stand end to end; none sees another.\n"
    widest = max(batch.width for batch in step.batches)
    for number, batch in enumerate(step.batches):
        yield from _batch(f"micro-batch {number}", batch, widest)


def _batch(name: str, batch: ShownBatch, widest: int) -> Iterator[str]:
    """Draws the rows of a micro-batch; a cell of several positions shows loss if one of them has it."""
    cells = -(-batch.width * BAR // widest)
    for number, start, length, stretches in batch.placed():
        drawn_row = "".join("-#"[stretch.is_learned] * stretch.length for stretch in stretches)
        signs = (" " * start + drawn_row).ljust(batch.width, " " if batch.packed else ".")
        drawn = [signs[cell * batch.width // cells : (cell + 1) * batch.width // cells] for cell in range(cells)]
        bar = "".join(next(sign for sign in "#-. " if sign in part) for part in drawn if part)
        yield f"  {name:<16} row {number:>7,}  positions 0-{length - 1:<6,} {bar}".rstrip() + "\n"
        name = ""


def _row(row: ShownRow, in_colour: bool) -> Iterator[str]:
    """Gives one row token by token."""
    yield f"\n{row.summary}\n"
    yield from (f"  note: {note}\n" for note in row.notes)
    for run in row.runs():
        yield from _run(run, in_colour)


def _run(run: Run, in_colour: bool) -> Iterator[str]:
    """Gives tokens of one kind, in lines that are not too wide."""
    label, place, line = run.kind, run.begin, list[TokenText]()
    room = WIDTH - _LABEL - _POSITION - 8
    for position, token in enumerate(run.tokens, start=run.begin):
        if line and sum(len(_said(each)) + 1 for each in line) + len(_said(token)) > room:
            yield _line(label, place, line, run, in_colour)
            label, place, line = "", position, []
        line.append(token)
    yield _line(label, place, line, run, in_colour)


def _line(label: str, place: int, tokens: list[TokenText], run: Run, in_colour: bool) -> str:
    """Gives one line of tokens."""
    mark = "*" if run.is_learned else " "
    said = BETWEEN.join(_painted(token, run.kind) if in_colour else _said(token) for token in tokens)
    return Painted(f"  {label:<{_LABEL}} {place:>{_POSITION}} {mark} {BETWEEN}{said}{BETWEEN}\n")


def _said(token: TokenText) -> str:
    """Gives a token's text; the name of a special one in quotes of its own."""
    return f"\u00ab{visible(token)}\u00bb" if token.is_special else visible(token)


def _painted(token: TokenText, kind: str) -> str:
    """Gives a token in its colour, special ones reversed."""
    return f"{_REVERSE if token.is_special else ''}\x1b[{_COLOURS[kind]}m{_said(token)}{_RESET}"
