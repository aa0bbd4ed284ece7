"""What `litft list`, `litft copy-recipe` and `litft completion` are told. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from litft.config.fields import REQUIRED, leaf, require_at_least


@dataclass(frozen=True, kw_only=True)
class NothingConfig:
    """Nothing is told: the words of the command say all."""


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    """Which rows of a list are shown."""

    match: str | None = leaf(None, "only rows that hold this text, in upper or lower case")


@dataclass(frozen=True, kw_only=True)
class ListModelsConfig(ListConfig):
    """Which models are shown."""

    max_size: float | None = leaf(None, "only models of at most so many billions of parameters")
    min_size: float | None = leaf(None, "only models of at least so many")
    family: str | None = leaf(None, "only models of this family, such as llama")

    def __post_init__(self) -> None:
        """Refuses sizes that no model has.

        Raises:
            ConfigError: naming the field and its value.
        """
        require_at_least("", self, {"max_size": 0, "min_size": 0})


@dataclass(frozen=True, kw_only=True)
class CopyRecipeConfig:
    """Where the copy of a recipe goes."""

    path: Path = leaf(REQUIRED, "the new file, such as my_lora.py; an existing one is refused")
