"""`litft check METHOD`: what must be equal in a run is tried on a few of its own rows, in about two minutes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from litft.check.bench import Bench
from litft.check.checks import CHECKS
from litft.check.finding import FAIL, PASS, Finding, find
from litft.config.check import CheckAdapter, CheckFull, CheckLoRA
from litft.errors import FaultsFoundError

Report = Callable[[str], None]


def check(
    method: str, config: CheckFull | CheckLoRA | CheckAdapter, report: Report = lambda message: None
) -> Iterator[str]:
    """Gives the table of checks, line by line as they are made. Nothing is written but in a folder that goes again.

    Args:
        method: the recipe's name.
        config: of the run, and the recipe if it is a file of the user's own.
        report: told how long it takes.

    Raises:
        FaultsFoundError: something is not as it must be; at the very end.
        LitftError: the run could not begin either, with the reason.
    """
    with tempfile.TemporaryDirectory(prefix="litft-check-") as scratch:
        bench = Bench(method, config, config.recipe, Path(scratch))
        report("about two minutes; each line comes once it is known")
        yield _heading(bench)
        yield from _lines(bench)


def _heading(bench: Bench) -> str:
    """Says what is tried."""
    inputs = bench.inputs
    tokens = int(inputs.train.lengths[bench.rows].sum())
    return (
        f"{bench.config.checkpoint_dir}, {bench.layers}, in float32; {len(bench.rows)} rows of {inputs.train.path}, "
        f"{tokens:,} tokens\n"
    )


def _lines(bench: Bench) -> Iterator[str]:
    """Makes the checks.

    Raises:
        FaultsFoundError: one failed.
    """
    started, findings = time.perf_counter(), list[Finding]()
    for each in CHECKS:
        findings.append(find(each, bench))
        yield from findings[-1].lines()
    failed = [finding.name for finding in findings if finding.verdict == FAIL]
    passed = sum(finding.verdict == PASS for finding in findings)
    skipped = len(findings) - passed - len(failed)
    yield f"{passed} pass, {len(failed)} fail, {skipped} skipped; {time.perf_counter() - started:.0f} s\n"
    if failed:
        raise FaultsFoundError(f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}.")
