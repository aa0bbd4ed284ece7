"""What `litft prepare mix` and `litft prepare join` are told. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf, require_seed, section
from litft.config.filters import FiltersConfig
from litft.errors import ConfigError, did_you_mean

Order = Literal["shuffled", "source", "length", "score", "score_descending", "given"]


def _plain_names(names: Sequence[str]) -> tuple[str, ...]:
    """Gives the names of folders as they are compared: `data/lima/` is `data/lima`."""
    return tuple(str(Path(name)) for name in names)


def _require_folders(names: Sequence[str], least: int) -> None:
    """Refuses fewer folders than that, and folders named twice."""
    if len(names) < least or len(set(names)) < len(names):
        count = "one folder or more" if least == 1 else "two folders or more"
        raise ConfigError(f"data_dirs is {', '.join(names) or 'empty'}; name {count}, each once.")


@dataclass(frozen=True, kw_only=True)
class _Folders:
    """Prepared folders, and the one that is made of them."""

    data_dirs: tuple[str, ...] = leaf(REQUIRED, "folders that `litft prepare` wrote: data/lima,data/dolly")
    destination_path: Path = leaf(REQUIRED, "where train.pt, test.pt and manifest.yaml go")
    overwrite: bool = leaf(False, "replace data prepared there before")


@dataclass(frozen=True, kw_only=True)
class JoinConfig(_Folders):
    """Prepared data that becomes one folder, every row of it."""

    def __post_init__(self) -> None:
        """Refuses folders that are not two different ones or more.

        Raises:
            ConfigError: naming them.
        """
        object.__setattr__(self, "data_dirs", _plain_names(self.data_dirs))
        _require_folders(self.data_dirs, least=2)


@dataclass(frozen=True, kw_only=True)
class MixConfig(_Folders):
    """An experiment on data: which rows of prepared folders, how many of each, and in which order."""

    checkpoint_dir: Path | None = leaf(
        None, "a model with the tokenizer of the data, for filters that read texts (default: as `litft inspect`)"
    )
    filters: FiltersConfig = section(FiltersConfig, "which training rows go, before shares are taken")
    weights: dict[str, float] | None = leaf(
        None, "share of each folder in the training rows: data/lima=2,data/dolly=1 (default: all rows of each)"
    )
    inverse_to: dict[str, float] | None = leaf(
        None, "instead of weights, a score of each folder: its share is one divided by it: data/lima=0.61,data/p3=0.32"
    )
    by: Literal["examples", "target_tokens"] = leaf("examples", "what the shares count")
    max_rows: dict[str, int] | None = leaf(None, "training rows to take of a folder at most: data/dolly=5000")
    repeats: dict[str, float] | None = leaf(None, "how often the rows of a folder may stand in the mix (default 1)")
    total: int | None = leaf(
        None, "size of the mix, in what the shares count (default: the most that keeps the shares)"
    )
    order: Order = leaf("shuffled", "of the training rows; any but shuffled is kept by --train.shuffle false")
    seed: int = leaf(42, "draws and shuffles rows")

    def __post_init__(self) -> None:
        """Refuses shares of unknown folders, and numbers that cannot be meant.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        object.__setattr__(self, "data_dirs", _plain_names(self.data_dirs))
        _require_folders(self.data_dirs, least=1)
        require_seed(self.seed)
        for name in ("weights", "inverse_to", "max_rows", "repeats"):
            self._name_plainly(name)
            self._check(name, getattr(self, name) or {})
        if self.weights is not None and self.inverse_to is not None:
            raise ConfigError("weights and inverse_to both say how large the shares are; give one of them.")
        for name in ("weights", "inverse_to"):
            named = getattr(self, name)
            if named is not None and set(named) != set(self.data_dirs):
                missing = next(folder for folder in self.data_dirs if folder not in named)
                raise ConfigError(f"{name} has no number for {missing}; give one to each folder of data_dirs.")
        if self.total is not None and (self.total < 1 or self.shares is None):
            raise ConfigError(f"total is {self.total}; it must be at least 1, and needs weights or inverse_to.")

    @property
    def shares(self) -> dict[str, float] | None:
        """The share of each folder, summing to 1; None where all rows are taken."""
        weights = self.weights
        if self.inverse_to is not None:
            weights = {name: 1 / score for name, score in self.inverse_to.items()}
        return None if weights is None else {name: weight / sum(weights.values()) for name, weight in weights.items()}

    @property
    def needs_score(self) -> bool:
        """Whether rows are chosen or ordered by their scores."""
        return self.filters.needs_score or self.order in ("score", "score_descending")

    def _name_plainly(self, name: str) -> None:
        """Calls folders as `data_dirs` does; refuses two numbers for one."""
        values = getattr(self, name)
        if values is not None:
            plain = dict(zip(_plain_names(tuple(values)), values.values(), strict=True))
            if len(plain) < len(values):
                raise ConfigError(f"{name} names a folder twice: {', '.join(values)}; name each once.")
            object.__setattr__(self, name, plain)

    def _check(self, name: str, values: Mapping[str, float]) -> None:
        """Refuses a value for a folder that is not mixed, or that is not above 0."""
        for folder, value in values.items():
            if folder not in self.data_dirs:
                hint = did_you_mean(folder, self.data_dirs)
                raise ConfigError(f"{name} names {folder}, which is none of data_dirs.{hint}")
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name} of {folder} is {value}; it must be above 0.")
