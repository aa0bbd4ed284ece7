"""A prepared row as a filter sees it, and what a filter is. Knows no filter."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from litft.config.filters import Side
from litft.data.store import PreparedData
from litft.data.texts import RowText, TextReader, saved_style
from litft.text.encoding import stop_ids
from litft.text.tokenizer import Tokenizer


class RowReader:
    """Gives the rows of one prepared file."""

    def __init__(self, data: PreparedData, tokenizer: Tokenizer | None) -> None:
        """Begins.

        Args:
            data: the file.
            tokenizer: it was written with; None where no text is read.

        Raises:
            DataError: the style that is saved with the rows cannot be used.
        """
        self.data = data
        self._texts = None if tokenizer is None else TextReader(data, tokenizer)
        self._ends = frozenset() if tokenizer is None else frozenset(stop_ids(tokenizer, saved_style(data)))

    def row(self, number: int) -> Row:
        """Gives one row by its number, from 0."""
        return Row(number, self)

    def text(self, number: int) -> RowText:
        """Gives what a row says; only where there is a tokenizer."""
        assert self._texts is not None
        return self._texts.read(number)

    def has_end(self, number: int) -> bool:
        """Says whether the last token with loss is one at which generation stops; only where there is a tokenizer."""
        ids, mask = self.data.row(number)
        learned = ids[mask]
        return len(learned) > 0 and int(learned[-1]) in self._ends


@dataclass(frozen=True)
class Row:
    """One row; what it says is read when it is first asked for.

    Attributes:
        number: in its file, from 0.
        reader: of that file.
    """

    number: int
    reader: RowReader

    @property
    def tokens(self) -> int:
        """How many tokens it has."""
        return int(self.reader.data.lengths[self.number])

    @property
    def target_tokens(self) -> int:
        """How many of them carry loss."""
        return int(self.reader.data.target_counts[self.number])

    @property
    def score(self) -> float | None:
        """Its score; None where nobody gave one."""
        scores = self.reader.data.score
        score = math.nan if scores is None else float(scores[self.number])
        return None if math.isnan(score) else score

    @cached_property
    def text(self) -> RowText:
        """What it says."""
        return self.reader.text(self.number)

    @property
    def has_end(self) -> bool:
        """Whether its last answer was not cut."""
        return self.reader.has_end(self.number)

    def side(self, name: Side) -> str:
        """Gives what is asked, what is answered, or both."""
        return {"question": self.text.asked, "answer": self.text.answered, "whole": self.text.whole}[name]

    def exchanges(self) -> Iterator[tuple[str, str]]:
        """Gives each answer with what is said right before it; the empty text where nothing is."""
        before = ""
        for turn in self.text.turns:
            if turn.is_answer:
                yield before, turn.text
            before = turn.text


@dataclass(frozen=True)
class Filter:
    """One reason to leave rows out.

    Attributes:
        name: under which its rows are counted.
        judge: gives what speaks against a row, None where nothing does.
        reads_text: whether it needs the tokenizer.
        for_held_out: whether it judges held-out rows too.
        notes: what else is worth telling, and of how many rows; `judge` counts here.
    """

    name: str
    judge: Callable[[Row], str | None]
    reads_text: bool = True
    for_held_out: bool = False
    notes: Counter[str] = field(default_factory=Counter)
