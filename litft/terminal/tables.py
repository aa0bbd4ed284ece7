"""Text for people: a small table of names and texts (plain lines for a log, drawn on a terminal), and times."""

from __future__ import annotations

from collections.abc import Sequence

from litft.terminal.shown import harmless

NARROWEST = 9  # characters of the names' column, so that tables that follow each other stand alike


class Table(str):
    """Plain text, one line a row, that still knows its heading and rows for who can draw them."""

    heading: str
    rows: tuple[tuple[str, str], ...]

    def __new__(cls, heading: str, rows: Sequence[tuple[str, str]]) -> Table:
        """Gives the table.

        Args:
            heading: stands above it where it is drawn.
            rows: names and their texts; an empty name goes on with the row above.
        """
        width = max(NARROWEST, *(len(name) for name, _ in rows))
        table = super().__new__(cls, "\n".join(f"  {name:<{width}} {text}" for name, text in rows))
        table.heading, table.rows = heading, tuple(rows)
        return table

    def harmless(self) -> Table:
        """Gives the same without what a terminal would obey."""
        return Table(harmless(self.heading), [(harmless(name), harmless(text)) for name, text in self.rows])


def plain_time(seconds: float) -> str:
    """Gives a time as a person reads it, such as 12 min."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
