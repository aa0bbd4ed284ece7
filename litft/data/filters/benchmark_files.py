"""The texts of benchmark files, whatever their fields are called. Knows no rows of ours."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from litft.data.paths import path_hint
from litft.data.reading.lines import iter_json_lines, iter_lines
from litft.data.reading.lists import is_json_list, iter_json_list, read_json_object
from litft.errors import DataError

# The list within the one object that a task of BIG-bench is. Source: github.com/google/BIG-bench, docs/doc.md.
_LISTED = "examples"


def iter_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Gives each text of a file with its line.

    Args:
        path: ends in .jsonl, .json, .csv or .txt; in a .txt, empty lines stand between texts.

    Raises:
        DataError: it is missing, of another kind, or broken.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"The benchmark {path} ends in none of {', '.join(_READERS)}; save it as one of these.")
    if not path.is_file():
        raise DataError(f"There is no benchmark file {path}.{path_hint(path)}")
    yield from reader(path)


def _json_lines(path: Path) -> Iterator[tuple[int, str]]:
    for line, values in iter_json_lines(path):
        yield from ((line, text) for text in _within(values))


def _json(path: Path) -> Iterator[tuple[int, str]]:
    """Reads one list of objects, or one object."""
    if is_json_list(path):
        for line, values in iter_json_list(path):
            yield from ((line, text) for text in _within(values))
        return
    values, lines = read_json_object(path, _LISTED)
    items = values.pop(_LISTED, []) if lines else []
    yield from ((1, text) for text in _within(values))
    for line, item in zip(lines, items, strict=True):
        yield from ((line, text) for text in _within(item))


def _csv(path: Path) -> Iterator[tuple[int, str]]:
    reader = csv.reader(line for _, line in iter_lines(path))
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {line} is no CSV that can be read ({error}); mend it.") from error
        if cells is None:
            return
        yield from ((line, cell) for cell in cells if cell)


def _paragraphs(path: Path) -> Iterator[tuple[int, str]]:
    begin, lines = 0, list[str]()
    for number, line in iter_lines(path):
        if line.strip():
            begin = begin if lines else number
            lines.append(line)
        elif lines:
            yield begin, "".join(lines)
            lines = []
    if lines:
        yield begin, "".join(lines)


def _within(value: object) -> Iterator[str]:
    """Gives all texts in lists and objects, in order; names of fields are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _within(inner)


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, str]]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".txt": _paragraphs,
}
