"""One JSON value out of a text, more strictly than the library: a key that stands twice in an object is a fault.

Knows no files. NaN and Infinity are read, as many programs write them; a field that holds one is judged by its reader.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from litft.data.reading.faults import shown

JSON_SPACE = " \t\r\n"

# Longest beginning of a value that can be cut anywhere: `-Infinity`, and the two halves of an escaped character.
_LONGEST_CUT = 12


class NotJsonError(Exception):
    """Why a text is no JSON, to be told with its file and line: a reason, not a sentence of its own.

    Attributes:
        reason: what is wrong.
        position: of the character where that was found, from 0.
        is_cut: whether more text might mend it.
    """

    def __init__(self, reason: str, position: int, is_cut: bool = False) -> None:
        """Takes what the class says."""
        super().__init__(reason)
        self.reason, self.position, self.is_cut = reason, position, is_cut


class _KeyTwiceError(ValueError):
    """An object has a key twice."""


def parse_json(text: str, begin: int = 0) -> tuple[Any, int]:
    """Gives the value that begins at a character, and where it ends.

    Raises:
        NotJsonError: there is none.
    """
    try:
        return _DECODER.raw_decode(text, begin)
    except json.JSONDecodeError as error:
        is_cut = error.msg.startswith("Unterminated string") or error.pos + _LONGEST_CUT >= len(text)
        reason = error.msg.removesuffix(" at").removesuffix(" starting")
        raise NotJsonError(reason, error.pos, is_cut) from error
    except RecursionError as error:
        raise NotJsonError("it is nested too deeply", begin) from error
    except _KeyTwiceError as error:
        raise NotJsonError(str(error), begin) from error
    except ValueError as error:  # of the library's numbers: more digits than it reads
        raise NotJsonError("it holds a number of thousands of digits", begin) from error


def parse_whole_json(text: str) -> Any:
    """Gives the one value that a text is, space around it aside.

    Raises:
        NotJsonError: it is none, or something follows.
    """
    value, end = parse_json(text, len(text) - len(text.lstrip(JSON_SPACE)))
    rest = text[end:].lstrip(JSON_SPACE)
    if rest:
        raise NotJsonError("something follows the value", len(text) - len(rest))
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object; of two values under one key the library would take the last, and nobody would know."""
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _KeyTwiceError(f"the key {shown(twice)} stands twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)
