"""What `litft prepare` is told. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from litft.config.contents import ListConfig
from litft.config.fields import REQUIRED, leaf, require_at_least, require_seed
from litft.errors import ConfigError, did_you_mean

DEFAULT_LENGTH = 2048  # tokens
TRAIN_ON = ("completions", "all", "last")
# Of these, and of roles, what leaves loss on answers alone.
ANSWERS_ONLY = ("completions", "last", "assistant")
TRAINED_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What every preparation is told: a tokenizer, and what becomes of each row."""

    checkpoint_dir: Path = leaf(REQUIRED, "the converted model whose tokenizer encodes the rows")
    destination_path: Path | None = leaf(
        None, "where train.pt, test.pt and manifest.yaml go (default data/<dataset>; of a shard <dataset>-1-of-8)"
    )
    max_seq_length: int = leaf(DEFAULT_LENGTH, "longest row in tokens; at most the model's context")
    test_split_fraction: float = leaf(0.1, "share of the rows held out, at most 2,000 rows")
    seed: int = leaf(42, "decides which rows are held out")
    prompt_style: str | None = leaf(
        None, "a named style, or FILE.jinja (default: the style or chat template of the checkpoint, else alpaca)"
    )
    add_tokens: tuple[str, ...] = leaf(
        (), "texts that become new tokens, trained beside whatever the method trains: '<tool>,</tool>'", verbatim=True
    )
    train_on: str = leaf(
        "completions", "which tokens carry loss: completions, all, last (answer only), or roles: assistant,tool"
    )
    too_long: Literal["drop", "truncate_prompt", "truncate_response", "split_turns"] = leaf(
        "truncate_prompt",
        "what becomes of a row over max_seq_length: left out; the beginning of what it is about cut (then left out if "
        "that is not enough); its answer cut; or divided between turns",
    )
    origin: Literal["any", "human"] = leaf(
        "any", "human refuses answers that a model wrote, or of which nobody says who wrote them"
    )
    max_rejected_fraction: float = leaf(0.01, "share of unreadable rows above which nothing is written")
    overwrite: bool = leaf(False, "replace data prepared there before")
    score_field: str | None = leaf(
        None, "a field of each row with a number, kept as its score: to choose and order rows by in `prepare mix`"
    )
    option_orders: int = leaf(
        0, "copies of each multiple-choice row with its options in other orders, the letter of the answer with them"
    )
    paraphrases: Path | None = leaf(
        None, "a file of frames for instructions, one a line, as in Please {instruction}; each row gets one of them"
    )
    shard: str | None = leaf(
        None,
        "prepare one part of n, for `litft prepare join`: 1/8 to 8/8, where 1/8 is the rows 1, 9, 17, ...; one that is "
        "whole already is left as it is",
    )

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
        self._check_train_on()
        if not 0 <= self.max_rejected_fraction <= 1:
            raise ConfigError(f"max_rejected_fraction is {self.max_rejected_fraction}; it must be from 0 to 1.")
        require_at_least("", self, {"option_orders": 0})
        if self.shard is not None and (self.part is None or not 1 <= self.part[0] <= self.part[1]):
            raise ConfigError(f"shard is {self.shard}; it must be one of n parts, counted from 1, such as 1/8 to 8/8.")

    @property
    def part(self) -> tuple[int, int] | None:
        """The number of the shard, from 1, and how many there are; None where all rows are prepared."""
        found = re.fullmatch(r"(\d+)/(\d+)", self.shard or "")
        return (int(found[1]), int(found[2])) if found else None

    def _check_train_on(self) -> None:
        """Refuses tokens that do not exist."""
        known = (*TRAIN_ON, *TRAINED_ROLES)
        parts = self.train_on.split(",")
        wrong = next((part for part in parts if part not in (TRAINED_ROLES if len(parts) > 1 else known)), None)
        if wrong is not None:
            raise ConfigError(
                f'train_on is "{self.train_on}"; it must be {", ".join(TRAIN_ON)}, or roles among '
                f"{', '.join(TRAINED_ROLES)}.{did_you_mean(wrong, known)}"
            )
        if self.train_on == "last" and self.too_long == "split_turns":
            raise ConfigError(
                "train_on is last and too_long split_turns, which would learn a last answer in each part."
            )

    def options(self) -> dict[str, Any]:
        """Gives what only this dataset is told, for its own `read`: the fields of a config made for it alone."""
        shared = {field.name for kind in (PrepareConfig, PrepareFileConfig) for field in fields(kind)}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in shared}


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Preparation):
    """A published dataset."""

    data_file: Path | None = leaf(
        None, "a local file to read instead of the hub, or a folder where the dataset is several files"
    )
    revision: str | None = leaf(None, "branch, tag or commit of the dataset on the hub")


@dataclass(frozen=True, kw_only=True)
class PrepareFileConfig(Preparation):
    """A file of the user's own."""

    data_file: Path = leaf(REQUIRED, "the file to read, or a folder of them where the dataset is several")


@dataclass(frozen=True, kw_only=True)
class PrepareCsvConfig(PrepareFileConfig):
    """A CSV file of the user's own."""

    columns: dict[str, str] | None = leaf(
        None, "names of the columns where they differ: instruction=question,output=answer"
    )


@dataclass(frozen=True, kw_only=True)
class PrepareOasst1Config(PrepareConfig):
    """OpenAssistant's trees of messages."""

    paths: Literal["best", "all"] = leaf("best", "of each tree the best-ranked path, or every path to a last answer")
    language: tuple[str, ...] = leaf((), "codes of the languages to read: en,de (default: all)", verbatim=True)


@dataclass(frozen=True, kw_only=True)
class PrepareTasksConfig(PrepareFileConfig):
    """Task files of Natural-Instructions."""

    tasks: tuple[str, ...] = leaf((), "names of tasks, * for any part: task1146_country_capital,task006* (default all)")
    rows_per_task: int | None = leaf(None, "rows to draw of each task (default all of them)")
    examples: tuple[int, int] = leaf((0, 0), "positive and negative examples to show before each row, such as 2,0")

    def __post_init__(self) -> None:
        """Refuses counts that cannot be meant.

        Raises:
            ConfigError: naming the field and its value.
        """
        super().__post_init__()
        require_at_least("", self, {"rows_per_task": 1})
        if min(self.examples) < 0:
            raise ConfigError(f"examples is {','.join(map(str, self.examples))}; no count can be negative.")

    def options(self) -> dict[str, Any]:
        """Gives also the seed, which draws the rows."""
        return {**super().options(), "seed": self.seed}


@dataclass(frozen=True, kw_only=True)
class PrepareFlanConfig(PrepareFileConfig):
    """Files of the FLAN collection."""

    answers: Literal["chain_of_thought", "answer"] = leaf(
        "chain_of_thought", "what a row with a chain of thought teaches: the chain and the answer, or the answer alone"
    )


@dataclass(frozen=True, kw_only=True)
class PrepareJsonConfig(PrepareFileConfig):
    """JSON of the user's own, in any shape that is known."""

    format: str | None = leaf(None, "the shape of a row, such as alpaca or messages (default: told by its fields)")


@dataclass(frozen=True, kw_only=True)
class PrepareTokensConfig(PrepareFileConfig):
    """Rows that are token ids already."""

    labels: Literal["auto", "same", "next"] = leaf(
        "auto", "which token a label names: the one at its own place (same), or the one after it (next)"
    )


@dataclass(frozen=True, kw_only=True)
class PrepareListConfig(ListConfig):
    """Which datasets are shown."""


Preparations = PrepareConfig | PrepareFileConfig
