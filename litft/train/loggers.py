"""Writes the numbers of a run as they come: `metrics.csv` and `samples.jsonl`."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import atomic_path


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One line of `metrics.csv`; counts are of the whole run so far, losses in nats per target token."""

    step: int
    examples: int
    tokens: int
    target_tokens: int
    padding_tokens: int
    seconds: float
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None


class CSVLogger:
    """`logs/metrics.csv` and `samples.jsonl` of one run."""

    def __init__(self, out_dir: Path, from_step: int | None = None) -> None:
        """Opens the files afresh, or keeps what was written up to the step that a run goes on from.

        Args:
            out_dir: the run's folder.
            from_step: None for a new run; lines of later steps are dropped, they will be written again.
        """
        self.metrics_path = out_dir / "logs" / "metrics.csv"
        self.samples_path = out_dir / "samples.jsonl"
        self.metrics_path.parent.mkdir(parents=True, exist_ok=True)
        names = [field.name for field in fields(Metrics)]
        kept: list[str] = [",".join(names)]
        samples: list[str] = []
        if from_step is not None and self.metrics_path.exists():
            kept += [line for line in _whole_lines(self.metrics_path)[1:] if int(line.split(",")[0]) <= from_step]
        if from_step is not None and self.samples_path.exists():
            samples = [line for line in _whole_lines(self.samples_path) if json.loads(line)["step"] <= from_step]
        _write_lines(self.metrics_path, kept)
        _write_lines(self.samples_path, samples)

    def log(self, metrics: Metrics) -> None:
        """Appends one line of numbers; what was not measured stays empty."""
        with self.metrics_path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(asdict(metrics).values())

    def log_sample(self, sample: dict[str, Any]) -> None:
        """Appends one sampled answer."""
        with self.samples_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(sample, ensure_ascii=False) + "\n")


class _NoLogger(CSVLogger):
    """Of the processes that train beside the first one."""

    def __init__(self) -> None:
        pass

    def log(self, metrics: Metrics) -> None:
        """Writes nothing."""

    def log_sample(self, sample: dict[str, Any]) -> None:
        """Writes nothing."""


def open_logger(out_dir: Path, from_step: int | None, is_first: bool) -> CSVLogger:
    """Gives the logger of a process: of several the first one writes.

    Args:
        out_dir, from_step: as `CSVLogger` takes them.
        is_first: whether this is it.
    """
    return CSVLogger(out_dir, from_step) if is_first else _NoLogger()


def _whole_lines(path: Path) -> list[str]:
    """Gives the lines of a file; a last one that was cut short, as by a kill or a full disk, is left out."""
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return whole


def _write_lines(path: Path, lines: list[str]) -> None:
    """Replaces a text file as a whole."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
