"""What `litft prepare` is told. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf, require_seed
from litft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What every preparation is told: a tokenizer, and what becomes of each row."""

    checkpoint_dir: Path = leaf(REQUIRED, "the converted model whose tokenizer encodes the rows")
    destination_path: Path | None = leaf(None, "where train.pt, test.pt and manifest.yaml go (default data/<dataset>)")
    max_seq_length: int = leaf(2048, "longest row in tokens; capped at the model's context")
    test_split_fraction: float = leaf(0.1, "share of the rows held out, at most 2,000 rows")
    seed: int = leaf(42, "decides which rows are held out")
    prompt_style: str | None = leaf(None, "name of the prompt style (default: the checkpoint's, else alpaca)")
    add_tokens: tuple[str, ...] = leaf(
        (), "texts that become new tokens, trained beside whatever the method trains: '<tool>,</tool>'", verbatim=True
    )
    train_on: Literal["completions", "all"] = leaf("completions", "which tokens carry loss")
    too_long: Literal["drop", "truncate_response"] = leaf(
        "drop", "what becomes of a row over max_seq_length: left out, or its answer cut"
    )
    max_rejected_fraction: float = leaf(0.01, "share of unreadable rows above which nothing is written")
    overwrite: bool = leaf(False, "replace data prepared there before")

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        if self.max_seq_length < 2:
            raise ConfigError(f"max_seq_length is {self.max_seq_length}; it must be at least 2 tokens.")
        if not 0 <= self.test_split_fraction < 1:
            raise ConfigError(f"test_split_fraction is {self.test_split_fraction}; it must be from 0 to below 1.")
        require_seed(self.seed)
        if not 0 <= self.max_rejected_fraction <= 1:
            raise ConfigError(f"max_rejected_fraction is {self.max_rejected_fraction}; it must be from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Preparation):
    """A published dataset."""

    data_file: Path | None = leaf(None, "a local file to read instead of the hub")
    revision: str | None = leaf(None, "branch, tag or commit of the dataset on the hub")


@dataclass(frozen=True, kw_only=True)
class PrepareFileConfig(Preparation):
    """A file of the user's own."""

    data_file: Path = leaf(REQUIRED, "the file to read")


@dataclass(frozen=True, kw_only=True)
class PrepareCsvConfig(PrepareFileConfig):
    """A CSV file of the user's own."""

    columns: dict[str, str] | None = leaf(
        None, "names of the columns where they differ: instruction=question,output=answer"
    )
