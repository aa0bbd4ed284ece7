"""What a dataset is to litft: where it comes from, and rows of conversations. Knows no tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from litft.text.prompts import Conversation, Turn


@dataclass(frozen=True)
class Row:
    """One conversation and the line (from 1) of its file where it begins."""

    line: int
    conversation: Conversation


@dataclass(frozen=True)
class Rejected:
    """One row that cannot be used, the line (from 1) where it begins, and why."""

    line: int
    reason: str


Rows = Iterator[Row | Rejected]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset as it is published.

    Attributes:
        name: as `litft prepare` calls it.
        repo_id: dataset repository on the hub; None where the user brings the file.
        file: the file's name there.
        licence: of the data.
        origin: who wrote the answers.
        rows: how many the published file has; None where it is the user's own.
        schema: one sentence on a row's fields.
        read: gives the rows of a local file (its Path), one by one; CSV takes `columns` too.
    """

    name: str
    repo_id: str | None
    file: str | None
    licence: str
    origin: Literal["human", "model", "unknown"]
    rows: int | None
    schema: str
    read: Callable[..., Rows]


def read_fields(
    line: int, values: Mapping[str, object], instruction: str, response: str, context: str
) -> Row | Rejected:
    """Makes a one-turn row out of named fields.

    Args:
        line: where the row begins.
        values: the row's fields.
        instruction, response: names of the fields that must hold text.
        context: name of the field that may be absent, null or empty.
    """
    for name in (instruction, response):
        if name not in values:
            found = ", ".join(f'"{key}"' for key in values) or "nothing"
            return Rejected(line, f'no "{name}" (found {found})')
    texts = []
    for name in (instruction, context, response):
        value = values.get(name)
        text = "" if value is None and name == context else value
        reason = text_fault(text, f'"{name}"', may_be_empty=name == context)
        if reason is not None or not isinstance(text, str):
            return Rejected(line, str(reason))
        texts.append(text)
    return Row(line, Conversation((Turn(texts[0], texts[1], texts[2]),)))


def text_fault(value: object, name: str, may_be_empty: bool = False) -> str | None:
    """Says why a value is no text to learn from; None when it is.

    Args:
        value: what the row holds.
        name: how to call it in the reason.
        may_be_empty: the empty text is fine too.
    """
    if not isinstance(value, str):
        return f"{name} is {'null' if value is None else type(value).__name__}, not text"
    if not may_be_empty and not value.strip():
        return f"{name} is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"{name} holds half a character (a lone surrogate)"
    return None
