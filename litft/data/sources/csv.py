"""A CSV file of the user's own: a header with instruction, output and perhaps input, then one row an example.

Source of the format: RFC 4180, with UTF-8, an optional byte order mark, LF or CRLF line ends, and semicolons, tabs or
bars where the header has no commas.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path

from litft.data.reading.cells import MARKS, find_mark, iter_cells
from litft.data.reading.faults import listed
from litft.data.reading.kinds import other_form
from litft.data.reading.rows import Found, Rejected, Row, Rows, Source, read_fields
from litft.errors import DataError, did_you_mean

REQUIRED_COLUMNS = ("instruction", "output")
COLUMNS = ("instruction", "input", "output")

# What other files call these columns: proposed, never taken.
OTHERS = {
    "instruction": ("question", "prompt", "query"),
    "input": ("context",),
    "output": ("answer", "response", "completion", "reply"),
}

# A cell with more than so many words or characters, or with a full stop at its end, is no name of a column.
MOST_WORDS, MOST_CHARACTERS = 3, 40


def read_csv(path: Path, columns: Mapping[str, str] | None = None) -> Rows:
    """Gives the rows of a file, each one turn.

    Args:
        path: the file.
        columns: what the file calls a column, where it is not instruction, input or output.

    Raises:
        DataError: columns are missing, or a quote is broken; naming the line.
    """
    names = _names(columns)
    mark = find_mark(path, [names[name] for name in REQUIRED_COLUMNS])
    records = iter_cells(path, mark)
    header = _plain(next(records, (1, []))[1])
    _check_header(path, header, names, columns, mark)
    if mark != ",":
        yield Found(f"{MARKS[mark].capitalize()} stands between the cells, where others have a comma.")
    for line, cells in records:
        if _plain([cells[0].removeprefix("\ufeff"), *cells[1:]]) == header:
            yield Rejected(line, "the header again, as where files were joined", is_fault=False)
        else:
            yield _read_row(line, cells, header, names, mark)


def unused_columns(path: Path, columns: Mapping[str, str] | None = None, used: Collection[str] = ()) -> str | None:
    """Gives a sentence on the columns that `read_csv` leaves aside, None where there are none.

    Args:
        path, columns: as `read_csv` takes them; the file was read before.
        used: columns that are read beside the rows.
    """
    names = _names(columns)
    mark = find_mark(path, [names[name] for name in REQUIRED_COLUMNS])
    header = _plain(next(iter_cells(path, mark), (1, []))[1])
    unused = [cell for cell in header if cell not in (*names.values(), *used)]
    if not unused:
        return None
    listed = ", ".join(f'"{cell}"' for cell in unused)
    advice = "" if names["input"] in header else f"; --columns input={unused[0]} would make that one the input"
    return f"Not used of {path}: {listed}{advice}."


def _names(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Gives the file's name of each column."""
    given = dict(columns or {})
    if given and not set(given) & set(COLUMNS) and set(given.values()) <= set(COLUMNS):
        turned = ",".join(f"{name}={column}" for column, name in given.items())
        raise DataError(f"--columns has litft's names first, then those of your file: --columns {turned}.")
    for key in given:
        if key not in COLUMNS:
            raise DataError(f'--columns names "{key}"; it can name {", ".join(COLUMNS)}.{did_you_mean(key, COLUMNS)}')
    names = {name: given.get(name, name) for name in COLUMNS}
    twice = next((key for key in given if list(names.values()).count(given[key]) > 1), None)
    if twice is not None:
        both = " and ".join(name for name in COLUMNS if names[name] == given[twice])
        raise DataError(f'--columns makes the column "{given[twice]}" both {both}; each needs a column of its own.')
    return names


def _plain(cells: list[str]) -> list[str]:
    """Gives the names of a header without the spaces around them."""
    return [cell.strip() for cell in cells]


def _check_header(
    path: Path, header: list[str], names: dict[str, str], columns: Mapping[str, str] | None, mark: str
) -> None:
    """Refuses a header that lacks a column, or has one twice."""
    if not header:
        raise DataError(f"{path} is empty; a header line with {' and '.join(REQUIRED_COLUMNS)} is needed.")
    found = listed(header)
    needed = [name for name in COLUMNS if name in REQUIRED_COLUMNS or name in (columns or {})]
    missing = [name for name in needed if names[name] not in header]
    if missing:
        form = other_form(path, "csv") if mark == "," else ""
        hint = form or _no_header_hint(header, mark) or _name_hint(header, names)
        wanted = f"column{'s' * (len(missing) > 1)} " + " and ".join(f'"{names[name]}"' for name in missing)
        raise DataError(f"{path} has no {wanted}; found {found}.{hint}")
    for name in names.values():
        if header.count(name) > 1:
            raise DataError(f'{path} has the column "{name}" {header.count(name)} times; found {found}.')


def _no_header_hint(header: list[str], mark: str) -> str:
    """Says that a header is missing, where its place looks like a row."""
    is_row = any(
        len(cell) > MOST_CHARACTERS or len(cell.split()) > MOST_WORDS or cell.rstrip().endswith((".", "!", "?"))
        for cell in header
    )
    line = mark.join(COLUMNS if len(header) == len(COLUMNS) else REQUIRED_COLUMNS)
    return f" Its first line looks like a row; put the header {line} above it." * is_row


def _name_hint(header: list[str], names: dict[str, str]) -> str:
    """Says what to do about missing columns: the flag, with all that are known, whatever their case or spelling."""
    columns = {}
    for name in COLUMNS:
        column = names[name] if names[name] in header else _like(header, names, name)
        if column is None and (name in REQUIRED_COLUMNS or names[name] != name):
            column = "YOUR_COLUMN"
        if column not in (None, name):
            columns[name] = column
    pairs = ",".join(f"{name}={column}" for name, column in columns.items())
    return f" Add --columns {shlex.quote(pairs)} to name the file's own."


def _like(header: list[str], names: dict[str, str], name: str) -> str | None:
    """Gives the cell of a header that may be meant by a column; None where none is like it."""
    plain = {cell.lower(): cell for cell in reversed(header) if cell not in names.values()}
    keys = (names[name].lower(), name, *OTHERS[name])
    same = next((plain[key] for key in keys if key in plain), None)
    near = difflib.get_close_matches(names[name].lower(), [key for key in plain if key not in COLUMNS], n=1)
    return same or (plain[near[0]] if near and name in REQUIRED_COLUMNS else None)


def _read_row(line: int, cells: list[str], header: list[str], names: dict[str, str], mark: str) -> Row | Rejected:
    """Makes a row out of its cells."""
    if len(cells) != len(header):
        advice = f": a cell that holds {MARKS[mark]} needs quotes around it" * (len(cells) > len(header))
        reason = f"{len(cells)} cell{'s' * (len(cells) != 1)} where the header has {len(header)}"
        return Rejected(line, reason + advice)
    return read_fields(
        line,
        dict(zip(header, cells, strict=True)),
        instruction=names["instruction"],
        response=names["output"],
        context=names["input"],
    )


SOURCE = Source(
    name="csv",
    repo_id=None,
    files=(),
    licence="the user's own",
    origin="unknown",
    rows=None,
    schema="a header with the columns instruction, output and, where there is one, input; one row an example",
    read=read_csv,
    unused=unused_columns,
)
