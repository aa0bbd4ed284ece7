"""Plain text to complete: JSON Lines of text, or a text file whose documents an empty line parts.

A document is an answer to nothing; prepare it with `--prompt_style plain`, and all of it carries loss.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.lines import iter_json_lines, iter_lines
from litft.data.reading.rows import Rejected, Row, Rows, Source, text_fault
from litft.text.prompts import Conversation, Turn


def read_text(path: Path) -> Rows:
    """Gives the documents of a file; `.jsonl` holds `{"text"}`, anything else plain text.

    Raises:
        DataError: the file is not UTF-8, or not JSON Lines where its name says so; naming the line.
    """
    if path.suffix == ".jsonl":
        for line, values in iter_json_lines(path):
            yield _read_document(line, values.get("text"))
        return
    first, gathered = 1, ""
    for line, text in iter_lines(path):
        if text.strip():
            first, gathered = (first if gathered else line), gathered + text
        elif gathered:
            yield _read_document(first, gathered.rstrip())
            gathered = ""
    if gathered:
        yield _read_document(first, gathered.rstrip())


def _read_document(line: int, text: object) -> Row | Rejected:
    """Makes a conversation of a document: no question, and the document as the answer."""
    reason = text_fault(text, '"text"')
    if reason is not None:
        return Rejected(line, reason)
    return Row(line, Conversation((Turn("", response=str(text)),)))


SOURCE = Source(
    name="text",
    repo_id=None,
    files=(),
    licence="your own",
    origin="unknown",
    rows=None,
    schema='JSON Lines of {"text"}, or a text file with an empty line between documents',
    read=read_text,
)
