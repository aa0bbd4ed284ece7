"""Reading the files of a dataset row by row: what each row says, what was rejected, and what the files were.

Knows no tokenizer and no formats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from litft.config.prepare import Preparations
from litft.data.encode import AnyRow
from litft.data.ledger import Ledger
from litft.data.reading.hub import file_labels
from litft.data.reading.rows import Found, Origin, Rejected, Rows, Source, TokenRow
from litft.data.reading.scores import Scores, read_scores
from litft.data.recognise import nearest_command
from litft.errors import DataError

SHOWN_REASONS = 3

NO_SCORE = "the score field holds no number"


@dataclass
class Gathering:
    """The files of a dataset, and what was met in them so far. No row is kept.

    Attributes:
        source, paths, config: the dataset, its files, and what the user asked of them.
        origin: who wrote the answers.
        ledger: counts of the rows.
        found: a sentence for each form that the files turned out to have.
    """

    source: Source
    paths: list[Path]
    config: Preparations
    origin: Origin = field(init=False)
    ledger: Ledger = field(default_factory=Ledger)
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begins with what is known of the dataset."""
        self.origin = self.source.origin

    def rows(self) -> Iterator[AnyRow]:
        """Gives the rows of all files, or of a shard of them, one by one, those that cannot be used too; counts them.

        Raises:
            DataError: a file cannot be read, or answers are of another origin than asked for.
        """
        part, parts = self.config.part or (1, 1)
        number = 0
        for row in self._rows_of_files():
            if isinstance(row, Found):
                self._take_form(row)
                continue
            number += 1
            if number % parts != part % parts:
                continue
            self.ledger.rows_read += 1
            if not isinstance(row, Rejected):
                self.ledger.notes.update(row.notes)
            yield row

    def _rows_of_files(self) -> Rows:
        """Gives the rows; one that may still be refused with its file."""
        options, field = self.config.options(), self.config.score_field
        for path, label in zip(self.paths, file_labels(self.paths), strict=True):
            rows: Rows = self.source.read(path, **options)
            for row in rows if field is None else _scored(rows, read_scores(path, field)):
                if isinstance(row, TokenRow | Found):
                    yield replace(row, file=str(path))
                elif len(self.paths) > 1:
                    yield replace(row, file=label)
                else:
                    yield row

    def _take_form(self, form: Found) -> None:
        """Notes what a file turned out to be; of a set of several files, one by a model makes all of it so."""
        if form.sentence not in self.found:
            self.found.append(form.sentence)
        if form.origin is not None:
            refuse_origin(str(form.file), form.origin, self.config)
            self.origin = form.origin if self.origin != "model" else "model"

    def refuse_rejected(self) -> None:
        """Refuses files of which more rows cannot be used than the user allows; nothing to learn from is too many.

        Raises:
            DataError: with the first reasons; or there are no rows at all.
        """
        read, rejected, allowed = self.ledger.rows_read, self.ledger.rejected, self.config.max_rejected_fraction
        if not read:
            shard = f" for shard {self.config.shard}" if self.config.part else ""
            raise DataError(f"{self._named()} has no rows{shard}; {self.source.name} is {self.source.schema}.")
        is_all = len(rejected) == read
        count, first = (read, rejected.first) if is_all else (rejected.faults, rejected.first_faults)
        if not is_all and count <= allowed * read:
            return
        shown = "; ".join(f"{row.place}: {row.reason}" for row in first[:SHOWN_REASONS])
        more = "; and so on" if count > SHOWN_REASONS else ""
        advice = (
            f"{self.source.name} is {self.source.schema}"
            if is_all
            else f"max_rejected_fraction is {allowed:g}; mend them, or leave them out with --max_rejected_fraction "
            f"{_enough(count, read)}"
        )
        hint = nearest_command(self.source.name, self.paths[0]) if is_all else ""
        raise DataError(f"{count} of {read} rows of {self._named()} cannot be used ({shown}{more}); {advice}.{hint}")

    def _named(self) -> str:
        """Gives what is read, as a user knows it: the one file, or the folder, or the dataset on the hub."""
        if len(self.paths) == 1:
            return str(self.paths[0])
        return str(self.config.data_file or self.source.repo_id)


def _enough(count: int, read: int) -> float:
    """Gives a share, in hundredths, that allows so many rows of those read."""
    return math.ceil(100 * count / read) / 100


def _scored(rows: Rows, scores: Scores) -> Rows:
    """Gives rows with their scores."""
    for row in rows:
        if isinstance(row, Rejected | Found):
            yield row
        else:
            score = scores.of(row.line)
            yield replace(row, score=score, notes=row.notes if score is not None else (*row.notes, NO_SCORE))


def refuse_origin(name: str, origin: Origin, config: Preparations) -> None:
    """Refuses answers that the user does not want to learn from.

    Args:
        name: what the answers stand in.
        origin: who wrote them.
        config: what the user asked for.

    Raises:
        DataError: people's answers were asked for, and these are not, or nobody says so.
    """
    if config.origin == "any" or origin == "human":
        return
    who = "a model wrote the answers" if origin == "model" else "nothing says who wrote the answers"
    advice = "" if origin == "model" else "; leave --origin away if you know that people did"
    raise DataError(f"origin is human, but {who} of {name}{advice}. `litft prepare --list` shows who wrote which.")
