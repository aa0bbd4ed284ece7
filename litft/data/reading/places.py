"""Where a row stands in its file, to be told to a person. Knows no file format."""

from __future__ import annotations


class RowPlace(int):
    """The place of a row that its line does not tell: rows of a list may share one, and some files have none.

    As a number it is the line, or the row's own number where there are no lines.

    Attributes:
        row: its number, from 1.
        line: on which it begins; None where its file has no lines.
    """

    row: int
    line: int | None

    def __new__(cls, row: int, line: int | None = None) -> RowPlace:
        """Takes what the class says."""
        place = super().__new__(cls, row if line is None else line)
        place.row, place.line = row, line
        return place


def place_fields(place: int) -> dict[str, int]:
    """Gives line and row under these names, as far as they tell the place.

    Args:
        place: a line, or more than that.
    """
    if not isinstance(place, RowPlace):
        return {"line": place}
    return {"row": place.row} if place.line is None else {"line": place.line, "row": place.row}


def shown_place(place: int) -> str:
    """Gives `line 3`, `row 3`, or `line 1, row 3`."""
    return ", ".join(f"{name} {number}" for name, number in place_fields(place).items())
