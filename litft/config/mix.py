"""What `litft prepare mix` and `litft prepare join` are told. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf, require_seed
from litft.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """Prepared data that becomes one folder, every row of it."""

    data_dirs: tuple[str, ...] = leaf(REQUIRED, "folders that `litft prepare` wrote: data/lima,data/dolly")
    destination_path: Path = leaf(REQUIRED, "where train.pt, test.pt and manifest.yaml go")
    overwrite: bool = leaf(False, "replace data prepared there before")

    def __post_init__(self) -> None:
        """Refuses folders that are not two different ones or more.

        Raises:
            ConfigError: naming them.
        """
        if len(self.data_dirs) < 2 or len(set(self.data_dirs)) < len(self.data_dirs):
            raise ConfigError(
                f"data_dirs is {', '.join(self.data_dirs) or 'empty'}; name two folders or more, each once."
            )


@dataclass(frozen=True, kw_only=True)
class MixConfig(JoinConfig):
    """Prepared data in chosen shares."""

    weights: dict[str, float] | None = leaf(
        None, "share of each folder in the training rows: data/lima=2,data/dolly=1 (default: all rows of each)"
    )
    by: Literal["examples", "target_tokens"] = leaf("examples", "what the shares count")
    max_rows: dict[str, int] | None = leaf(None, "training rows to take of a folder at most: data/dolly=5000")
    repeats: dict[str, float] | None = leaf(None, "how often the rows of a folder may stand in the mix (default 1)")
    total: int | None = leaf(
        None, "size of the mix, in what the shares count (default: the most that keeps the shares)"
    )
    order: Literal["shuffled", "source", "length"] = leaf(
        "shuffled", "of the training rows; any but shuffled is kept by --train.shuffle false"
    )
    seed: int = leaf(42, "draws and shuffles rows")

    def __post_init__(self) -> None:
        """Refuses shares of unknown folders, and numbers that cannot be meant.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        super().__post_init__()
        require_seed(self.seed)
        for name, lowest in (("weights", 0.0), ("max_rows", 0), ("repeats", 0.0)):
            self._check(name, getattr(self, name) or {}, lowest)
        if self.weights is not None and set(self.weights) != set(self.data_dirs):
            missing = next(iter(set(self.data_dirs) - set(self.weights)))
            raise ConfigError(f"weights has no share for {missing}; give one to each folder of data_dirs.")
        if self.total is not None and (self.total < 1 or self.weights is None):
            raise ConfigError(f"total is {self.total}; it must be at least 1, and needs weights.")

    def _check(self, name: str, values: Mapping[str, float], lowest: float) -> None:
        """Refuses a value for a folder that is not mixed, or that is not above the lowest."""
        for folder, value in values.items():
            if folder not in self.data_dirs:
                hint = did_you_mean(folder, self.data_dirs)
                raise ConfigError(f"{name} names {folder}, which is none of data_dirs.{hint}")
            if value <= lowest:
                raise ConfigError(f"{name} of {folder} is {value}; it must be above {lowest:g}.")
