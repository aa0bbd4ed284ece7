"""A CSV file of the user's own: a header with instruction, output and perhaps input, then one row an example.

Source of the format: RFC 4180, with UTF-8, an optional byte order mark, and LF or CRLF line ends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from litft.data.reading.cells import iter_cells
from litft.data.reading.faults import listed
from litft.data.reading.kinds import other_form
from litft.data.reading.rows import Rejected, Row, Rows, Source, read_fields
from litft.errors import DataError, did_you_mean

REQUIRED_COLUMNS = ("instruction", "output")
COLUMNS = ("instruction", "input", "output")


def read_csv(path: Path, columns: Mapping[str, str] | None = None) -> Rows:
    """Gives the rows of a file, each one turn.

    Args:
        path: the file.
        columns: what the file calls a column, where it is not instruction, input or output.

    Raises:
        DataError: columns are missing, or a quote is broken; naming the line.
    """
    names = _names(columns)
    records = iter_cells(path)
    _, header = next(records, (1, []))
    _check_header(path, header, names, columns)
    for line, cells in records:
        if [cells[0].removeprefix("\ufeff"), *cells[1:]] == header:
            yield Rejected(line, "the header again, as where files were joined", is_fault=False)
        else:
            yield _read_row(line, cells, header, names)


def unused_columns(path: Path, columns: Mapping[str, str] | None = None, used: Collection[str] = ()) -> str | None:
    """Gives a sentence on the columns that `read_csv` leaves aside, None where there are none.

    Args:
        path, columns: as `read_csv` takes them; the file was read before.
        used: columns that are read beside the rows.
    """
    names = _names(columns)
    _, header = next(iter_cells(path), (1, []))
    unused = [cell for cell in header if cell not in (*names.values(), *used)]
    if not unused:
        return None
    listed = ", ".join(f'"{cell}"' for cell in unused)
    advice = "" if names["input"] in header else f"; --columns input={unused[0]} would make that one the input"
    return f"Not used of {path}: {listed}{advice}."


def _names(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Gives the file's name of each column."""
    given = dict(columns or {})
    for key in given:
        if key not in COLUMNS:
            raise DataError(f'--columns names "{key}"; it can name {", ".join(COLUMNS)}.{did_you_mean(key, COLUMNS)}')
    names = {name: given.get(name, name) for name in COLUMNS}
    twice = next((key for key in given if list(names.values()).count(given[key]) > 1), None)
    if twice is not None:
        both = " and ".join(name for name in COLUMNS if names[name] == given[twice])
        raise DataError(f'--columns makes the column "{given[twice]}" both {both}; each needs a column of its own.')
    return names


def _check_header(path: Path, header: list[str], names: dict[str, str], columns: Mapping[str, str] | None) -> None:
    """Refuses a header that lacks a column, or has one twice."""
    if not header:
        raise DataError(f"{path} is empty; a header line with {' and '.join(REQUIRED_COLUMNS)} is needed.")
    found = listed(header)
    needed = [name for name in COLUMNS if name in REQUIRED_COLUMNS or name in (columns or {})]
    missing = [name for name in needed if names[name] not in header]
    if missing:
        hint = _separator_hint(header) or other_form(path, "csv") or _name_hint(header, missing, names)
        wanted = " and ".join(f'"{names[name]}"' for name in missing)
        raise DataError(f"{path} has no column {wanted}; found {found}.{hint}")
    for name in names.values():
        if header.count(name) > 1:
            raise DataError(f'{path} has the column "{name}" {header.count(name)} times; found {found}.')


def _separator_hint(header: list[str]) -> str:
    """Says that a header is separated otherwise, where it is."""
    cells = header[0].lower()
    for mark, shown in ((";", '";"'), ("\t", "tabs"), ("|", '"|"')):
        if len(header) == 1 and any(name in cells.split(mark) for name in REQUIRED_COLUMNS):
            return f" The file is separated by {shown}; save it with commas."
    return ""


def _name_hint(header: list[str], missing: list[str], names: dict[str, str]) -> str:
    """Says what to do about missing columns."""
    near = next((hint for name in missing if (hint := did_you_mean(names[name], header))), "")
    example = ",".join(f"{name}=YOUR_COLUMN" for name in missing)
    return f"{near} Name the file's own columns with `--columns {example}`."


def _read_row(line: int, cells: list[str], header: list[str], names: dict[str, str]) -> Row | Rejected:
    """Makes a row out of its cells."""
    if len(cells) != len(header):
        return Rejected(line, f"{len(cells)} cell{'s' * (len(cells) != 1)} where the header has {len(header)}")
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
