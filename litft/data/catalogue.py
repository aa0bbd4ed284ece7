"""`litft prepare --list`: what each dataset is, as its `SOURCE` says it. Reads no data and needs no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator

from litft.config.prepare import PrepareListConfig
from litft.data.reading.rows import Source
from litft.data.sources import SOURCES

HEAD = ("name", "rows", "answers by", "licence", "on the hub", "a row")
ORIGINS = {"human": "people", "model": "a model", "unknown": "?"}

# Widest cell of licence and schema; the rest of a longer one is in the README or in the dataset's file.
LICENCE_CHARACTERS, SCHEMA_CHARACTERS = 36, 72


def list_sources(config: PrepareListConfig, report: Callable[[str], None]) -> Iterator[str]:
    """Gives the table of all datasets, line by line, ordered by name.

    Args:
        config: says nothing.
        report: is not needed.
    """
    rows = [HEAD, *(_cells(source) for _, source in sorted(SOURCES.items()))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n"


def _cells(source: Source) -> tuple[str, ...]:
    """Gives one dataset's cells."""
    return (
        source.name,
        "-" if source.rows is None else f"{source.rows:,}",
        ORIGINS[source.origin],
        textwrap.shorten(source.licence, LICENCE_CHARACTERS, placeholder=" ..."),
        source.repo_id or "--data_file",
        textwrap.shorten(source.schema, SCHEMA_CHARACTERS, placeholder=" ..."),
    )
