"""What a run tells to whom: its own files, and the programs that `logger` names. Knows none of them.

A logger is one class in a file of its own and one row of `LOGGERS` in config/loggers.py. One that fails in the middle,
as without a network, never stops a run: that is said once, and the run's own files have everything.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import read_json, write_json
from litft.config.loggers import LOGGERS, LoggerRow
from litft.errors import ConfigError, TrainingError
from litft.terminal.shown import without_secrets

IDS_FILE = "logs/loggers.json"  # under which ids the run is known elsewhere
LARGEST_MODEL = 2**30  # bytes of final/ that `log_model auto` sends


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

    def numbers(self) -> dict[str, float]:
        """Gives what was measured by name, without the step; of what is by source a number each: `val_loss/lima`."""
        found: dict[str, float] = {}
        for name, value in asdict(self).items():
            if isinstance(value, str):
                whole = name.removesuffix("_by_source")
                found |= {f"{whole}/{source}": number for source, number in json.loads(value).items()}
            elif value is not None and name != "step":
                found[name] = value
        return found


@dataclass(frozen=True)
class Start:
    """What a logger is told of a run before its first step.

    Attributes:
        out_dir: the run's folder.
        settings: what `run.yaml` holds.
        data_dir: the prepared data.
        hashes: sha256 of what is read.
        from_step: where the run goes on; None for a new one.
        last_step: the last one that was told before the run broke off; -1 for a new one.
        log_model: as in the config.
    """

    out_dir: Path
    settings: Mapping[str, Any]
    data_dir: Path
    hashes: Mapping[str, str]
    from_step: int | None
    last_step: int
    log_model: bool | str

    def known_id(self, name: str) -> str | None:
        """Gives the id under which a logger knows the run that goes on; None where it does not."""
        path = self.out_dir / IDS_FILE
        found = read_json(path).get(name) if path.exists() else None
        return None if found is None else str(found)

    def keep_id(self, name: str, own: str) -> None:
        """Writes down the id under which a logger knows this run."""
        path = self.out_dir / IDS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**(read_json(path) if path.exists() else {}), name: own})

    def sends(self, final: Path) -> bool:
        """Says whether the trained weights are to be sent."""
        if isinstance(self.log_model, bool):
            return self.log_model
        return sum(path.stat().st_size for path in final.iterdir()) < LARGEST_MODEL


class Logger:
    """Takes what a run tells; a subclass does something with it.

    Attributes:
        errors: of its library, those that mean that somebody else failed. Any other one is our bug.
    """

    errors: tuple[type[Exception], ...] = ()

    def log(self, metrics: Metrics) -> None:
        """Takes one line of numbers."""

    def log_samples(self, samples: Sequence[dict[str, Any]]) -> None:
        """Takes the answers of one validation, each with its `step`."""

    def log_spike(self, spike: dict[str, Any]) -> None:
        """Takes one loss that jumped."""

    def close(self, final: Path | None, summary: Mapping[str, Any]) -> None:
        """Takes the end.

        Args:
            final: the trained checkpoint; None where the run broke off.
            summary: what `summary.json` holds; empty where the run broke off.
        """


@dataclass
class Loggers(Logger):
    """All loggers of a run as one; without any it takes all and does nothing, as in all processes but the first."""

    open: dict[str, Logger] = field(default_factory=dict)
    report: Callable[[str], None] = lambda message: None
    complained: set[str] = field(default_factory=set)

    def begin(self, names: Sequence[str], start: Start, report: Callable[[str], None]) -> None:
        """Opens the loggers that a run names beside its own files; whatever ends the process, they hear of it.

        Args:
            names: of the config.
            start: what they are told of the run.
            report: told once where one of them fails later.

        Raises:
            TrainingError: one does not take the run, as without a network or a key.
        """
        self.report = report
        atexit.register(self.close, None, {})
        if start.from_step is None:
            (start.out_dir / IDS_FILE).unlink(missing_ok=True)
        for name, row in _rows(names):
            module, _, kind = row.target.partition(":")
            made: type[Any] = getattr(importlib.import_module(module), kind)
            try:
                self.open[name] = made(start)
            except made.errors as error:
                self.close(None, {})
                what = f"{name} does not take the run ({reason(error)})"
                raise TrainingError(f"{what}; mend that, or leave {name} out of --logger.") from error

    def log(self, metrics: Metrics) -> None:
        """Tells a line of numbers to each of them."""
        self._each(f"step {metrics.step}", lambda logger: logger.log(metrics))

    def log_samples(self, samples: Sequence[dict[str, Any]]) -> None:
        """Tells the answers of one validation to each of them."""
        self._each("the sampled answers", lambda logger: logger.log_samples(samples))

    def log_spike(self, spike: dict[str, Any]) -> None:
        """Tells a loss that jumped to each of them."""
        self._each(f"step {spike['step']}", lambda logger: logger.log_spike(spike))

    def close(self, final: Path | None, summary: Mapping[str, Any]) -> None:
        """Tells the end to each of them, once."""
        self.complained.clear()  # what is missing at the end is worth saying again
        self._each("the end of the run", lambda logger: logger.close(final, summary))
        self.open.clear()

    def _each(self, what: str, tell: Callable[[Logger], None]) -> None:
        """Tells each of them; of one that fails a person hears once."""
        for name, logger in self.open.items():
            try:
                tell(logger)
            except logger.errors as error:
                if name not in self.complained:
                    self.complained.add(name)
                    self.report(
                        f"{name} did not take {what} ({reason(error)}); the run goes on, and the files of its folder "
                        "have everything."
                    )


def require_loggers(names: Sequence[str]) -> None:
    """Refuses a logger whose package is not there, without importing it.

    Raises:
        ConfigError: naming what to install.
    """
    for name, row in _rows(names):
        if importlib.util.find_spec(row.package) is None:
            raise ConfigError(
                f"logger {name} needs the package {row.package}; install it with `pip install 'litft[{name}]'`, or "
                "leave it out: metrics.csv is written anyway."
            )


def _rows(names: Sequence[str]) -> Iterator[tuple[str, LoggerRow]]:
    """Gives the rows of those that are not the run's own files."""
    return ((name, LOGGERS[name]) for name in names if name in LOGGERS)


def reason(error: Exception) -> str:
    """Gives the first line of what a library says went wrong, without passwords and keys."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return without_secrets(text).rstrip(".")
