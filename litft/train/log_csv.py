"""The files that every run writes as it goes: `logs/metrics.csv`, `samples.jsonl`, `spikes.jsonl`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import atomic_path
from litft.train.loggers import Logger, Metrics

METRICS_FILE, SAMPLES_FILE, SPIKES_FILE = "logs/metrics.csv", "samples.jsonl", "spikes.jsonl"


class CSVLogger(Logger):
    """The numbers, the sampled answers and, once a loss jumped, the jumps of one run. A full disk ends the run."""

    def __init__(self, out_dir: Path, from_step: int | None = None) -> None:
        """Opens the files afresh, or keeps what was written up to the step that a run goes on from.

        Args:
            out_dir: the run's folder.
            from_step: None for a new run; lines of later steps are dropped, they will be written again.
        """
        self.metrics_path = out_dir / METRICS_FILE
        self.samples_path, self.spikes_path = out_dir / SAMPLES_FILE, out_dir / SPIKES_FILE
        self.metrics_path.parent.mkdir(parents=True, exist_ok=True)
        names = [field.name for field in fields(Metrics)]
        kept: list[str] = [",".join(names)]
        if from_step is not None:
            kept += [line for line in _metrics_lines(self.metrics_path) if _step(line) <= from_step]
        _write_lines(self.metrics_path, kept)
        _write_lines(self.samples_path, _kept_lines(self.samples_path, from_step))
        if self.spikes_path.exists():
            _write_lines(self.spikes_path, _kept_lines(self.spikes_path, from_step))

    def log(self, metrics: Metrics) -> None:
        """Appends one line of numbers; what was not measured stays empty."""
        with self.metrics_path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(asdict(metrics).values())

    def log_samples(self, samples: Sequence[dict[str, Any]]) -> None:
        """Appends sampled answers."""
        for sample in samples:
            _append(self.samples_path, sample)

    def log_spike(self, spike: dict[str, Any]) -> None:
        """Appends one loss that jumped."""
        _append(self.spikes_path, spike)


def last_step(out_dir: Path) -> int:
    """Gives the last step that a run has a line of metrics for; -1 without one."""
    return max(map(_step, _metrics_lines(out_dir / METRICS_FILE)), default=-1)


def _metrics_lines(path: Path) -> list[str]:
    """Gives the lines of a file of metrics, without its head; none where there is no file."""
    return _whole_lines(path)[1:] if path.exists() else []


def _step(line: str) -> int:
    """Gives the step of a line of metrics."""
    return int(line.split(",")[0])


def _whole_lines(path: Path) -> list[str]:
    """Gives the lines of a file; a last one that was cut short, as by a kill or a full disk, is left out."""
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return whole


def _kept_lines(path: Path, from_step: int | None) -> list[str]:
    """Gives the lines of JSON of no later step; none where a run begins."""
    if from_step is None or not path.exists():
        return []
    return [line for line in _whole_lines(path) if json.loads(line)["step"] <= from_step]


def _append(path: Path, values: dict[str, Any]) -> None:
    """Adds a line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values, ensure_ascii=False) + "\n")


def _write_lines(path: Path, lines: list[str]) -> None:
    """Replaces a text file as a whole."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
