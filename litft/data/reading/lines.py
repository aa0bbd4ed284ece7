"""Lines of text and JSON Lines, each with its number. Knows no dataset.

A fault of the file itself (bytes that are not UTF-8, broken JSON, an item that is no object, a line without end) stops
at once: nothing after it can be trusted. No file, however spoilt, is read into memory as a whole.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litft.data.reading.faults import shown_source
from litft.data.reading.json_text import JSON_SPACE, NotJsonError, parse_whole_json
from litft.data.reading.kinds import binary_kind, is_packed, other_form
from litft.data.reading.places import shown_place
from litft.errors import DataError

# Longest line, item of a list or document: more than a model reads, and little enough for memory, of which a tokenizer
# takes 200 times the bytes of one text.
LONGEST_BYTES = 2**23

PIECE_BYTES = 2**20

_BOM = b"\xef\xbb\xbf"


def iter_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Gives the lines of a UTF-8 file with their line ends; a byte order mark is skipped, and `.gz` is unpacked.

    Raises:
        DataError: the file cannot be read, or a line is not UTF-8 or has no end in sight.
    """
    with _open(path) as file:
        number = 0
        while line := file.readline(LONGEST_BYTES + 1):
            number += 1
            if len(line) > LONGEST_BYTES:
                raise too_long(path, number, "it")
            yield number, _decode(line.removeprefix(_BOM) if number == 1 else line, path, number)


def iter_text(path: Path) -> Iterator[str]:
    """Gives a UTF-8 file piece by piece, as `iter_lines` reads it, wherever its lines end.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line, begun = 1, 0  # the line that goes on from one piece to the next, and its bytes so far
    with _open(path) as file:
        while True:
            piece = file.read(PIECE_BYTES)
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                before = error.object.rfind(b"\n", 0, error.start)
                byte = error.start - before if before >= 0 else begun + error.start - len(error.object) + len(piece) + 1
                raise _not_utf8(path, line, byte, error.object[error.start]) from error
            if "\0" in text:
                raise _has_nul(path, line + text.count("\n", 0, text.index("\0")))
            line += piece.count(b"\n")
            begun = len(piece) - piece.rfind(b"\n") - 1 if b"\n" in piece else begun + len(piece)
            if text:
                yield text
            if not piece:
                return


def iter_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Gives the objects of a JSON Lines file; blank lines are skipped.

    Raises:
        DataError: naming file and line.
    """
    has_rows = False
    for number, line in iter_lines(path):
        if not line.strip(JSON_SPACE):
            continue
        try:
            value = parse_whole_json(line)
        except NotJsonError as error:
            hint = "" if has_rows else other_form(path, "json")
            raise broken_json(path, number, error.position + 1, error, line, hint) from error
        if not isinstance(value, dict):
            raise no_object(path, number, line, "" if has_rows else other_form(path, "json"))
        has_rows = True
        yield number, value


def iter_prompts(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Gives the rows of a file of prompts: JSON Lines, or plain text in which each line is a prompt.

    Plain is what is named neither `.jsonl` nor `.json` and whose first line does not begin as an object does.

    Raises:
        DataError: naming file and line.
    """
    first = next((line for _, line in iter_lines(path) if line.strip()), "")
    if path.suffix in (".jsonl", ".json") or first.lstrip().startswith("{"):
        yield from iter_json_lines(path)
        return
    yield from ((number, {"prompt": line.rstrip("\r\n")}) for number, line in iter_lines(path) if line.strip())


def broken_json(path: Path, line: int, column: int, error: NotJsonError, text: str, hint: str = "") -> DataError:
    """Builds the error of a file that is not JSON.

    Args:
        path, line, column: where it is, counted from 1.
        error: what is wrong.
        text: in which it was found.
        hint: what the file may be instead; empty where nothing speaks for another form.
    """
    rest = text[error.position :].partition("\n")[0].rstrip()
    found = shown_source(rest) if rest else "the end of the line"
    advice = hint or " Mend the line or fetch the file again."
    return DataError(
        f"{path}, line {line} is not valid JSON: {error.reason} at column {column}, found {found}.{advice}"
    )


def no_object(path: Path, place: int, text: str, hint: str = "") -> DataError:
    """Builds the error of an item that is no object.

    Args:
        path, place: its file, and where it begins.
        text: what it was read from, the item first.
        hint: as `broken_json` takes it.
    """
    held = shown_source(text.strip())
    return DataError(f"{path}, {shown_place(place)} holds {held}; each row must be a JSON object.{hint}")


def too_long(path: Path, number: int, what: str) -> DataError:
    """Builds the error of something without end in sight.

    Args:
        path: of the file.
        number: the line on which it begins.
        what: goes on too long.
    """
    return DataError(
        f"{path}, line {number}: {what} is longer than {LONGEST_BYTES >> 20} MiB, the most that a row may be; part the "
        "rows by line ends, or fetch the file again."
    )


@contextmanager
def _open(path: Path) -> Iterator[io.BufferedReader | gzip.GzipFile]:
    """Opens a file of text to read its bytes, unpacked.

    Raises:
        DataError: it cannot be read to its end, or is no text.
    """
    try:
        with path.open("rb") as raw:
            if not is_packed(path):
                _refuse_binary(path, raw, is_packed=False)
                yield raw
                return
            if raw.peek(2)[:2] not in (b"\x1f\x8b", b""):
                raise DataError(f"{path} is no gzip file, as the end of its name says; take .gz off its name.")
            with gzip.GzipFile(fileobj=raw) as unpacked:
                _refuse_binary(path, unpacked, is_packed=True)
                yield unpacked
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is no whole gzip file ({str(error).rstrip('.')}); fetch the file again.") from error
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error


def _refuse_binary(path: Path, file: io.BufferedReader | gzip.GzipFile, is_packed: bool) -> None:
    """Refuses what is known by its first bytes to be no text."""
    kind = binary_kind(file.peek(64)[:64])
    if kind is not None:
        raise DataError(f"{path}: {'what it packs, when unpacked,' if is_packed else 'the file'} {kind}.")


def _decode(line: bytes, path: Path, number: int) -> str:
    """Reads one line's bytes as UTF-8."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, number, error.start + 1, line[error.start]) from error
    if "\0" in text:
        raise _has_nul(path, number)
    return text


def _not_utf8(path: Path, number: int, byte: int, found: int) -> DataError:
    """Builds the error of bytes that are no text."""
    return DataError(
        f"{path}, line {number} is not UTF-8 (byte {byte} of the line is 0x{found:02x}); save the file as UTF-8."
    )


def _has_nul(path: Path, number: int) -> DataError:
    """Builds the error of bytes that no text has, and that UTF-16 without a mark is full of."""
    return DataError(
        f"{path}, line {number} holds a NUL byte (0x00), which no text has; if the file is UTF-16, save it as UTF-8, "
        "else fetch it again."
    )
