"""Which programs a run may tell its numbers beside its own files. Knows none of them, and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from litft.errors import ConfigError, did_you_mean

OWN = "csv"  # logs/metrics.csv and samples.jsonl, which every run writes


@dataclass(frozen=True)
class LoggerRow:
    """One such program.

    Attributes:
        target: `module:class` of what tells it.
        package: what must be installed, by its name in an import; the extra of litft is called as the logger is.
    """

    target: str
    package: str


LOGGERS = {
    "tensorboard": LoggerRow("litft.train.log_tensorboard:TensorBoardLogger", "tensorboard"),
    "wandb": LoggerRow("litft.train.log_wandb:WandbLogger", "wandb"),
    "mlflow": LoggerRow("litft.train.log_mlflow:MLflowLogger", "mlflow"),
}


def check_loggers(names: Sequence[str]) -> None:
    """Refuses a logger that there is not, and one that is named twice.

    Raises:
        ConfigError: naming it.
    """
    known = (OWN, *LOGGERS)
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f'logger has "{name}"; the loggers are {", ".join(known)}.{hint}')
    if len(set(names)) != len(names):
        raise ConfigError(f"logger is {list(names)}; name each once.")
