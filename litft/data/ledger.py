"""What became of every row of a preparation, and the manifest that says so. Knows no tokenizer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litft.data.reading.rows import Rejected

# Rejected rows that the manifest names one by one; their reasons are counted for all.
LISTED_REJECTED = 20


@dataclass
class Ledger:
    """The rows and tokens of one source; each row that was read ends in exactly one of the five places.

    Attributes:
        rows_read: rows of the file.
        rejected: rows that were not used, each with its line and reason.
        notes: for each thing that was left out of rows, in how many.
        rows_duplicate: rows equal to an earlier one, token for token.
        rows_dropped: rows that were too long, or had nothing to learn.
        rows_kept_train, rows_kept_test: rows written.
        rows_cut: kept rows whose answer was cut.
        prompt_tokens, target_tokens: kept tokens without and with loss.
        stop_token_fraction: share of kept rows whose last target is EOS.
    """

    rows_read: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    rows_duplicate: int = 0
    rows_dropped: int = 0
    rows_kept_train: int = 0
    rows_kept_test: int = 0
    rows_cut: int = 0
    prompt_tokens: int = 0
    target_tokens: int = 0
    stop_token_fraction: float = 0.0

    def counts(self) -> dict[str, int | float]:
        """Gives the numbers under their names in the manifest.

        Raises:
            AssertionError: a row was lost, which is a bug of ours.
        """
        kept = self.rows_kept_train + self.rows_kept_test
        assert self.rows_read == len(self.rejected) + self.rows_duplicate + self.rows_dropped + kept
        return {
            "rows_read": self.rows_read,
            "rows_rejected": len(self.rejected),
            "rows_duplicate": self.rows_duplicate,
            "rows_dropped": self.rows_dropped,
            "rows_kept_train": self.rows_kept_train,
            "rows_kept_test": self.rows_kept_test,
            "rows_cut": self.rows_cut,
            "prompt_tokens": self.prompt_tokens,
            "target_tokens": self.target_tokens,
            "stop_token_fraction": round(self.stop_token_fraction, 6),
        }

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types for the manifest: the numbers, why rows were rejected, and what was left out of others."""
        reasons = Counter(row.reason for row in self.rejected)
        listed = [_listed(row) for row in self.rejected[:LISTED_REJECTED]]
        return {
            **self.counts(),
            "notes": dict(self.notes),
            "rejected_reasons": dict(reasons.most_common(LISTED_REJECTED)),
            "rejected": listed,
        }

    def table(self) -> str:
        """Gives the numbers as lines to read, aligned."""
        cells = {
            name.replace("_", " "): f"{value:.1%}" if isinstance(value, float) else f"{value:,}"
            for name, value in self.counts().items()
        }
        wide, deep = max(map(len, cells)), max(map(len, cells.values()))
        return "\n".join(f"  {name:<{wide}}  {value:>{deep}}" for name, value in cells.items())


def _listed(row: Rejected) -> dict[str, Any]:
    """Gives one rejected row for the manifest; its file where there are several."""
    return {**({"file": row.file} if row.file else {}), "line": row.line, "reason": row.reason}


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
    files: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types, ready for YAML."""
        sources = {name: {**values, **self.ledgers[name].to_dict()} for name, values in self.sources.items()}
        return {**self.settings, "sources": sources, "files": self.files}
