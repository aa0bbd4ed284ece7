"""What a dataset is to litft: where it comes from, and rows of conversations. Knows no tokenizer."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.data.reading.faults import missing_field, text_fault
from litft.data.reading.places import shown_place
from litft.text.conversation import Conversation, completion

Origin = Literal["human", "model", "unknown"]


@dataclass(frozen=True)
class Row:
    """One conversation and where it begins.

    Attributes:
        line: of its file, from 1; a `RowPlace` where that does not tell it from other rows.
        conversation: what is learnt.
        notes: what was left out of it, each to be counted; empty where all of it is there.
        file: its file's name, where a dataset is several; `prepare` fills it in, and what follows.
        score: how good or how hard it is, where its file says so.
        is_copy: it was made of the row before it that is no copy.
    """

    line: int
    conversation: Conversation
    notes: tuple[str, ...] = ()
    file: str | None = None
    score: float | None = None
    is_copy: bool = False


@dataclass(frozen=True)
class Rejected:
    """One row that is not used.

    Attributes:
        line: where it begins, as in `Row`.
        reason: why.
        is_fault: whether it counts against `max_rejected_fraction`; not so where the data itself marks it as none to
            learn from (a deleted message), or the user left it out (another language).
        file: its file's name, where a dataset is several; `prepare` fills it in.
    """

    line: int
    reason: str
    is_fault: bool = True
    file: str | None = None

    @property
    def place(self) -> str:
        """Where it is, to be read: `line 3`, or `part.jsonl, line 3`."""
        return shown_place(self.line) if self.file is None else f"{self.file}, {shown_place(self.line)}"


@dataclass(frozen=True)
class TokenRow:
    """One row that is token ids already.

    Attributes:
        line: as in `Row`.
        input_ids: int32 (T,).
        mask: (T,), 1 where the token itself is to be predicted.
        notes: as in `Row`.
        file: path of its file; `prepare` fills it in.
        score: as in `Row`.
    """

    line: int
    input_ids: array[int]
    mask: bytes
    notes: tuple[str, ...] = ()
    file: str | None = None
    score: float | None = None


@dataclass(frozen=True)
class Found:
    """What a file turned out to be, where a dataset takes several forms; comes before its rows and is none.

    Attributes:
        sentence: for the user and the manifest; names no file.
        origin: who wrote the answers of this form; None where the dataset's own origin holds.
        file: path of the file; `prepare` fills it in.
    """

    sentence: str
    origin: Origin | None = None
    file: str | None = None


Rows = Iterator[Row | TokenRow | Rejected | Found]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset as it is published.

    Attributes:
        name: as `litft prepare` calls it.
        repo_id: dataset repository on the hub; None where the user brings the file.
        files: the files' names there, in the order to read them; `*` stands for any part of a name.
        licence: of the data.
        origin: who wrote the answers.
        rows: how many the published file has; None where it is the user's own.
        schema: one sentence on a row's fields.
        read: gives the rows of one local file (its Path), one by one. What only this dataset is told (the fields of
            its own config) comes as keywords.
        folder_files: names of the files to read of a folder that is given as data_file, `*` as above; of several
            the first that any file has. Empty where a folder is no dataset.
        unused: gives a sentence on what `read` leaves aside of a file, or None; takes what `read` takes, and as `used`
            the names of fields that are read beside the rows.
        choose: gives, of the files found, those to read; takes their paths, and the keywords of `read`.
        has_fields: whether each row is an object or a line of cells, with names, so that one may be its score.
    """

    name: str
    repo_id: str | None
    files: tuple[str, ...]
    licence: str
    origin: Origin
    rows: int | None
    schema: str
    read: Callable[..., Rows]
    folder_files: tuple[str, ...] = ()
    unused: Callable[..., str | None] | None = None
    choose: Callable[..., list[Path]] | None = None
    has_fields: bool = True


def read_fields(
    line: int, values: Mapping[str, object], instruction: str, response: str, context: str | None = None
) -> Row | Rejected:
    """Makes a one-turn row out of named fields.

    Args:
        line: where the row begins.
        values: the row's fields.
        instruction, response: names of the fields that must hold text.
        context: name of the field that may be absent, null or empty; None where there is none.
    """
    for name in (instruction, response):
        if name not in values:
            return Rejected(line, missing_field(name, values))
    texts = []
    for field in (instruction, context, response):
        value = None if field is None else values.get(field)
        text = "" if value is None and field == context else value
        reason = text_fault(text, f'"{field}"', may_be_empty=field == context)
        if reason is not None or not isinstance(text, str):
            return Rejected(line, str(reason))
        texts.append(text)
    return Row(line, completion(texts[0], texts[2], texts[1]))
