"""Plain text to complete: JSON Lines of text, or a text file whose documents an empty line parts.

A document is an answer to nothing: it stands without a frame, and all of it carries loss but what its spans leave out.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.documents import read_document
from litft.data.reading.lines import iter_json_lines, iter_lines
from litft.data.reading.rows import Rows, Source


def read_text(path: Path) -> Rows:
    """Gives the documents of a file; `.jsonl` holds `{"text"}`, anything else plain text.

    Raises:
        DataError: the file is not UTF-8, or not JSON Lines where its name says so; naming the line.
    """
    if path.suffix == ".jsonl":
        for line, values in iter_json_lines(path):
            yield read_document(line, values)
        return
    first, gathered = 1, ""
    for line, text in iter_lines(path):
        if text.strip():
            first, gathered = (first if gathered else line), gathered + text
        elif gathered:
            yield read_document(first, {"text": gathered.rstrip()})
            gathered = ""
    if gathered:
        yield read_document(first, {"text": gathered.rstrip()})


SOURCE = Source(
    name="text",
    repo_id=None,
    files=(),
    licence="your own",
    origin="unknown",
    rows=None,
    schema=(
        'JSON Lines of {"text"}, with "loss_masking_spans" or "target_spans" where a part is to be learned; or a text '
        "file with an empty line between documents"
    ),
    read=read_text,
)
