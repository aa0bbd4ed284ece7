"""Reads the folder of a run, finished or not, of this version or an older one. Knows no page and no model.

What is not there is left empty; what cannot be read is left out, and a note says so.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from litft.config.io import load_yaml
from litft.errors import ConfigError

# Names on disk; those who write them stand in litft/train.
RUN_FILE, START_FILE, SUMMARY_FILE = "run.yaml", "start.json", "summary.json"
METRICS_FILE, SAMPLES_FILE, SPIKES_FILE = "logs/metrics.csv", "samples.jsonl", "spikes.jsonl"
ROW_LOSSES_FILE, PROVENANCE_FILE = "row_losses.csv", "final/provenance.json"

TRAINED = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "peak_memory_bytes")
VALIDATED = ("val_loss", "val_accuracy")
SPENT = ("data", "compute", "optimizer", "validation", "checkpoint", "export")

Read = TypeVar("Read")


@dataclass
class Points:
    """Measurements in the order of their steps.

    Attributes:
        step, tokens: where each was taken; tokens are those trained on so far.
        values: name -> of each, None where it was not measured or is not finite.
    """

    step: list[int] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)

    def known(self, name: str) -> list[tuple[int, float]]:
        """Gives the steps at which something was measured, with its values."""
        values = self.values.get(name, [])
        return [(step, value) for step, value in zip(self.step, values, strict=False) if value is not None]


@dataclass(frozen=True)
class RowLoss:
    """The losses of a training row, in nats per target token, as `row_losses.csv` names them."""

    row: int
    source: str
    target_tokens: int
    first: float
    last: float
    last_step: int


@dataclass
class RunFolder:
    """What a run left behind.

    Attributes:
        path: its folder; name: what it is called on the page.
        settings: of run.yaml.
        start: what it knew before its first step; empty in runs of older versions.
        summary, provenance: empty where it has not ended.
        train, held_out: the measurements of its steps and of its validations.
        last: the last line of metrics.csv, as numbers.
        samples, spikes, rows: the lines of these files.
        notes: what could not be read.
    """

    path: Path
    name: str
    settings: dict[str, Any]
    start: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    train: Points = field(default_factory=Points)
    held_out: Points = field(default_factory=Points)
    last: dict[str, float] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    spikes: list[dict[str, Any]] = field(default_factory=list)
    rows: list[RowLoss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end."""
        return bool(self.summary)

    @property
    def method(self) -> str:
        """How it was trained; by its settings where no file says so."""
        by_settings = next((name for name in ("lora", "adapter") if name in self.settings), "full")
        return str(self.start.get("method", by_settings))

    def number(self, name: str) -> float | None:
        """Gives a count or time of the whole run: at its end, or as far as it came."""
        value = self.summary.get(name, self.last.get(name))
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    def seconds(self) -> dict[str, float]:
        """Gives the seconds that went into each kind of work, where they were measured."""
        spent = self.summary.get("spent_seconds")
        told = spent if isinstance(spent, dict) else {name: self.last.get(f"{name}_seconds") for name in SPENT}
        pairs = ((name, told.get(name)) for name in SPENT)
        return {name: float(value) for name, value in pairs if isinstance(value, int | float)}


def find_runs(paths: list[Path]) -> list[Path]:
    """Gives the folders of the runs that are meant: runs themselves, their `final/`, or folders of a sweep.

    Raises:
        ConfigError: there is no run.
    """
    found: list[Path] = []
    for path in paths:
        within = path.parent if path.name == "final" else path
        if (within / RUN_FILE).is_file():
            found.append(within)
        elif below := sorted(file.parent for file in path.glob(f"*/{RUN_FILE}") if file.parent.name != "final"):
            found += below
        else:
            what = f"it has no {RUN_FILE}" if path.is_dir() else "there is no such folder"
            raise ConfigError(f"{path} is no run: {what}; name the out_dir of litft finetune, such as out/lora/lima.")
    return list({path.resolve(): path for path in found}.values())


def read_run(path: Path, name: str) -> RunFolder:
    """Gives what a run left behind.

    Args:
        path: its folder.
        name: what it is called.

    Raises:
        ConfigError: its run.yaml cannot be read.
    """
    run = RunFolder(path, name, load_yaml(path / RUN_FILE))
    run.start = _read(run, START_FILE, _json) or {}
    run.summary = _read(run, SUMMARY_FILE, _json) or {}
    run.provenance = _read(run, PROVENANCE_FILE, _json) or run.start.get("provenance") or {}
    run.samples = _read(run, SAMPLES_FILE, _json_lines) or []
    run.spikes = _read(run, SPIKES_FILE, _json_lines) or []
    run.rows = _read(run, ROW_LOSSES_FILE, _row_losses) or []
    lines = _read(run, METRICS_FILE, _metrics) or []
    if lines:
        _take_metrics(run, lines)
    return run


def _read(run: RunFolder, name: str, reader: Callable[[Path], Read]) -> Read | None:
    """Reads one file of a run; one that is not there gives None, one that cannot be read a note too."""
    path = run.path / name
    if not path.is_file():
        return None
    try:
        return reader(path)
    except (OSError, ValueError, KeyError, RecursionError, csv.Error) as error:
        run.notes.append(f"{path} cannot be read and is left out ({type(error).__name__}: {error}).")
        return None


def _json(path: Path) -> dict[str, Any]:
    """Gives a JSON object."""
    loaded = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}, not an object")
    return loaded


def _whole_lines(path: Path) -> Iterator[str]:
    """Gives the lines of a file; a last one that was cut short, as by a kill, is left out."""
    with path.open(encoding="utf-8", newline="\n") as file:
        yield from (line for line in file if line.endswith("\n"))


def _json_lines(path: Path) -> list[dict[str, Any]]:
    """Gives the objects of a file with one on each line."""
    found = [json.loads(line) for line in _whole_lines(path)]
    if not all(isinstance(each, dict) for each in found):
        raise ValueError("a line is no object")
    return found


def _metrics(path: Path) -> list[dict[str, str]]:
    """Gives the lines of metrics.csv, one for each step and kind; of two for one step the later."""
    lines: dict[tuple[int, bool], dict[str, str]] = {}
    for line in csv.DictReader(_whole_lines(path)):
        lines[int(line["step"]), bool(line.get("val_loss"))] = line
    return [lines[place] for place in sorted(lines)]


def _row_losses(path: Path) -> list[RowLoss]:
    """Gives the losses of rows; those without one, as rows without targets are, are left out."""
    return [
        RowLoss(
            int(line["row"]),
            line["source"],
            int(line["target_tokens"]),
            float(line["first_loss"]),
            float(line["last_loss"]),
            int(line["last_step"]),
        )
        for line in csv.DictReader(_whole_lines(path))
        if line["first_loss"] and line["last_loss"]
    ]


def _take_metrics(run: RunFolder, lines: list[dict[str, str]]) -> None:
    """Divides the lines into those of steps and those of validations."""
    trained = [line for line in lines if line.get("loss")]
    run.train = _points(run, trained, TRAINED)
    run.train.values["padding_share"] = _padding_shares(trained)
    validated = [line for line in lines if line.get("val_loss")]
    run.held_out = _points(run, validated, VALIDATED)
    for name in ("val_loss_by_source", "val_accuracy_by_source"):
        _take_sources(run, name, validated)
    run.last = {name: value for name in lines[-1] if (value := _finite(lines[-1][name])) is not None}


def _points(run: RunFolder, lines: list[dict[str, str]], names: tuple[str, ...]) -> Points:
    """Gives these columns; a note says how many numbers are not finite."""
    points = Points([int(line["step"]) for line in lines], [_finite(line.get("tokens")) or 0.0 for line in lines])
    for name in names:
        texts = [line.get(name) for line in lines]
        points.values[name] = [_finite(text) for text in texts]
        lost = sum(1 for text, value in zip(texts, points.values[name], strict=True) if text and value is None)
        if lost:
            run.notes.append(f"{run.path / METRICS_FILE}: {lost:,} values of {name} are not finite and not drawn.")
    return points


def _finite(text: str | None) -> float | None:
    """Gives a number, None where there is none that could be drawn."""
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _padding_shares(lines: list[dict[str, str]]) -> list[float | None]:
    """Gives the share of padding among the positions since the line before."""
    shares: list[float | None] = []
    padding_before = tokens_before = 0.0
    for line in lines:
        padding, tokens = _finite(line.get("padding_tokens")), _finite(line.get("tokens"))
        if padding is None or tokens is None:
            shares.append(None)
            continue
        positions = padding - padding_before + tokens - tokens_before
        shares.append((padding - padding_before) / positions if positions > 0 else None)
        padding_before, tokens_before = padding, tokens
    return shares


def _take_sources(run: RunFolder, name: str, lines: list[dict[str, str]]) -> None:
    """Adds a column `name:SOURCE` for each source."""
    told = [_sources(line.get(name)) for line in lines]
    for source in dict.fromkeys(source for each in told for source in each):
        run.held_out.values[f"{name}:{source}"] = [each.get(source) for each in told]


def _sources(text: str | None) -> dict[str, float]:
    """Gives the numbers of each source; none where the cell is empty or is no JSON object."""
    try:
        values = json.loads(text or "{}")
    except ValueError:
        return {}
    pairs = values.items() if isinstance(values, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, int | float) and math.isfinite(value)}


def names_of(paths: list[Path]) -> list[str]:
    """Gives each run the shortest end of its path that no other has; a run alone two parts of it."""
    parts = [path.resolve().parts for path in paths]
    depth = 2 if len(parts) == 1 else 1
    while len({each[-depth:] for each in parts}) < len(parts):
        depth += 1
    return ["/".join(each[-depth:]) for each in parts]
