"""Writes the numbers of a run as they come: `metrics.csv`, `samples.jsonl`, `spikes.jsonl`."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import atomic_path


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """One line of `metrics.csv`; losses in nats per target token.

    Counts and seconds are of the whole run so far: `seconds` in training steps, of which `data_seconds` to make
    batches, `compute_seconds` in forward and backward passes and `optimizer_seconds`; and those that training waited
    for validations, checkpoints and exports. `tokens` are real ones, without padding. What is `by_source` is JSON, and
    empty where there is one source.
    """

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
    val_loss_by_source: str | None = None
    val_accuracy_by_source: str | None = None
    epoch: float | None = None
    peak_memory_bytes: int | None = None
    data_seconds: float | None = None
    compute_seconds: float | None = None
    optimizer_seconds: float | None = None
    validation_seconds: float | None = None
    checkpoint_seconds: float | None = None
    export_seconds: float | None = None


class CSVLogger:
    """`logs/metrics.csv`, `samples.jsonl` and, once a loss jumped, `spikes.jsonl` of one run."""

    def __init__(self, out_dir: Path, from_step: int | None = None) -> None:
        """Opens the files afresh, or keeps what was written up to the step that a run goes on from.

        Args:
            out_dir: the run's folder.
            from_step: None for a new run; lines of later steps are dropped, they will be written again.
        """
        self.metrics_path = out_dir / "logs" / "metrics.csv"
        self.samples_path, self.spikes_path = out_dir / "samples.jsonl", out_dir / "spikes.jsonl"
        self.metrics_path.parent.mkdir(parents=True, exist_ok=True)
        names = [field.name for field in fields(Metrics)]
        kept: list[str] = [",".join(names)]
        if from_step is not None and self.metrics_path.exists():
            kept += [line for line in _whole_lines(self.metrics_path)[1:] if int(line.split(",")[0]) <= from_step]
        _write_lines(self.metrics_path, kept)
        _write_lines(self.samples_path, _kept_lines(self.samples_path, from_step))
        if self.spikes_path.exists():
            _write_lines(self.spikes_path, _kept_lines(self.spikes_path, from_step))

    def log(self, metrics: Metrics) -> None:
        """Appends one line of numbers; what was not measured stays empty."""
        with self.metrics_path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(asdict(metrics).values())

    def log_sample(self, sample: dict[str, Any]) -> None:
        """Appends one sampled answer."""
        _append(self.samples_path, sample)

    def log_spike(self, spike: dict[str, Any]) -> None:
        """Appends one loss that jumped."""
        _append(self.spikes_path, spike)


class _NoLogger(CSVLogger):
    """Of the processes that train beside the first one."""

    def __init__(self, out_dir: Path) -> None:
        self.spikes_path = out_dir / "spikes.jsonl"

    def log(self, metrics: Metrics) -> None:
        """Writes nothing."""

    def log_sample(self, sample: dict[str, Any]) -> None:
        """Writes nothing."""

    def log_spike(self, spike: dict[str, Any]) -> None:
        """Writes nothing."""


def open_logger(out_dir: Path, from_step: int | None, is_first: bool) -> CSVLogger:
    """Gives the logger of a process: of several the first one writes.

    Args:
        out_dir, from_step: as `CSVLogger` takes them.
        is_first: whether this is it.
    """
    return CSVLogger(out_dir, from_step) if is_first else _NoLogger(out_dir)


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
