"""`litft prepare --list`: what each dataset is, as its `SOURCE` says it. Reads no data and needs no torch."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterator

from litft.config.prepare import PrepareListConfig
from litft.data.reading.rows import Source
from litft.data.sources import SOURCES
from litft.errors import ConfigError, did_you_mean

HEAD = ("name", "rows", "answers by", "licence", "on the hub", "a row")
ORIGINS = {"human": "people", "model": "a model", "unknown": "?"}

# Columns of a terminal that are used; a licence that is longer than its cell is in the README or in the dataset's file.
NARROWEST, WIDEST, LICENCE_CHARACTERS = 60, 120, 25
INDENT = "    "  # of what stands below the cells: the place on the hub, and what a row is


def list_sources(config: PrepareListConfig, report: Callable[[str], None]) -> Iterator[str]:
    """Gives the table of all datasets, some lines for each, ordered by name.

    Args:
        config: which of them.
        report: is not needed.

    Raises:
        ConfigError: none is like that.
    """
    wanted = (config.match or "").lower()
    shown = [
        row for row in (_cells(source) for _, source in sorted(SOURCES.items())) if wanted in " ".join(row).lower()
    ]
    if not shown:
        raise ConfigError(f"No dataset has {config.match} in its line.{did_you_mean(wanted, SOURCES)}")
    rows = [HEAD, *shown]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 2)]
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    for *cells, place, schema in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        below = textwrap.fill(
            f"{place}: {schema}", width, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
        )
        yield f"{line}\n{below}\n"


def _cells(source: Source) -> tuple[str, ...]:
    """Gives one dataset's cells."""
    return (
        source.name,
        "-" if source.rows is None else f"{source.rows:,}",
        ORIGINS[source.origin],
        textwrap.shorten(source.licence, LICENCE_CHARACTERS, placeholder=" ..."),
        source.repo_id or "--data_file",
        source.schema,
    )
