"""`litft submit check`: a server asked as HELM asks, the time of the whole evaluation, and the rules."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import write_json
from litft.config.submit import SubmitCheckConfig
from litft.errors import ConfigError, FaultsFoundError
from litft.methods.load import weights_files
from litft.submit.budget import check_budget
from litft.submit.helm import FaultError, Helm
from litft.submit.play import Finding, find, play
from litft.submit.record import Record, open_record
from litft.submit.rules import check_rules
from litft.submit.running import running_server

Report = Callable[[str], None]

NAME_WIDTH, WIDTH = 20, 110
NEEDED = ("fastapi", "uvicorn")
BUDGET = "two hours"


def check(config: SubmitCheckConfig, report: Report = lambda message: None) -> Iterator[str]:
    """Gives the table of findings, line by line as they are known.

    Args:
        config: the checkpoint, or the server that runs.
        report: told what is being done.

    Raises:
        FaultsFoundError: a check failed; at the very end.
        ConfigError, CheckpointError: the checkpoint or the address cannot be used.
    """
    record = _record(config)
    if config.url is None and (missing := [name for name in NEEDED if find_spec(name) is None]):
        raise ConfigError(f"litft submit check needs {' and '.join(missing)}; pip install 'litft[serve]' brings them.")
    return _lines(config, record, report)


def _record(config: SubmitCheckConfig) -> Record | None:
    """Opens the run behind the checkpoint, and makes sure that its weights are there.

    Raises:
        ConfigError, CheckpointError: they cannot be used.
    """
    if config.out_file is not None and not config.out_file.absolute().parent.is_dir():
        raise ConfigError(f"out_file {config.out_file} lies in no folder; make {config.out_file.parent} first.")
    if config.checkpoint_dir is None:
        return None
    record = open_record(config.checkpoint_dir, config.data_dir, config.base_repo)
    if config.url is None:
        weights_files(record.checkpoint_dir)
    return record


def _lines(config: SubmitCheckConfig, record: Record | None, report: Report) -> Iterator[str]:
    """Makes the checks and gives their lines."""
    findings: list[Finding] = []
    with ExitStack() as stack:
        url = config.url
        if url is None:
            assert record is not None
            report(f"starting litft serve for {record.checkpoint_dir}")
            url = stack.enter_context(running_server(record.checkpoint_dir, config.serve_flags()))
        yield f"{url}, asked as HELM's neurips/local asks\n"
        for finding in _findings(Helm(url, config.timeout_seconds), record):
            findings.append(finding)
            yield from finding_lines(finding)
    yield from _end(config, url, findings, report)


def _findings(helm: Helm, record: Record | None) -> Iterator[Finding]:
    """Gives all findings: of the server, of its time, of the rules."""
    is_sound = True
    for finding in play(helm):
        is_sound = is_sound and (finding.verdict != "fail" or finding.name not in ("four at once", "all other checks"))
        yield finding
    yield find(BUDGET, lambda: check_budget(helm)) if is_sound else find(BUDGET, _unmeasured)
    if record is not None:
        yield from check_rules(record)


def _unmeasured() -> str:
    """Says why no time was measured."""
    raise FaultError("not measured, since four requests at once are not answered", verdict="?")


def finding_lines(finding: Finding) -> Iterator[str]:
    """Gives what is printed of one finding."""
    head = f"{finding.name:<{NAME_WIDTH}} {finding.verdict:<5}"
    texts = [finding.reason, *([f"HELM records: {finding.recorded}"] if finding.recorded else [])]
    for number, text in enumerate(texts):
        first = head if number == 0 else " " * len(head)
        filled = textwrap.fill(
            text, WIDTH, initial_indent=f"{first} ", subsequent_indent=" " * (len(head) + 1), break_on_hyphens=False
        )
        yield f"{filled}\n"


def _end(config: SubmitCheckConfig, url: str, findings: list[Finding], report: Report) -> Iterator[str]:
    """Gives the last line, and writes the file.

    Raises:
        FaultsFoundError: a check failed.
    """
    failed = [finding.name for finding in findings if finding.verdict == "fail"]
    unknown = [finding.name for finding in findings if finding.verdict == "?"]
    if config.out_file is not None:
        write_json(config.out_file, _to_dict(config.checkpoint_dir, url, findings))
        report(f"{config.out_file}: the same for programs")
    passed = len(findings) - len(failed) - len(unknown)
    yield f"{passed} pass, {len(failed)} fail, {len(unknown)} not known\n"
    if failed:
        raise FaultsFoundError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}.")


def _to_dict(checkpoint_dir: Path | None, url: str, findings: list[Finding]) -> dict[str, Any]:
    """Gives the findings for programs."""
    return {
        "checkpoint_dir": None if checkpoint_dir is None else str(checkpoint_dir),
        "url": url,
        "passed": all(finding.verdict != "fail" for finding in findings),
        "findings": [asdict(finding) for finding in findings],
    }
