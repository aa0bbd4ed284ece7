"""What was, beside what is: rows of a table, and how it ends. Knows no files but to hash them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from litft.errors import FaultsFoundError
from litft.terminal.bars import Bar

WIDTHS = (38, 14, 14)
SHOWN_DIGITS = 12
MISSING = "not there"
UNKNOWN = "?"
PIECE = 1 << 22  # bytes


@dataclass(frozen=True)
class Compared:
    """One thing.

    Attributes:
        what: its name.
        then: what it was; None where nobody wrote it down.
        now: what it is; None where it cannot be looked at.
        note: why it cannot be compared.
    """

    what: str
    then: str | None
    now: str | None
    note: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is something to compare."""
        return self.then is not None and self.now is not None

    @property
    def differs(self) -> bool:
        """Whether it is known not to be what it was."""
        return self.is_known and self.then != self.now

    def line(self) -> str:
        """Gives its line of the table."""
        ok = UNKNOWN if not self.is_known else "NO" if self.differs else "yes"
        return _line(self.what, shown(self.then), shown(self.now), f"{ok}  {self.note}".rstrip())


def shown(value: str | None) -> str:
    """Gives a value as the table has room for it: of a hash the first digits."""
    if value is None:
        return UNKNOWN
    is_hash = len(value) == 64 and not set(value) - set("0123456789abcdef")
    return value[:SHOWN_DIGITS] if is_hash else value


def compare_file(what: str, then: str | None, path: Path) -> Compared:
    """Compares a file with the sha256 that it had; one that is gone is not what it was."""
    return Compared(what, then, hash_file(path) if path.is_file() else MISSING)


def hash_file(path: Path) -> str:
    """Gives the SHA-256 of a file; a large one shows how far it is. What is kept beside it is not believed."""
    digest = hashlib.sha256()
    with path.open("rb") as file, Bar(f"hashing {path.name}", path.stat().st_size, "B", stays=False) as bar:
        while piece := file.read(PIECE):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()


def table_lines(rows: Iterable[Compared], report_empty: str = "") -> Iterator[str]:
    """Gives the table, line by line as rows are known, and at its end the counts.

    Args:
        rows: what is compared.
        report_empty: what is said where nothing could be compared.

    Raises:
        FaultsFoundError: something differs; at the very end.
    """
    yield _line("what", "then", "now", "equal")
    found = []
    for row in rows:
        found.append(row)
        yield row.line()
    differing = [row.what for row in found if row.differs]
    unknown = [row for row in found if not row.is_known]
    equal = len(found) - len(differing) - len(unknown)
    yield f"{equal} equal, {len(differing)} not, {len(unknown)} could not be compared\n"
    if not equal and not differing and report_empty:
        yield f"{report_empty}\n"
    if differing:
        raise FaultsFoundError(f"{len(differing)} of {len(found)} differ: {', '.join(differing)}.")


def _line(*cells: str) -> str:
    """Gives a line of the table."""
    first = " ".join(f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=False))
    return f"{first} {cells[-1]}\n"
