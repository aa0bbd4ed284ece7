"""Files that are one JSON value: a list of rows, or an object with one, item by item with the line each begins on.

Knows no dataset. Of a list no more than an item stands in memory, and what was read with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litft.data.reading.faults import shown
from litft.data.reading.json_text import NotJsonError, parse_json
from litft.data.reading.kinds import other_form
from litft.data.reading.lines import LONGEST_BYTES, broken_json, iter_text, no_object, too_long
from litft.data.reading.places import RowPlace
from litft.errors import DataError

# Of a value that was read, so much of its source is kept, to be shown where it is not what was expected.
SOURCE_CHARACTERS = 64

_SPACE = re.compile(r"[ \t\r\n]*")


def is_json_list(path: Path) -> bool:
    """Says whether a file begins a JSON list, and is not JSON Lines.

    Raises:
        DataError: the file cannot be read, or is not UTF-8 as far as looked.
    """
    return _Reader(path).next_character() == "["


def iter_json_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Gives the objects of a file that is one JSON list.

    Raises:
        DataError: naming file and line.
    """
    reader = _Reader(path)
    for place, value in _items(reader):
        if not isinstance(value, dict):
            raise no_object(path, place, reader.source)
        yield place, value
    if reader.next_character():
        raise reader.broken("something follows the list")


def read_json_object(path: Path, listed: str) -> tuple[dict[str, Any], list[RowPlace]]:
    """Gives the object that a file is, and the places of the items of one of its lists.

    Args:
        path: the file.
        listed: the key of that list; no places where the object has no such list.

    Raises:
        DataError: naming file and line.
    """
    reader = _Reader(path)
    values: dict[str, Any] = {}
    places: list[RowPlace] = []
    if reader.next_character() != "{":
        if not reader.next_character():
            raise DataError(f"{path} is empty; expected one JSON object.")
        raise reader.broken("expected one JSON object", other_form(path, "natural_instructions"))
    for _ in reader.members("{", "}"):
        key = reader.key()
        if key in values:
            raise reader.broken(f"the key {shown(key)} stands twice in one object")
        if key == listed and reader.next_character() == "[":
            found = list(_items(reader))
            values[key], places = [item for _, item in found], [place for place, _ in found]
        else:
            values[key] = reader.value()
    if reader.next_character():
        raise reader.broken("something follows the object", other_form(path, "natural_instructions"))
    return values, places


def _items(reader: _Reader) -> Iterator[tuple[RowPlace, Any]]:
    """Gives the items of the list that begins at the next character, each with its place."""
    for number, _ in enumerate(reader.members("[", "]"), start=1):
        place = RowPlace(number, reader.line)
        yield place, reader.value()


class _Reader:
    """A text that is read as far as needed, and forgotten where it is done with.

    Attributes:
        path: its file.
        text: what is looked at.
        position: how much of that is done with.
        source: the first characters of the value that was read last.
    """

    def __init__(self, path: Path) -> None:
        """Begins a file."""
        self.path, self.text, self.position, self.source = path, "", 0, ""
        self._pieces = iter_text(path)
        # Line of the character `_counted`; characters of its line before the text that is looked at.
        self._line, self._counted, self._before = 1, 0, 0

    @property
    def line(self) -> int:
        """The line of the next character."""
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def next_character(self) -> str:
        """Goes to the next character that is no space, and gives it; empty at the end."""
        while True:
            found = _SPACE.match(self.text, self.position)
            assert found is not None
            self.position = found.end()
            if self.position < len(self.text) or not self._read_on():
                return self.text[self.position : self.position + 1]

    def members(self, begin: str, end: str) -> Iterator[None]:
        """Goes from one member of a list or an object to the next, behind its end at last; the caller reads each."""
        assert self.next_character() == begin
        self.position += 1
        is_first = True
        while self.next_character() != end:
            if not is_first:
                self._expect(",", f"a comma or {end} is missing")
            is_first = False
            self.next_character()
            yield
        self.position += 1

    def key(self) -> str:
        """Reads the key of a member of an object, and the colon behind it."""
        if self.next_character() != '"':
            raise self.broken("a key in quotes is missing")
        key = self.value()
        self._expect(":", "a colon is missing")
        self.next_character()
        return str(key)

    def value(self) -> Any:
        """Reads the value that begins at the next character."""
        while True:
            try:
                value, end = parse_json(self.text, self.position)
            except NotJsonError as error:
                if not error.is_cut or not self._read_on():
                    raise self._broken(error) from error
                continue
            if end == len(self.text) and self._read_on():
                continue  # a number may go on
            self.source = self.text[self.position : min(end, self.position + SOURCE_CHARACTERS)]
            self.position = end
            return value

    def broken(self, reason: str, hint: str = "") -> DataError:
        """Builds the error of the next character."""
        return self._broken(NotJsonError(reason, self.position), hint)

    def _broken(self, error: NotJsonError, hint: str = "") -> DataError:
        """Builds the error of a character that was not done with yet."""
        last = self.text.rfind("\n", 0, error.position)
        column = error.position - last if last >= 0 else self._before + error.position + 1
        line = self.line + self.text.count("\n", self.position, error.position)
        return broken_json(self.path, line, column, error, self.text, hint)

    def _expect(self, character: str, reason: str) -> None:
        """Reads one character that must be there."""
        if self.next_character() != character:
            raise self.broken(reason)
        self.position += 1

    def _read_on(self) -> bool:
        """Reads as much again as is not done with; False at the end of the file."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        line, kept = self.line, self.text[self.position :]
        if len(kept) > LONGEST_BYTES:
            raise too_long(self.path, line, "the value that begins there")
        last = self.text.rfind("\n", 0, self.position)
        self._before = self.position - last - 1 if last >= 0 else self._before + self.position
        self._counted = self.position = 0
        parts, size = [kept, piece], len(piece)
        while size < len(kept) and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            size += len(piece)
        self.text = "".join(parts)
        return True
