"""The filters of a mix, applied: to each row by itself, then to rows near to others, then for the best of the rest."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from litft.config.filters import FiltersConfig
from litft.data.filters.bounds import NO_SCORE
from litft.data.filters.near import NOT_COMPARED, Runs, compared_runs, find_near
from litft.data.filters.row import Filter, RowReader
from litft.data.mixing.equal import shown_row
from litft.data.mixing.parts import Rows
from litft.data.mixing.removed import Removed
from litft.data.mixing.scores import is_one_kind
from litft.data.store import TEST_FILE
from litft.terminal.bars import tracked
from litft.text.tokenizer import Tokenizer

NEAR, KEEP = "near", "keep"


class Sieve:
    """Leaves rows out, and reads the text of each but once."""

    def __init__(
        self, config: FiltersConfig, filters: Sequence[Filter], tokenizer: Tokenizer | None, removed: Removed
    ) -> None:
        """Begins.

        Args:
            config: what leaves.
            filters: those that judge a row by itself, as the config asks for them.
            tokenizer: of the rows; None where no text is read.
            removed: takes what leaves.
        """
        self._config, self._filters, self._tokenizer, self._removed = config, filters, tokenizer, removed
        self._compares = config.near.threshold is not None
        self._runs: dict[tuple[str, str, int], Runs] = {}
        self._notes: Counter[str] = Counter()

    def judge(self, rows: Rows) -> Rows:
        """Leaves out what a filter speaks against; the first one counts. Held-out rows are not judged by all of them.

        Args:
            rows: of one file.
        """
        judging = [each for each in self._filters if each.for_held_out or rows.file != TEST_FILE]
        if not judging and not self._compares:
            return rows
        reader = RowReader(rows.data, self._tokenizer)
        taken: dict[str, dict[int, str]] = {each.name: {} for each in judging}
        numbers = tracked(rows.numbers.tolist(), f"reading {rows.part.name}", "rows", stays=False)
        for number in numbers:
            row = reader.row(number)
            found = ((each.name, detail) for each in judging if (detail := each.judge(row)) is not None)
            name, detail = next(found, ("", ""))
            if name:
                taken[name][number] = detail
            elif self._compares:
                runs = compared_runs(row.side(self._config.near.of), self._config.near.words)
                self._runs[rows.part.name, rows.file, number] = runs
                self._notes[NOT_COMPARED] += not len(runs)
        for name, details in taken.items():
            rows = self._removed.take(rows, name, details)
        return rows

    def leave_near(self, rows: Sequence[Rows], held_out: Sequence[Rows]) -> list[Rows]:
        """Leaves out training rows that are near to others, or to held-out ones, if that is asked for.

        Of near rows that with the best score stays; without scores, or with scores of several kinds, the first.

        Args:
            rows: training rows of each part, judged before.
            held_out: rows that stay whatever they are near to, judged before.
        """
        if not self._compares:
            return list(rows)
        places = [(there, number) for there in (*held_out, *rows) for number in there.numbers.tolist()]
        first = sum(map(len, held_out))
        texts = [self._runs[there.part.name, there.file, number] for there, number in places]
        scores = torch.cat([there.scores for there in rows]) if is_one_kind(rows) else torch.zeros(len(places) - first)
        order = (first + (-scores).argsort(stable=True)).tolist()
        details: dict[str, dict[int, str]] = defaultdict(dict)
        for index, near in sorted(find_near(self._config.near, texts, first, order).items()):
            there, number = places[index]
            details[there.part.name][number] = f"{near.overlap:.2f} near to {shown_row(*places[near.place])}"
        return [self._removed.take(there, NEAR, details[there.part.name]) for there in rows]

    def keep_best(self, rows: Sequence[Rows]) -> list[Rows]:
        """Keeps a share of the rows, the best of each source or of all, if that is asked for; at least one of each.

        Args:
            rows: training rows of each part.
        """
        config = self._config
        if config.keep is None:
            return list(rows)
        groups: dict[object, list[tuple[float, int, int]]] = defaultdict(list)
        details: list[dict[int, str]] = [{} for _ in rows]
        for part, there in enumerate(rows):
            values = _values(config, there).tolist()
            for number, value, source in zip(there.numbers.tolist(), values, there.source_names, strict=True):
                if not math.isnan(value):
                    groups[(part, source) if config.keep_of == "source" else "all"].append((-value, part, number))
                elif config.unscored == "leave_out":
                    details[part][number] = NO_SCORE
        for group in groups.values():
            best = max(1, round(config.keep * len(group)))
            for place, (value, part, number) in enumerate(sorted(group)[best:], start=best + 1):
                details[part][number] = f"{abs(value):.6g}, number {place} of {len(group)}; {best} stay"
        return [
            self._removed.take(there, KEEP, dict(sorted(gone.items())))
            for there, gone in zip(rows, details, strict=True)
        ]

    def notes(self) -> dict[str, int]:
        """Gives what the filters and this have to tell beside what they took, and of how many rows."""
        notes: Counter[str] = Counter()
        for each in self._filters:
            notes.update({f"{each.name}: {note}": count for note, count in each.notes.items()})
        return {**notes, **+self._notes}


def _values(config: FiltersConfig, rows: Rows) -> Tensor:
    """Gives what the best rows have most of, (n,) float64; NaN where it is not known."""
    if config.keep_by == "target_tokens":
        return rows.target_counts.double()
    return rows.scores.double() * (-1 if config.keep_by == "lowest_score" else 1)
