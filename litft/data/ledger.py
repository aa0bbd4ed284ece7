"""What became of every row of a preparation, and the manifest that says so. Knows no tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litft.data.encode import Example
from litft.data.reading.places import place_fields
from litft.data.reading.rows import Rejected

# Rejected rows that the manifest names one by one; their reasons are counted for all.
LISTED_REJECTED = 20

LENGTH_BINS = 20
BARS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


@dataclass
class Rejections:
    """The rows that were not used: counted by their reasons, the first of them kept.

    Attributes:
        reasons: each reason -> rows.
        left_out: the same, of those that do not count against `max_rejected_fraction`.
        first, first_faults: the first rows of all, and of those that count.
        first_of: each reason that counts -> the first row with it.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first: list[Rejected] = field(default_factory=list)
    first_faults: list[Rejected] = field(default_factory=list)
    first_of: dict[str, Rejected] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many rows there are."""
        return self.reasons.total()

    @property
    def faults(self) -> int:
        """How many of them count."""
        return len(self) - self.left_out.total()

    def add(self, row: Rejected) -> None:
        """Counts a row."""
        self.reasons[row.reason] += 1
        if row.is_fault:
            self.first_of.setdefault(row.reason, row)
        else:
            self.left_out[row.reason] += 1
        for rows in (self.first, self.first_faults) if row.is_fault else (self.first,):
            if len(rows) < LISTED_REJECTED:
                rows.append(row)


@dataclass
class Ledger:
    """The rows and tokens of one source; each row that was read ends in exactly one of the five places.

    Attributes:
        rows_read: rows of the file.
        rejected: rows that were not used, and why.
        notes: for each thing that was left out of rows, in how many.
        rows_duplicate: rows equal to an earlier one, token for token.
        rows_dropped: rows that were too long, or had nothing to learn.
        rows_kept_train, rows_kept_test: rows written.
        rows_split: rows that came of dividing longer ones, beyond one for each.
        rows_added: rows that came of changing others (option_orders); rows_copied: how many others those are.
        rows_cut: kept rows of which a part was cut; rows_cut_prompt: of these, those that kept their answers whole.
        turns_lost: answers of divided rows that fit in no part.
        prompt_tokens, target_tokens: kept tokens without and with loss; template_tokens: of those without, what the
            frame makes where loss stands on answers.
        stop_token_fraction: share of kept rows whose last token is one at which generation stops.
        prompts_not_served: answers before which a server that asks the model feeds something else than was trained.
        bos: number of BOS tokens in a row -> kept rows; empty where BOS is the end token too.
        found: how answers were found in their frame -> how many.
        turn_targets: tokens with loss of each first, second, ... answer.
        lengths: kept rows by their length, in `LENGTH_BINS` equal steps up to the longest allowed.
        first_too_long: what became of rows that were too long, "left out" or "cut" -> the first and its tokens.
    """

    rows_read: int = 0
    rejected: Rejections = field(default_factory=Rejections)
    notes: Counter[str] = field(default_factory=Counter)
    rows_duplicate: int = 0
    rows_dropped: int = 0
    rows_kept_train: int = 0
    rows_kept_test: int = 0
    rows_split: int = 0
    rows_added: int = 0
    rows_copied: int = 0
    rows_cut: int = 0
    rows_cut_prompt: int = 0
    turns_lost: int = 0
    prompt_tokens: int = 0
    template_tokens: int = 0
    target_tokens: int = 0
    stop_token_fraction: float = 0.0
    prompts_not_served: int = 0
    bos: Counter[int] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    turn_targets: Counter[int] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    first_too_long: dict[str, str] = field(default_factory=dict)

    def counts(self) -> dict[str, int | float]:
        """Gives the numbers under their names in the manifest.

        Raises:
            AssertionError: a row was lost, which is a bug of ours.
        """
        kept = self.rows_kept_train + self.rows_kept_test
        lost = len(self.rejected) + self.rows_duplicate + self.rows_dropped
        assert self.rows_read + self.rows_split + self.rows_added == lost + kept
        return {
            "rows_read": self.rows_read,
            "rows_rejected": len(self.rejected),
            "rows_duplicate": self.rows_duplicate,
            "rows_dropped": self.rows_dropped,
            "rows_kept_train": self.rows_kept_train,
            "rows_kept_test": self.rows_kept_test,
            "rows_split": self.rows_split,
            "rows_added": self.rows_added,
            "rows_cut": self.rows_cut,
            "rows_cut_prompt": self.rows_cut_prompt,
            "turns_lost": self.turns_lost,
            "prompt_tokens": self.prompt_tokens,
            "template_tokens": self.template_tokens,
            "target_tokens": self.target_tokens,
            "stop_token_fraction": round(self.stop_token_fraction, 6),
            "prompts_not_served": self.prompts_not_served,
        }

    def count(self, example: Example, bos_id: int | None) -> None:
        """Counts a row that is kept.

        Args:
            example: the row.
            bos_id: of the tokenizer; None where it has none, or BOS ends answers too.
        """
        self.template_tokens += example.template_tokens
        self.prompts_not_served += example.unserved
        self.found.update(example.found)
        for turn, count in enumerate(example.turn_targets, start=1):
            self.turn_targets[turn] += count
        if bos_id is not None:
            self.bos[example.input_ids.count(bos_id)] += 1

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types for the manifest: the numbers, why rows were rejected, and what was left out of others."""
        return {
            **self.counts(),
            "bos_per_row": dict(sorted(self.bos.items())),
            "answers_found_by": dict(self.found),
            "target_tokens_per_turn": [self.turn_targets[turn] for turn in sorted(self.turn_targets)],
            "lengths": self.lengths,
            "notes": dict(self.notes),
            "rejected_reasons": dict(self.rejected.reasons.most_common(LISTED_REJECTED)),
            "rejected": [_listed(row) for row in self.rejected.first],
        }


def bars(counts: Sequence[int]) -> str:
    """Draws numbers as bars of one character; one that is not 0 is seen."""
    highest = max(counts)
    return "".join(BARS[-(-count * (len(BARS) - 1) // highest)] for count in counts)


def _listed(row: Rejected) -> dict[str, Any]:
    """Gives one rejected row for the manifest; its file where there are several."""
    return {**({"file": row.file} if row.file else {}), **place_fields(row.line), "reason": row.reason}


@dataclass(frozen=True)
class Manifest:
    """What a preparation made.

    Attributes:
        destination: the folder.
        settings: all that decided the ids and the split, in plain types.
        sources: for each source what files it was.
        ledgers: for each source what became of its rows.
        files: for each written file its rows, tokens and sha256.
    """

    destination: Path
    settings: dict[str, Any]
    sources: dict[str, dict[str, Any]]
    ledgers: dict[str, Ledger]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types, ready for YAML."""
        sources = {name: {**values, **self.ledgers[name].to_dict()} for name, values in self.sources.items()}
        return {**self.settings, "sources": sources, "files": self.files}
