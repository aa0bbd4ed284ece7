"""What is wrong with a value that a row holds, in words that fit into a line whatever it is. Knows no dataset."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from itertools import islice

# Of a value that is shown: characters of a text, digits of a number, names of fields.
SHOWN_CHARACTERS, SHOWN_DIGITS, SHOWN_FIELDS = 40, 15, 8

# A text of spaces, and of characters without a width, which some chats hold where an answer was interrupted.
BLANK = re.compile(r"[\s\u200b\u200c\u200d\u2060\ufeff]*")

# Objects within objects that a row may hold where they go on to a template, which calls itself for each.
DEEPEST = 64


def missing_field(name: str, values: Mapping[str, object]) -> str:
    """Says that a row has no such field, and which it has."""
    return f'no "{name}" (found {listed(values)})'


def absent_field(name: str, values: Mapping[str, object], expected: str) -> str:
    """Says that a row has no such field, or what it holds in place of what is expected."""
    return f'"{name}" is {shown_kind(values[name])}, not {expected}' if name in values else missing_field(name, values)


def text_fault(value: object, name: str, may_be_empty: bool = False) -> str | None:
    """Says why a value is no text to learn from; None when it is.

    Args:
        value: what the row holds.
        name: how to call it in the reason.
        may_be_empty: the empty text is fine too.
    """
    if not isinstance(value, str):
        return f"{name} is {kind_of(value)}, not text"
    if not may_be_empty and BLANK.fullmatch(value):
        return f"{name} is empty"
    return characters_fault(value, name)


def characters_fault(text: str, name: str) -> str | None:
    """Says which character of a text no tokenizer can read; None where there is none."""
    if "\0" in text:
        return f"{name} holds a NUL character"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return f"{name} holds half a character (a lone surrogate)"
    return None


def nested_fault(value: object, name: str) -> str | None:
    """Says why a value that a template is to write cannot be written: too deep, or a text that no tokenizer reads.

    Args:
        value: of lists, objects and plain values.
        name: how to call it in the reason.
    """
    waiting = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        if depth > DEEPEST:
            return f"{name} is nested more than {DEEPEST} deep"
        if isinstance(part, str) and (fault := characters_fault(part, name)):
            return fault
        if isinstance(part, dict):
            waiting += [(inner, depth + 1) for pair in part.items() for inner in pair]
        elif isinstance(part, list | tuple):
            waiting += [(inner, depth + 1) for inner in part]
    return None


def kind_of(value: object) -> str:
    """Names a value's type, as a person with a JSON file knows it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity"
    return "null" if value is None else type(value).__name__


def shown_kind(value: object) -> str:
    """Names a value's type; of a list without items, that it is empty."""
    return "an empty list" if isinstance(value, list) and not value else kind_of(value)


def shown(value: object) -> str:
    """Gives a value to be read: short, on one line, and of characters that can be written."""
    if isinstance(value, str):
        return shown_text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= 10**SHOWN_DIGITS:
        return f"a number of {value.bit_length()} bits"
    return str(value) if isinstance(value, int | float) else kind_of(value)


def shown_text(text: str) -> str:
    """Gives the beginning of a text in quotes, as JSON has it, characters that are not seen written out."""
    begin = text[:SHOWN_CHARACTERS] + "..." * (len(text) > SHOWN_CHARACTERS)
    return seen(json.dumps(begin, ensure_ascii=False))


def shown_source(text: str) -> str:
    """Gives the beginning of what a file holds as it stands there, characters that are not seen written out."""
    return seen(text[:SHOWN_CHARACTERS]) + "..." * (len(text) > SHOWN_CHARACTERS)


def seen(text: str) -> str:
    """Writes characters that are not seen as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def listed(names: Mapping[str, object] | tuple[str, ...] | list[str]) -> str:
    """Gives names in quotes, the first of many."""
    some = ", ".join(shown(name) for name in islice(names, SHOWN_FIELDS))
    more = f" and {len(names) - SHOWN_FIELDS} more" if len(names) > SHOWN_FIELDS else ""
    return some + more if some else "nothing"
