"""Plain text to complete: JSON Lines of text, or a text file whose documents an empty line parts.

A document is an answer to nothing: it stands without a frame, and all of it carries loss but what its spans leave out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from litft.data.reading.documents import read_document
from litft.data.reading.kinds import TABLES, plain_suffix
from litft.data.reading.lines import LONGEST_BYTES, iter_lines, too_long
from litft.data.reading.parquet import SUFFIX
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rows, Source
from litft.errors import DataError

ROWS = (".jsonl", ".json")

# How a file of JSON begins, on one line or on several.
JSON = re.compile(r"\s*[\[{][\s\[{]*(\"|$)")
JSON_ADVICE = 'give the file\'s name the ending .jsonl where its rows are {"text"}, else `litft prepare json` reads it.'


def read_text(path: Path) -> Rows:
    """Gives the documents of a file; JSON and parquet hold `{"text"}`, anything else is plain text.

    Raises:
        DataError: the file is not UTF-8, or no JSON where its name says so; naming the line.
    """
    if path.suffix == SUFFIX or plain_suffix(path) in ROWS:
        for line, values in iter_records(path):
            yield read_document(line, values)
        return
    if plain_suffix(path) in TABLES:
        raise DataError(
            f"{path} is a table, not text to complete; `litft prepare {TABLES[plain_suffix(path)]}` reads it."
        )
    for line, text in _iter_documents(path):
        yield read_document(line, {"text": text})


def _iter_documents(path: Path) -> Iterator[tuple[int, str]]:
    """Gives the documents of a text file, each with the line it begins on; an empty line ends one."""
    first, gathered, size, is_begun = 1, list[str](), 0, True
    for line, text in iter_lines(path):
        if not text.strip():
            if gathered:
                yield first, "".join(gathered).rstrip()
            gathered, size = [], 0
            continue
        if not gathered:
            first = line
            if is_begun and JSON.match(text):
                raise DataError(f"{path}, line {line} begins JSON, not text; {JSON_ADVICE}")
            is_begun = False
        gathered.append(text)
        size += len(text)
        if size > LONGEST_BYTES:
            raise too_long(path, first, "the document that begins there, which an empty line would end,")
    if gathered:
        yield first, "".join(gathered).rstrip()


SOURCE = Source(
    name="text",
    repo_id=None,
    files=(),
    licence="your own",
    origin="unknown",
    rows=None,
    schema=(
        'JSON Lines (or a JSON list, or parquet) of {"text"}, with "loss_masking_spans" or "target_spans" where a part '
        "is to be learned; or a text file with an empty line between documents"
    ),
    read=read_text,
    has_fields=False,
)
