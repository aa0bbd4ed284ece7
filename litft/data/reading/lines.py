"""JSON Lines, JSON lists and lines of text, each item with the line it begins on. Knows no dataset.

A fault of the file itself (bytes that are not UTF-8, broken JSON, an item that is no object) stops at once: nothing
after it can be trusted.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litft.errors import DataError

JSON_SPACE = " \t\r\n"


def iter_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Gives the lines of a UTF-8 file with their line ends; a byte order mark is skipped, and `.gz` is unpacked.

    Raises:
        DataError: the file cannot be read, or a line is not UTF-8.
    """
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                yield number, _decode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, path, number)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file ({error}); fetch the file again.") from error
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error


def iter_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Gives the objects of a JSON Lines file; blank lines are skipped.

    Raises:
        DataError: naming file and line.
    """
    for number, line in iter_lines(path):
        if line.strip(JSON_SPACE):
            yield number, _object(_parse_line(line, path, number), path, number)


def iter_json_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Gives the objects of a file that is one JSON list, decoding one at a time.

    Raises:
        DataError: naming file and line.
    """
    text = "".join(line for _, line in iter_lines(path))
    decoder = json.JSONDecoder()
    position, line, counted = _skip_space(text, text.index("[") + 1), 1, 0
    is_first = True
    while text[position : position + 1] != "]":
        if not is_first:
            if text[position : position + 1] != ",":
                raise _broken(path, 1 + text.count("\n", 0, position), "a comma or ] is missing")
            position = _skip_space(text, position + 1)
        is_first = False
        try:
            value, end = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, RecursionError) as error:
            raise _broken(path, *_place(error, text, position)) from error
        line, counted = line + text.count("\n", counted, position), position
        yield line, _object(value, path, line)
        position = _skip_space(text, end)
    rest = _skip_space(text, position + 1)
    if rest != len(text):
        raise _broken(path, 1 + text.count("\n", 0, rest), "something follows the list")


def read_json_object(path: Path) -> tuple[str, dict[str, Any]]:
    """Gives the text of a file that is one JSON object, and the object.

    Raises:
        DataError: naming file and line.
    """
    text = "".join(line for _, line in iter_lines(path))
    try:
        return text, _object(json.loads(text), path, 1)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _broken(path, *_place(error, text, 0)) from error


def is_json_list(path: Path) -> bool:
    """Says whether a file begins a JSON list, and is not JSON Lines.

    Raises:
        DataError: the file cannot be read, or is not UTF-8 as far as looked.
    """
    first = next((line for _, line in iter_lines(path) if line.strip(JSON_SPACE)), "")
    return first.lstrip(JSON_SPACE).startswith("[")


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    """Opens a file to read its bytes, unpacked."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")


def _decode(line: bytes, path: Path, number: int) -> str:
    """Reads one line's bytes as UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number} is not UTF-8 (byte {error.start + 1} of the line is 0x{line[error.start]:02x}); "
            "save the file as UTF-8."
        ) from error


def _parse_line(line: str, path: Path, number: int) -> object:
    """Parses one line of JSON Lines."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise _broken(path, number, f"{error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise _broken(path, number, "it is nested too deeply") from error


def _object(value: object, path: Path, number: int) -> dict[str, Any]:
    """Makes sure that an item is an object."""
    if not isinstance(value, dict):
        shown = json.dumps(value, ensure_ascii=True)[:40]
        raise DataError(f"{path}, line {number} holds {shown}; each row must be a JSON object.")
    return value


def _place(error: json.JSONDecodeError | RecursionError, text: str, position: int) -> tuple[int, str]:
    """Gives line and reason of a fault inside a list."""
    if isinstance(error, json.JSONDecodeError):
        return error.lineno, f"{error.msg} at column {error.colno}"
    return 1 + text.count("\n", 0, position), "it is nested too deeply"


def _broken(path: Path, number: int, reason: str) -> DataError:
    """Builds the error of a file that is not JSON."""
    return DataError(f"{path}, line {number} is not valid JSON: {reason}; mend the line or fetch the file again.")


def _skip_space(text: str, position: int) -> int:
    """Gives the position of the next character that is not blank."""
    while text[position : position + 1] in JSON_SPACE and position < len(text):
        position += 1
    return position
