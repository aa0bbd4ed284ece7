"""What `litft inspect` shows, as plain values; `listing.py` writes them as lines, `page.py` as a page.

Knows no files.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from litft.text.token_texts import TokenText

SETTINGS, LENGTHS, ROWS = "Settings", "Lengths in tokens", "Rows"
STEP = "One step, batched as the loop batches it"

OPEN = "\u2026"  # the last character of a token goes on in the next one
_PICTURES = {"\n": "\u21b5", "\t": "\u21e5", "\r": "\u240d"}
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of Unicode that show nothing, or that change what stands beside


class Table(NamedTuple):
    """Cells under a head, and sentences below them; the first column is text, numbers stand right."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()


class Run(NamedTuple):
    """Tokens in a row that are of one kind.

    Attributes:
        kind: one of `KINDS` in `litft.text.frames`.
        is_learned: whether they carry loss.
        begin: position of the first in the row.
        tokens: they themselves.
    """

    kind: str
    is_learned: bool
    begin: int
    tokens: list[TokenText]


@dataclass(frozen=True)
class ShownRow:
    """One row, token by token.

    Attributes:
        number: in its file, from 0.
        source: its name.
        tokens: the row; kinds: of each what it is; mask: of each whether it carries loss.
        notes: what a person should know of it, such as that it was cut.
        score: its score, NaN where nobody gave one; None where no row of the file has one.
    """

    number: int
    source: str
    tokens: list[TokenText]
    kinds: list[str]
    mask: list[bool]
    notes: list[str]
    score: float | None = None

    @property
    def summary(self) -> str:
        """What it is, in one line."""
        counts = f"{len(self.tokens):,} tokens, {sum(self.mask):,} with loss"
        score = "" if self.score is None else ", no score" if math.isnan(self.score) else f", score {self.score:.3f}"
        return f"row {self.number:,}, {self.source}: {counts}{score}"

    def runs(self) -> Iterator[Run]:
        """Gives the row in runs of one kind, in order."""
        place = 0
        for (kind, learned), group in groupby(zip(self.kinds, self.mask, strict=True)):
            count = len(list(group))
            yield Run(kind, learned, place, self.tokens[place : place + count])
            place += count


class Stretch(NamedTuple):
    """Positions in a row at which the model predicts a target, or at which it only reads."""

    length: int
    is_learned: bool


@dataclass(frozen=True)
class ShownBatch:
    """One micro-batch.

    Attributes:
        width: positions of the batch in a line, padding included.
        packed: whether the rows stand end to end in one line.
        rows: number and stretches of each.
    """

    width: int
    packed: bool
    rows: list[tuple[int, list[Stretch]]]

    def placed(self) -> Iterator[tuple[int, int, int, list[Stretch]]]:
        """Gives of each row its number, the position where it starts in its line, its length, and its stretches."""
        start = 0
        for number, stretches in self.rows:
            length = sum(stretch.length for stretch in stretches)
            yield number, start, length, stretches
            start += length if self.packed else 0


@dataclass(frozen=True)
class ShownStep:
    """The micro-batches of one optimizer step, and a line about all of them."""

    summary: str
    batches: list[ShownBatch]


@dataclass(frozen=True)
class View:
    """All that is shown.

    Attributes:
        title: the file.
        facts: names and values of what decided its ids.
        tables: the ledger and the mixture.
        lengths: tokens from and to, and how many rows have so many.
        step: None where only rows that are held out are shown.
        chosen: which rows, in words; rows: they themselves.
    """

    title: str
    facts: list[tuple[str, str]]
    tables: list[Table]
    lengths: list[tuple[str, int]]
    step: ShownStep | None
    chosen: str
    rows: list[ShownRow] = field(default_factory=list)


def visible(token: TokenText) -> str:
    """Gives a token's text with a sign for each character that would not be seen."""
    shown = "".join(_PICTURES.get(character) or _escaped(character) for character in token.text)
    return shown + (OPEN if token.is_open else "")


def _escaped(character: str) -> str:
    """Gives a character, or its number where it shows nothing."""
    if unicodedata.category(character) not in _HIDDEN:
        return character
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
