"""What kind of file stands under a name, told by its first bytes, and which command reads it. Knows no rows."""

from __future__ import annotations

import csv
import gzip
import zlib
from pathlib import Path

# Endings of tables, and the commands that read them.
TABLES = {".csv": "csv", ".tsv": "flan"}

# Bytes looked at, to tell what a file of text may be.
HEAD_BYTES = 2**16

# First bytes of files that are no UTF-8 text: what they are, and what to do. The longer of two comes first.
# Source: the magic numbers of each format, as in the `magic` files of file(1).
BINARY = (
    (b"\x1f\x8b", "a gzip file", "give its name the ending .gz"),
    (b"PK\x03\x04", "a zip archive (as .xlsx and .pt are too)", "unpack or export it, and name the file inside"),
    (b"PK\x05\x06", "an empty zip archive", "name the file that was to be in it"),
    (b"PAR1\x15", "a parquet file", "give its name the ending .parquet"),
    (b"ARROW1\0\0", "an arrow file", "save its rows as parquet or JSON Lines"),
    (b"\xff\xff\xff\xff", "an arrow stream", "name the folder that `datasets` saved with `litft prepare tokenized`"),
    (b"BZh91AY", "a bzip2 file", "unpack it"),
    (b"\xfd7zXZ\0", "an xz file", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstandard file", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"SQLite format 3\0", "an SQLite database", "export its rows as CSV or JSON Lines"),
    (b"%PDF-", "a PDF", "save its text as UTF-8"),
    (b"\x80\x02", "a pickle", "save its rows as JSON Lines"),
    (b"\x80\x03", "a pickle", "save its rows as JSON Lines"),
    (b"\x80\x04", "a pickle", "save its rows as JSON Lines"),
    (b"\x80\x05", "a pickle", "save its rows as JSON Lines"),
    (b"\xff\xfe\0\0", "UTF-32", "save it as UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32", "save it as UTF-8"),
    (b"\xff\xfe", "UTF-16", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16", "save it as UTF-8"),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
)


def binary_kind(head: bytes) -> str | None:
    """Says what a file is that is no text, and what to do with it; None where its first bytes speak of text."""
    found = next(((kind, advice) for begin, kind, advice in BINARY if head.startswith(begin)), None)
    return found and f"is {found[0]}, not a text in UTF-8; {found[1]}"


def other_form(path: Path, expected: str) -> str:
    """Gives `' It looks like CSV; did you mean `litft prepare csv`?'` for a file of another form, else an empty text.

    Args:
        path: a file that could not be read as what was expected.
        expected: the command that was to read it, or the form where none is: `json`, `parquet`.
    """
    binary = binary_kind(_head(path))
    if binary is not None:
        return "" if f" {expected} " in binary else f" It {binary}."
    return text_form(path, expected)


def text_form(path: Path, expected: str) -> str:
    """Gives what `other_form` does of a file that is text; of any other an empty text."""
    head = _head(path)
    kind, command = (
        _form(head.decode("utf-8-sig", errors="replace").lstrip()) if binary_kind(head) is None else ("", "")
    )
    if command == expected or not kind:
        return ""
    return f" It looks like {kind}; did you mean `litft prepare {command}`?" if command else f" It looks like {kind}."


def plain_suffix(path: Path) -> str:
    """Gives the ending of a file's name in small letters, that of a packed file without `.gz`."""
    return Path(path.stem).suffix.lower() if is_packed(path) else path.suffix.lower()


def is_packed(path: Path) -> bool:
    """Says whether a name is that of a gzip file."""
    return path.suffix.lower() == ".gz"


def _head(path: Path) -> bytes:
    """Gives the beginning of a file, unpacked; nothing where it cannot be read."""
    try:
        with gzip.open(path) if is_packed(path) else path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        return b""


def _form(head: str) -> tuple[str, str]:
    """Gives what a text looks like, and the command that reads it; both may be empty."""
    first = head.partition("\n")[0].rstrip()
    if head.lower().startswith(("<!doctype html", "<html")):
        return "a web page, as a failed download leaves one", ""
    if head.startswith("{") and '"Definition"' in head and ('"Instances"' in head or '"Contributors"' in head):
        return "a task of Natural-Instructions", "natural_instructions"
    if head.startswith(("[{", '{"')) or (head.startswith("[") and head[1:].lstrip().startswith("{")):
        return "JSON", "json"
    if head.startswith("{"):
        return "one JSON object over several lines, where each is to stand on a line of its own or in one list", ""
    if first.count("\t") == 2:
        return "lines of three cells between tabs", "flan"
    if _is_csv(head):
        return "CSV", "csv"
    return ("plain text", "text") if " " in first and first[:1].isalpha() else ("", "")


def _is_csv(head: str) -> bool:
    """Says whether the first two lines have the same number of cells, more than one."""
    lines = head.splitlines()[:-1] if len(head) >= HEAD_BYTES else head.splitlines()
    try:
        cells = [len(row) for row in csv.reader(lines[:20], strict=True) if row][:2]
    except csv.Error:
        return False
    return len(cells) == 2 and cells[0] == cells[1] > 1 and "{" not in lines[0]
