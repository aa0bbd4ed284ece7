"""What was left out of a mix and why: counted for the manifest, row by row for `removed.jsonl`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from litft.data.mixing.parts import Part, Rows
from litft.data.texts import TextReader
from litft.text.tokenizer import Tokenizer

REMOVED_FILE = "removed.jsonl"

# Characters of a question that are enough to know it again.
SHOWN_QUESTION = 200


class Removal(NamedTuple):
    """One row that was left out.

    Attributes:
        part: its folder.
        file: in that folder.
        number: in that file, from 0.
        reason: the filter that took it.
        detail: what that filter found.
    """

    part: Part
    file: str
    number: int
    reason: str
    detail: str


class Removed:
    """All rows that were left out, in the order in which that was decided.

    Attributes:
        rows: they themselves.
    """

    def __init__(self, reasons: Mapping[str, Sequence[str]]) -> None:
        """Begins with none.

        Args:
            reasons: for each file all that there may be, in their order.
        """
        self.rows: list[Removal] = []
        self._reasons = reasons

    def take(self, rows: Rows, reason: str, details: dict[int, str]) -> Rows:
        """Leaves rows out.

        Args:
            rows: those that are there.
            reason: why some leave.
            details: which, by their numbers, and what speaks against each.

        Returns:
            The others, in their order.
        """
        self.rows += [Removal(rows.part, rows.file, number, reason, detail) for number, detail in details.items()]
        return rows.only([number for number in rows.numbers.tolist() if number not in details])

    def counts(self, part: Part, file: str) -> dict[str, int]:
        """Gives how many rows of a file each reason took, none included, in the order of the reasons."""
        counts = Counter(row.reason for row in self.rows if row.part is part and row.file == file)
        return {reason: counts[reason] for reason in self._reasons[file]}

    def text(self, tokenizer: Tokenizer | None) -> str:
        """Gives each as a line of JSON.

        Args:
            tokenizer: of the rows; None where it is not at hand, and questions are null.
        """
        return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines(tokenizer))

    def _lines(self, tokenizer: Tokenizer | None) -> Iterator[dict[str, object]]:
        """Gives what is said of each row."""
        readers: dict[tuple[str, str], TextReader] = {}
        for row in self.rows:
            data = row.part.files[row.file]
            key = (row.part.name, row.file)
            if tokenizer is not None and key not in readers:
                readers[key] = TextReader(data, tokenizer)
            question = readers[key].read(row.number).asked if tokenizer is not None else None
            yield {
                "data_dir": row.part.name,
                "file": row.file,
                "row": row.number,
                "source": row.part.sources[int(data.source[row.number])],
                "reason": row.reason,
                "detail": row.detail,
                "question": None if question is None else " ".join(question.split())[:SHOWN_QUESTION],
            }
