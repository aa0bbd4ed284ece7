"""Rows that are token ids already, prepared by another program with the model's own tokenizer.

Read are Lit-GPT's train.pt (a list of `{"input_ids", "labels"}`), JSON Lines, JSON lists and parquet of the same
fields, and the arrow files of a folder that `datasets` saved.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litft.data.reading.kinds import text_form
from litft.data.reading.parquet import require_pyarrow, unreadable, values_of
from litft.data.reading.places import RowPlace, shown_place
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Found, Rejected, Rows, Source
from litft.data.reading.tokens import IGNORED, Labelled, Place, read_row, token_row
from litft.errors import DataError

WORDS = {"same": "the token at its own place", "next": "the token after it"}


@dataclass
class Evidence:
    """What the rows of a file say about its labels.

    Attributes:
        only: for each convention, the first line that fits it and not the other.
        both: the first line with labels that fits both.
        labelled: the first line with labels.
        ignored: the first line of each label that is no token.
        rows: how many rows could be read.
    """

    only: dict[Place, int] = field(default_factory=dict)
    both: int | None = None
    labelled: int | None = None
    ignored: dict[int, int] = field(default_factory=dict)
    rows: int = 0

    def take(self, row: Labelled) -> None:
        """Adds one row."""
        self.rows += 1
        if row.labels is None:
            return
        self.labelled = self.labelled or row.line
        for number in IGNORED:
            if number not in self.ignored and bool((row.labels == number).any()):
                self.ignored[number] = row.line
        if row.fits_same != row.fits_next:
            self.only.setdefault("same" if row.fits_same else "next", row.line)
        elif row.fits_same:
            self.both = self.both or row.line


def read_tokenized(path: Path, labels: str = "auto") -> Rows:
    """Gives the rows of a file.

    Args:
        path: `.pt`, `.arrow`, `.parquet`, JSON Lines or a JSON list.
        labels: which token a label names: `same` (at its own place), `next`, or `auto` to let the rows say it.

    Raises:
        DataError: the file cannot be read, or does not say which token a label names.
    """
    read = _reader(path)
    evidence = Evidence()
    for row in _labelled(read()):
        if isinstance(row, Labelled):
            evidence.take(row)
    place = _place(path, evidence, labels)
    if evidence.rows:
        yield Found(_sentence(evidence, place))
    for row in _labelled(read()):
        if isinstance(row, Rejected):
            yield row
        elif row.labels is None and evidence.labelled is not None:
            yield Rejected(row.line, 'no "labels", which other rows have')
        else:
            yield token_row(row, place)


def _labelled(records: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[Labelled | Rejected]:
    """Reads each row's numbers."""
    for line, values in records:
        yield read_row(line, values)


def _place(path: Path, evidence: Evidence, asked: str) -> Place:
    """Decides which token a label names.

    Raises:
        DataError: the rows contradict each other, or leave it open.
    """
    if len(evidence.ignored) > 1:
        lines = " and ".join(f"{number} ({shown_place(line)})" for number, line in evidence.ignored.items())
        raise DataError(f"The labels of {path} hold both {lines}; one of them must mean that nothing is learned.")
    if asked != "auto":
        return "same" if asked == "same" else "next"
    if len(evidence.only) > 1:
        told = " and ".join(f"{shown_place(line)} {WORDS[place]}" for place, line in evidence.only.items())
        raise DataError(f"The labels of {path} contradict each other: each names in {told}; say which with --labels.")
    if not evidence.only and evidence.both is not None:
        raise DataError(
            f"{path} does not say which token a label names: from {shown_place(evidence.both)} on they fit the "
            "token there and the next alike; add --labels same or --labels next."
        )
    return next(iter(evidence.only), "same")


def _sentence(evidence: Evidence, place: Place) -> str:
    """Says what the labels were taken for."""
    if evidence.labelled is None:
        return "The rows are token ids without labels: every token is learned but the first."
    number = next(iter(evidence.ignored), None)
    ignored = "none is left out" if number is None else f"{number} is left out, as in {IGNORED[number]}"
    return f"The rows are token ids; each label names {WORDS[place]} ({place}), and {ignored}."


def _reader(path: Path) -> Callable[[], Iterable[tuple[int, dict[str, Any]]]]:
    """Gives what reads a file from its beginning, as often as it is called."""
    if path.suffix in (".pt", ".pth"):
        rows = [(RowPlace(number), values) for number, values in enumerate(_load_list(path), start=1)]
        return lambda: rows
    if path.suffix == ".arrow":
        return lambda: _iter_arrow_rows(path)
    return lambda: iter_records(path)


def _load_list(path: Path) -> list[dict[str, Any]]:
    """Opens Lit-GPT's list of rows; no code in the file is executed."""
    from litft.data.store import FORMAT, load_pt  # torch: 1 s that the list of datasets need not pay

    try:
        values = load_pt(path)
    except DataError as error:
        hint = text_form(path, "tokenized")
        advice = "make the file again with the program that wrote it"
        raise DataError(
            f"{path} is no whole file of torch.save with plain tensors{'.' + hint if hint else f'; {advice}.'}"
        ) from error
    if isinstance(values, dict) and values.get("format") == FORMAT:
        raise DataError(f"{path} is prepared already; name its folder as --data_dir of `litft finetune`.")
    if not isinstance(values, list) or not all(isinstance(row, dict) for row in values):
        raise DataError(f'{path} is no list of {{"input_ids", "labels"}}, as Lit-GPT writes it.')
    return values


def _iter_arrow_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Gives the rows of one arrow file with their numbers, from 1; only a batch at a time stands in memory.

    Source: `datasets` `Dataset.save_to_disk`, which writes arrow's streaming format.
    """
    require_pyarrow(str(path))
    arrow = importlib.import_module("pyarrow")
    number = 0
    try:
        # Not mapped, and looked at before: what lies outside of the file would end the process, not only the reading.
        with arrow.OSFile(str(path)) as file, arrow.ipc.open_stream(file) as batches:
            for batch in batches:
                batch.validate(full=True)
                for values in values_of(path, batch, number):
                    number += 1
                    yield RowPlace(number), values
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise unreadable(path, "arrow", number, error, "save the folder again with `datasets`") from error


SOURCE = Source(
    name="tokenized",
    repo_id=None,
    files=(),
    licence="your own",
    origin="unknown",
    rows=None,
    schema=(
        '{"input_ids", "labels"} in a .pt list, JSON Lines, a JSON list, parquet or a folder of `datasets`; labels may '
        "be absent, or shifted"
    ),
    read=read_tokenized,
    folder_files=(
        "data-*.arrow",
        "train/data-*.arrow",
        "*.arrow",
        "*.parquet",
        "train.pt",
        "train.jsonl",
        "*.jsonl",
        "*.json",
    ),
)
