"""What `litft inspect` is told. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf, require_at_least, require_seed
from litft.config.train import TrainConfig
from litft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Prepared data, which of its rows to show, and the step of a run to show it in."""

    data_dir: Path = leaf(REQUIRED, "prepared data: train.pt, test.pt and manifest.yaml; may stand first, without --")
    checkpoint_dir: Path | None = leaf(
        None,
        "a model with the tokenizer of the data (default: the one beside the data, else its model where it was, or in "
        "checkpoints/)",
    )
    split: Literal["train", "test"] = leaf("train", "which file to look into")
    example: tuple[int, ...] = leaf((), "numbers of rows to show, from 0: 0,7")
    grep: str | None = leaf(None, "show rows whose text matches this regular expression", verbatim=True)
    longest: int | None = leaf(None, "show so many of the longest rows, of those that --grep finds if it is given")
    limit: int = leaf(3, "rows to show where neither --example nor --longest says how many")
    html: Path | None = leaf(None, "write a page that stands alone to this file, instead of text to stdout")
    step: int = leaf(0, "the optimizer step whose micro-batches are shown, from 0")
    global_batch_size: int = leaf(16, "as the run has it: examples in one step")
    micro_batch_size: int = leaf(1, "as the run has it: examples computed at once")
    max_seq_length: int | None = leaf(None, "as the run has it: rows over this many tokens are left out")
    pack: Literal["auto", "packed", "padded"] = leaf("auto", "as the run has it: rows end to end, or padded")
    shuffle: bool = leaf(True, "as the run has it: false keeps the order of train.pt")
    seed: int = leaf(1337, "as the run has it: decides the order of the rows")

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and wishes that contradict each other.

        Raises:
            ConfigError: naming the flag, its value and what it may be.
        """
        require_at_least("", self, {"longest": 1, "limit": 0, "step": 0})
        if self.example and (self.grep is not None or self.longest is not None):
            raise ConfigError("--example names rows; leave --grep and --longest away, or leave --example away.")
        if self.html is not None and self.html.is_dir():
            raise ConfigError(
                f"html is {self.html}, which is a folder; name a file, such as {self.html / 'data.html'}."
            )
        if self.html is not None and not self.html.parent.is_dir():
            raise ConfigError(f"html is {self.html}, but there is no folder {self.html.parent}; make it first.")
        require_seed(self.seed)
        self.train_config()
        self.pattern()

    def train_config(self) -> TrainConfig:
        """Gives the settings of a run that reaches the step.

        Raises:
            ConfigError: the batch sizes cannot be meant.
        """
        return TrainConfig(
            global_batch_size=self.global_batch_size,
            micro_batch_size=self.micro_batch_size,
            max_seq_length=self.max_seq_length,
            pack=self.pack,
            epochs=None,
            max_steps=self.step + 1,
        )

    def pattern(self) -> re.Pattern[str] | None:
        """Gives what rows are searched for.

        Raises:
            ConfigError: it is no regular expression.
        """
        try:
            return None if self.grep is None else re.compile(self.grep)
        except re.error as error:
            raise ConfigError(
                f'grep is "{self.grep}", which is no regular expression ({error}); put \\ before a character that '
                "stands for itself."
            ) from error
