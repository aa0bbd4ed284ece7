"""Which rows `litft prepare mix` leaves out. Knows no torch and no row.

A filter is its fields here and one function in `litft/data/filters/`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from litft.config.fields import leaf, require_at_least, section
from litft.errors import ConfigError, did_you_mean

Side = Literal["question", "answer", "whole"]
SIDES: tuple[Side, ...] = ("question", "answer", "whole")

# The rules of `litft/data/filters/quality.py`, which says what each looks at.
QUALITY_RULES = ("echo", "empty", "few_letters", "refusal", "repeated_lines", "repeated_words", "unfinished")


@dataclass(frozen=True, kw_only=True)
class PatternsConfig:
    """Regular expressions, each for one side of a row."""

    question: str | None = leaf(None, "a regular expression for all that is asked", verbatim=True)
    answer: str | None = leaf(None, "a regular expression for all answers", verbatim=True)
    whole: str | None = leaf(None, "a regular expression for questions and answers", verbatim=True)

    def patterns(self, name: str) -> dict[Side, re.Pattern[str]]:
        """Gives those that are set.

        Args:
            name: of the section, for the sentence about one that cannot be read.

        Raises:
            ConfigError: one is no regular expression.
        """
        found: dict[Side, re.Pattern[str]] = {}
        for side in SIDES:
            text = getattr(self, side)
            try:
                if text is not None:
                    found[side] = re.compile(text)
            except re.error as error:
                raise ConfigError(
                    f'{name}.{side} is "{text}", which is no regular expression ({error}); put \\ before a character '
                    "that stands for itself."
                ) from error
        return found


@dataclass(frozen=True, kw_only=True)
class NearConfig:
    """Rows that say almost the same. Compared are the sets of their runs of words."""

    threshold: float | None = leaf(
        None, "leave out rows that share this much of their runs of words with another, from above 0 to 1: 0.8"
    )
    of: Side = leaf("whole", "what is compared: question, answer or whole")
    words: int = leaf(5, "words of a run")
    num_perm: int = leaf(128, "permutations of MinHash: more find more of the pairs, and take longer")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ConfigError(f"filters.near.threshold is {self.threshold}; it must be above 0 and at most 1.")
        require_at_least("filters.near", self, {"words": 1, "num_perm": 16})


@dataclass(frozen=True, kw_only=True)
class BenchmarksConfig:
    """Texts that must not be learned, because models are measured on them."""

    files: tuple[str, ...] = leaf((), "files of benchmarks, .jsonl, .json, .csv or .txt: all texts in them count")
    words: int = leaf(13, "a row goes that shares so many words in a row with a text (GPT-3: 13)")

    def __post_init__(self) -> None:
        """Refuses runs of no words.

        Raises:
            ConfigError: naming the number.
        """
        require_at_least("filters.benchmarks", self, {"words": 1})


@dataclass(frozen=True, kw_only=True)
class FiltersConfig:
    """What leaves the training rows before shares are taken. Without a value a filter is off."""

    min_tokens: int | None = leaf(None, "shortest row in tokens")
    max_tokens: int | None = leaf(None, "longest row in tokens")
    min_target_tokens: int | None = leaf(None, "fewest tokens with loss in a row")
    max_target_tokens: int | None = leaf(None, "most tokens with loss in a row")
    min_score: float | None = leaf(None, "lowest score of a row")
    max_score: float | None = leaf(None, "highest score of a row")
    unscored: Literal["leave_out", "keep"] = leaf("leave_out", "what min_score, max_score and keep do with other rows")
    match: PatternsConfig = section(PatternsConfig, "what rows must match, or they go")
    leave_out: PatternsConfig = section(PatternsConfig, "what rows must not match")
    languages: tuple[str, ...] = leaf((), "of the answers, as ISO 639-1: en,de; short answers are not judged")
    quality: tuple[str, ...] = leaf((), f"rules for answers, or all: {','.join(QUALITY_RULES)}")
    benchmarks: BenchmarksConfig = section(BenchmarksConfig, "texts that must not be learned")
    near: NearConfig = section(NearConfig, "rows that say almost the same as others, or as held-out ones")
    keep: float | None = leaf(None, "share of what is left by the other filters that stays, the best of it: 0.3")
    keep_by: Literal["score", "lowest_score", "target_tokens"] = leaf("score", "what the best rows have most of")
    keep_of: Literal["source", "all"] = leaf("source", "the share is taken of each source, or of all rows together")

    def __post_init__(self) -> None:
        """Refuses ranges with nothing in them, unknown rules and what is no regular expression.

        Raises:
            ConfigError: naming the field and its value.
        """
        for name in ("tokens", "target_tokens", "score"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ConfigError(f"filters.min_{name} is {low}, above filters.max_{name} {high}; no row is both.")
        for rule in self.quality:
            if rule not in (*QUALITY_RULES, "all"):
                hint = did_you_mean(rule, QUALITY_RULES)
                raise ConfigError(f"filters.quality names {rule}; the rules are {', '.join(QUALITY_RULES)}.{hint}")
        if self.keep is not None and not 0 < self.keep <= 1:
            raise ConfigError(f"filters.keep is {self.keep}; it must be above 0 and at most 1.")
        self.match.patterns("filters.match")
        self.leave_out.patterns("filters.leave_out")

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules of quality that are asked for."""
        return QUALITY_RULES if "all" in self.quality else tuple(dict.fromkeys(self.quality))

    @property
    def needs_score(self) -> bool:
        """Whether rows are chosen by their scores."""
        return self._keeps_by_score or self.min_score is not None or self.max_score is not None

    @property
    def keeps_by_score_of_all(self) -> bool:
        """Whether the best of all rows stay, whatever folder they are of."""
        return self._keeps_by_score and self.keep_of == "all"

    @property
    def _keeps_by_score(self) -> bool:
        return self.keep is not None and self.keep_by != "target_tokens"
