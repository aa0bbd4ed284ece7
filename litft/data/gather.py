"""Reading all files of a dataset into memory: what each row says, what was rejected, and what the files were.

Knows no tokenizer and no formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from litft.config.prepare import Preparations
from litft.data.ledger import Ledger
from litft.data.reading.hub import file_labels
from litft.data.reading.rows import Found, Origin, Rejected, Row, Rows, Source, TokenRow
from litft.data.recognise import nearest_command
from litft.errors import DataError

SHOWN_REASONS = 3


@dataclass
class Gathered:
    """What the files of a dataset held.

    Attributes:
        origin: who wrote the answers.
        contents: each usable row, to be encoded or encoded already.
        ledger: counts of the rows so far.
        found: a sentence for each form that the files turned out to have.
    """

    origin: Origin
    contents: list[Row | TokenRow] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    found: list[str] = field(default_factory=list)


def gather(source: Source, paths: list[Path], config: Preparations) -> Gathered:
    """Reads all files, and refuses them when too many rows cannot be used.

    Args:
        source: the dataset.
        paths: its files.
        config: what the user asked of them.

    Raises:
        DataError: a file cannot be read, holds no rows or too many that cannot be used, or answers of another origin
            than asked for.
    """
    gathered = Gathered(source.origin)
    for row in _iter_rows(source, paths, config):
        if isinstance(row, Found):
            _take_form(row, gathered, config)
        else:
            _take_row(row, gathered)
    if not gathered.ledger.rows_read:
        raise DataError(f"{_named(source, paths, config)} has no rows; {source.name} is {source.schema}.")
    refuse_rejected(source, paths, config, gathered.ledger)
    return gathered


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


def _iter_rows(source: Source, paths: list[Path], config: Preparations) -> Iterator[Row | TokenRow | Rejected | Found]:
    """Gives the rows of all files; one that may still be refused with its file."""
    options = config.options()
    for path, label in zip(paths, file_labels(paths), strict=True):
        rows: Rows = source.read(path, **options)
        for row in rows:
            if isinstance(row, TokenRow | Found):
                yield replace(row, file=str(path))
            elif len(paths) > 1:
                yield replace(row, file=label)
            else:
                yield row


def _take_form(form: Found, gathered: Gathered, config: Preparations) -> None:
    """Notes what a file turned out to be; of a set of several files, one by a model makes all of it so."""
    if form.sentence not in gathered.found:
        gathered.found.append(form.sentence)
    if form.origin is not None:
        refuse_origin(str(form.file), form.origin, config)
        gathered.origin = form.origin if gathered.origin != "model" else "model"


def _take_row(row: Row | TokenRow | Rejected, gathered: Gathered) -> None:
    """Counts a row, and keeps it where it can be used."""
    ledger = gathered.ledger
    ledger.rows_read += 1
    if isinstance(row, Rejected):
        ledger.rejected.append(row)
        return
    gathered.contents.append(row)
    ledger.notes.update(row.notes)


def _named(source: Source, paths: list[Path], config: Preparations) -> str:
    """Gives what was read, as a user knows it: the one file, or the folder, or the dataset on the hub."""
    if len(paths) == 1:
        return str(paths[0])
    return str(config.data_file or source.repo_id)


def refuse_rejected(source: Source, paths: list[Path], config: Preparations, ledger: Ledger) -> None:
    """Refuses files of which more rows cannot be used than the user allows; nothing to learn from is too many.

    Args:
        source, paths, config: as `gather` takes them.
        ledger: knows what was rejected so far.

    Raises:
        DataError: with the first reasons.
    """
    rejected, allowed = ledger.rejected, config.max_rejected_fraction
    is_all = len(rejected) == ledger.rows_read
    faults = rejected if is_all else [row for row in rejected if row.is_fault]
    if not is_all and len(faults) <= allowed * ledger.rows_read:
        return
    shown = "; ".join(f"{row.place}: {row.reason}" for row in faults[:SHOWN_REASONS])
    more = "; and so on" if len(faults) > SHOWN_REASONS else ""
    advice = (
        f"{source.name} is {source.schema}"
        if is_all
        else f"max_rejected_fraction is {allowed}; mend the rows or raise it"
    )
    where, hint = _named(source, paths, config), nearest_command(source.name, paths[0]) if is_all else ""
    raise DataError(
        f"{len(faults)} of {ledger.rows_read} rows of {where} cannot be used ({shown}{more}); {advice}.{hint}"
    )
