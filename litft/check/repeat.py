"""`litft repeat`: a run that has ended is run again from its own settings, and must come to the same.

The repeat is a process of its own, started as a person would start it, with as many threads as the run had: on a CPU
sums are rounded alike then, and weights are equal bit for bit.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from litft.check.compared import MISSING, Compared, compare_file, hash_file, shown, table_lines
from litft.check.verify import OLDER, OURS, Places, find_recipe, inputs_facts, read_provenance
from litft.checkpoint.disk import read_json
from litft.config.check import RepeatConfig
from litft.config.io import load_yaml
from litft.config.loggers import OWN
from litft.errors import ConfigError, TrainingError
from litft.methods.load import METHODS
from litft.train.log_csv import METRICS_FILE, SAMPLES_FILE
from litft.train.provenance import PROVENANCE_FILE
from litft.train.row_losses import ROW_LOSSES_FILE
from litft.train.setup import RUN_FILE, TIME_BOUNDS

Report = Callable[[str], None]

SUMMARY_FILE = "summary.json"
# Of metrics.csv: what depends on the clock and on the memory of the machine.
UNREPEATABLE = ("seconds", "_per_second", "peak_memory_bytes")
CUDA_NOTE = (
    "Not all kernels of a GPU add in the same order each time, so the last digits, and from there the weights, may "
    "differ; compare the losses. On a CPU a repeat is equal bit for bit."
)


def repeat(config: RepeatConfig, report: Report = lambda message: None) -> Iterator[str]:
    """Runs a run again, and gives the table of what both came to.

    Args:
        config: which one.
        report: told what is run, and where.

    Raises:
        ConfigError: it cannot be repeated, or what it read has changed.
        TrainingError: the repeat broke off; it has said why.
        FaultsFoundError: it came to something else; at the very end.
    """
    run = _run_folder(config.run)
    out_dir = config.out_dir or run.with_name(f"{run.name}-again")
    told = read_provenance(run)
    _refuse_endless(run, config)
    words = command(run, told, out_dir, config.overwrite, config.recipe)
    if not config.allow_changes:
        _refuse_changes(run, told, Places(recipe=config.recipe))
    report(f"$ {shlex.join(words)}")
    _run(words, told)
    is_on_gpu = "cuda" in (told.get("system") or {})
    return _table(run, out_dir, report if is_on_gpu else lambda text: None)


def _table(run: Path, out_dir: Path, report: Report) -> Iterator[str]:
    """Gives the table, and says on a GPU why its rows may differ."""
    yield f"{run} and {out_dir}\n"
    report(CUDA_NOTE)
    yield from table_lines(results(run, out_dir))


def _run_folder(path: Path) -> Path:
    """Gives the folder of the run that is meant.

    Raises:
        ConfigError: it is none, or has not ended.
    """
    run = path.parent if path.name == "final" else path
    if not (run / RUN_FILE).is_file():
        raise ConfigError(f"{path} is no run: it has no {RUN_FILE}; name the out_dir of litft finetune.")
    if not (run / SUMMARY_FILE).is_file():
        raise ConfigError(f"{run} has not ended, there is nothing to compare with; go on with it by --resume auto.")
    return run


def _refuse_endless(run: Path, config: RepeatConfig) -> None:
    """Refuses a run whose end was the clock's.

    Raises:
        ConfigError: naming the setting.
    """
    by = read_json(run / SUMMARY_FILE).get("stopped_by")
    if by in TIME_BOUNDS and not config.allow_changes:
        raise ConfigError(
            f"{run} was ended by {by}, so the clock decided its length and its rates; --allow_changes true runs it "
            "again and shows how far the two are apart."
        )


def _refuse_changes(run: Path, told: Mapping[str, Any], places: Places) -> None:
    """Refuses where what the run read is no longer what it was, or not there.

    Raises:
        ConfigError: naming it.
    """
    if not told:
        raise ConfigError(
            f"{run} wrote nothing down of what it was made of, as older versions did not; --allow_changes true runs it."
        )
    if changed := [row.what for row in inputs_facts(told, run / "final", places) if row.differs]:
        raise ConfigError(
            f"{', '.join(changed)} changed since {run}, so it would be another run; litft verify {run} tells more, and "
            "--allow_changes true runs it all the same."
        )


def command(
    run: Path, told: Mapping[str, Any], out_dir: Path, overwrite: bool = False, recipe: Path | None = None
) -> list[str]:
    """Gives the words that run a run again.

    Args:
        run: its folder.
        told: its provenance.
        out_dir: where the repeat goes.
        overwrite: whether it may replace a run there.
        recipe: where the recipe lies now, if a user says so.

    Raises:
        ConfigError: it was no recipe's, or of several machines.
    """
    settings, file = load_yaml(run / RUN_FILE), (told.get("recipe") or {}).get("file")
    method = told.get("method") or _method(run)
    start = [sys.executable, "-m", "litft", "finetune", method]
    if recipe is not None or (file and not str(file).startswith(OURS)):
        start = [sys.executable, str(_own_recipe(run, str(file), recipe))]
    flags = {"out_dir": out_dir, "resume": "false", "overwrite": str(overwrite).lower(), "logger": OWN}
    words = [
        *start,
        "--config",
        str(run / RUN_FILE),
        *(part for name, value in flags.items() for part in (f"--{name}", str(value))),
    ]
    if settings.get("num_nodes", 1) > 1:
        raise ConfigError(f"{run} ran on {settings['num_nodes']} machines; start on each: {shlex.join(words)}")
    return words


def _own_recipe(run: Path, file: str, given: Path | None) -> Path:
    """Gives where a recipe of the user's own lies.

    Raises:
        ConfigError: it is not there.
    """
    found = find_recipe(file, given)
    if not found.is_file():
        raise ConfigError(f"The recipe of {run}, {file}, is not here; say where it lies by --recipe FILE.")
    return found


def _method(run: Path) -> str:
    """Gives the method of a run that did not write it down, by its settings."""
    settings = load_yaml(run / RUN_FILE)
    return next((name for name in METHODS if name in settings), "full")


def _run(words: list[str], told: Mapping[str, Any]) -> None:
    """Runs it; what it says is seen as it comes.

    Raises:
        TrainingError: it broke off.
    """
    threads = (told.get("numerics") or {}).get("threads")
    counts = {} if threads is None else {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    code = subprocess.run(words, check=False, env={**os.environ, **counts}).returncode
    if code:
        raise TrainingError(f"The repeat ended with exit code {code}, and said why; there is nothing to compare.")


def results(run: Path, again: Path) -> Iterator[Compared]:
    """Compares what two runs came to: weights, metrics, losses of rows, answers.

    Args:
        run: the first.
        again: the repeat.
    """
    for what in ("device", "numerics", "litft", "versions"):
        yield _explains(what, run, again)
    for path in sorted((run / "final").glob("*.safetensors")):
        name = f"final/{path.name}"
        yield compare_file(name, hash_file(path), again / name)
    ours, theirs = (_columns(folder / METRICS_FILE) for folder in (run, again))
    for name in ours:
        yield Compared(f"metrics.csv: {name}", ours[name], theirs.get(name, MISSING))
    for name in (SAMPLES_FILE, ROW_LOSSES_FILE):
        if (run / name).is_file():
            yield compare_file(name, hash_file(run / name), again / name)


def _explains(what: str, run: Path, again: Path) -> Compared:
    """Compares what two runs say of machine and code. What differs may explain the rest, and is no fault by itself."""
    told = [read_json(folder / "final" / PROVENANCE_FILE).get(what) or {} for folder in (run, again)]
    first, second = (each if isinstance(each, dict) else {"": each} for each in told)
    differing = [name for name in second if first.get(name) != second[name]]
    texts = [f"{name} {_text(first.get(name))}, now {_text(second[name])}" for name in differing]
    same = "same" if first and not differing else None
    return Compared(what, same, same, "; ".join(texts) if first else OLDER)


def _text(value: object) -> str:
    """Gives a value as a note has room for it."""
    return shown(None if value is None else str(value))


def _columns(path: Path) -> dict[str, str]:
    """Gives a hash of each column of metrics.csv that does not depend on time or memory."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if not any(part in name for part in UNREPEATABLE)]
    return {name: hashlib.sha256("\n".join(row[name] for row in rows).encode()).hexdigest() for name in names}
