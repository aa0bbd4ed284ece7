"""Rows of cells between commas, semicolons, tabs or bars, each with its line. Knows no dataset.

Source of the format: RFC 4180, with UTF-8, an optional byte order mark, and LF or CRLF line ends.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from litft.data.reading.kinds import other_form
from litft.data.reading.lines import LONGEST_BYTES, iter_lines, too_long
from litft.errors import DataError

# The library stops at 131,072 characters in a cell; a cell may well be longer, and is then judged by its tokens. Where
# a quote is never closed, all that follows is one cell.
CELL_LIMIT = LONGEST_BYTES

# What may stand between cells, as programs write it where a comma stands in numbers, and its name.
MARKS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


def find_mark(path: Path, names: Collection[str]) -> str:
    """Gives what stands between the cells of a file, by its header.

    That is the mark between which these names stand, a comma before all others; else the first that is in the header.

    Args:
        path: the file.
        names: columns that it should have.

    Raises:
        DataError: the file cannot be read.
    """
    _, header = next(iter_lines(path), (1, ""))
    cells = {mark: _header_cells(header, mark) for mark in MARKS}
    named = (mark for mark in MARKS if set(names) <= set(cells[mark]))
    several = (mark for mark in MARKS if len(cells[mark]) > 1)
    return next(chain(named, several), ",")


def _header_cells(line: str, mark: str) -> list[str]:
    """Gives the cells of a line; none where its quotes are broken."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=mark, strict=True), [])]
    except csv.Error:
        return []


def iter_cells(path: Path, mark: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Gives each row with the line it begins on, the header first; blank lines are skipped.

    Args:
        path: the file.
        mark: what stands between cells.

    Raises:
        DataError: a quote is broken; naming the line.
    """
    with _cell_limit():
        yield from _iter_cells(path, mark)


def _iter_cells(path: Path, mark: str) -> Iterator[tuple[int, list[str]]]:
    """Does so."""
    reader = csv.reader((line for _, line in iter_lines(path)), delimiter=mark, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _broken(path, line, reader.line_num, error) from error
        if cells is None:
            return
        if cells:
            yield line, cells


def _broken(path: Path, begin: int, line: int, error: csv.Error) -> DataError:
    """Builds the error of a row that cannot be told from its neighbours."""
    if "field larger" in str(error):
        return too_long(path, begin, "a cell of the row that begins there, perhaps for want of a closing quote,")
    where = f"{path}: the row that begins on line {begin} is broken at line {line} ({error})"
    if "new-line character" in str(error):
        return DataError(f"{where}; its lines end in CR alone: save the file with LF or CR LF.")
    advice = 'a cell with a quote needs quotes around it, and each quote inside doubled ("").'
    return DataError(f"{where}; {advice}{other_form(path, 'csv') if begin == 1 else ''}")


@contextmanager
def _cell_limit() -> Iterator[None]:
    """Lifts the library's limit on a cell while a file is read."""
    before = csv.field_size_limit(CELL_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(before)
