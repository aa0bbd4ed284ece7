"""Writes a report: at the end of a run into its folder, or of several runs where `litft report` is told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from litft.checkpoint.disk import atomic_path
from litft.config.report import ReportConfig
from litft.data.html import refuse_foreign
from litft.errors import LitftError
from litft.report.page import COMMAND, page_of
from litft.report.read import find_runs, names_of, read_run

Report = Callable[[str], None]
REPORT_FILE = "report.html"


def report(config: ReportConfig, report: Report = lambda message: None) -> Path:
    """Writes the report of runs.

    Args:
        config: which, and where to.
        report: told where it is.

    Returns:
        The page.

    Raises:
        ConfigError: a folder is no run, or the page would replace a file that is none.
    """
    paths = find_runs(list(config.runs))
    own = paths[0] if len(paths) == 1 else Path()
    out = config.out or own / REPORT_FILE
    write_report(paths, out)
    report(f"{out}: {'the report of' if len(paths) == 1 else f'{len(paths)} runs:'} {', '.join(map(str, paths))}")
    return out


def try_report(paths: list[Path], out: Path, report: Report) -> None:
    """Writes a page at the end of runs; one that cannot be costs a sentence, not the runs, which are on disk by then.

    Args:
        paths: the folders of the runs.
        out: the page.
        report: told where it is, or why it is not.
    """
    try:
        write_report(paths, out)
    except (LitftError, OSError) as error:
        report(f"{out} is not written ({error}); litft report {paths[0]} tries again.")
    else:
        report(f"{out} shows what happened; open it in a browser.")


def write_report(paths: list[Path], out: Path) -> None:
    """Writes a page, whole or not at all.

    Args:
        paths: the folders of the runs.
        out: is replaced if it is such a page.

    Raises:
        ConfigError: it is another file, or a run.yaml cannot be read.
    """
    refuse_foreign(out, COMMAND, "out")
    runs = [read_run(path, name) for path, name in zip(paths, names_of(paths), strict=True)]
    with atomic_path(out) as temporary:
        temporary.write_text(page_of(runs), encoding="utf-8")
