"""Prepared rows as a measure: what each model makes of them, and its answers beside those of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from litft.asking.asker import Reply
from litft.checkpoint.disk import sha256_file
from litft.checkpoint.journal import Journal
from litft.config.evaluate import EvaluateConfig
from litft.data.view import Table
from litft.evaluate.answers import Answers
from litft.evaluate.heldout import Foreseen, measure
from litft.evaluate.matching import Match, match, summarise
from litft.evaluate.rows import AskedRow, Rows
from litft.evaluate.subject import Subject
from litft.text.encoding import stop_ids

Report = Callable[[str], None]

FORESEEN = ("model", "source", "rows", "tokens", "loss", "perplexity", "accuracy")
ANSWERED = ("model", "answers", "exact match", "ROUGE-L", "cut")


@dataclass(frozen=True)
class Compared:
    """What came out.

    Attributes:
        rows: with what was measured.
        asked: the rows that were answered.
        foreseen: of each model what it makes of all rows, and of those of each source.
        replies: of each model its answers to `asked`.
        facts: of each model what decided its numbers.
    """

    rows: Rows
    asked: list[AskedRow]
    foreseen: dict[str, dict[str | None, Foreseen]]
    replies: dict[str, list[Reply]]
    facts: list[dict[str, Any]]

    @cached_property
    def matches(self) -> dict[str, list[Match]]:
        """How near each answer of each model comes to the one of the data."""
        return {
            model: [match(reply.text, row.expected) for reply, row in zip(replies, self.asked, strict=True)]
            for model, replies in self.replies.items()
        }

    def tables(self) -> list[Table]:
        """Gives the numbers to be read."""
        lines = [
            (model, source or "all", *_cells(each))
            for model, found in self.foreseen.items()
            for source, each in found.items()
        ]
        tables = [Table(f"How well {self.rows.data.path} is foreseen", FORESEEN, lines)]
        if self.asked:
            answers = [self._answered(model) for model in self.replies]
            note = f"Greedy answers to the first {len(self.asked):,} rows that ask something."
            tables.append(Table("Answers beside those of the data", ANSWERED, answers, (note,)))
        return tables

    def _answered(self, model: str) -> tuple[str, ...]:
        """Gives the line of a model's answers."""
        found, cut = summarise(self.matches[model]), sum(not reply.is_whole for reply in self.replies[model])
        return (model, f"{found.answers:,}", f"{found.exact_match:.2%}", f"{found.rouge_l:.3f}", f"{cut:,}")

    def to_dict(self) -> dict[str, Any]:
        """Gives all of it as plain types: no times, so that the same work gives the same file."""
        models = [
            {**facts, **_foreseen_dict(found), **({"answers": self._summary(model)} if self.asked else {})}
            for facts, (model, found) in zip(self.facts, self.foreseen.items(), strict=True)
        ]
        data = self.rows.data.path
        rows = [
            {"row": row.row, "source": row.source, "question": row.question, "expected": row.expected}
            | {"answers": {model: self._reply(model, place) for model in self.replies}}
            for place, row in enumerate(self.asked)
        ]
        return {"data": str(data), "data_sha256": sha256_file(data), "models": models, "rows": rows}

    def _summary(self, model: str) -> dict[str, Any]:
        return summarise(self.matches[model])._asdict()

    def _reply(self, model: str, place: int) -> dict[str, Any]:
        """Gives one answer of a model, with how near it comes."""
        reply = self.replies[model][place]
        found = self.matches[model][place]
        return {"text": reply.text, "is_whole": reply.is_whole, "refused": reply.refused} | found._asdict()


def _cells(found: Foreseen) -> tuple[str, ...]:
    """Gives the numbers to be read."""
    counts = (f"{found.rows:,}", f"{found.tokens:,}")
    return (*counts, f"{found.loss:.4f}", f"{found.perplexity:.3f}", f"{found.accuracy:.2%}")


def _foreseen_dict(found: dict[str | None, Foreseen]) -> dict[str, Any]:
    """Gives the numbers of all rows, and those by source where there are several."""
    sources = {name: each.to_dict() for name, each in found.items() if name is not None}
    return {**found[None].to_dict(), **({"sources": sources} if sources else {})}


def compare(
    config: EvaluateConfig,
    subjects: Sequence[Subject],
    rows: Rows,
    asked: list[AskedRow],
    answers_file: Path,
    report: Report,
) -> Compared:
    """Measures each model with the same rows, one model in memory at a time.

    Args:
        config: batch sizes and how long an answer may be.
        subjects: the models.
        rows: all of them can be measured with.
        asked: those to be answered.
        answers_file: keeps every answer, so that none is written twice.
        report: told how many were there already.
    """
    foreseen: dict[str, dict[str | None, Foreseen]] = {}
    replies: dict[str, list[Reply]] = {}
    for subject in subjects:
        foreseen[subject.name] = measure(
            subject.llm.model, rows.data, rows.numbers, config.micro_batch_size, rows.longest
        )
        if asked:
            style = rows.style or subject.style
            with Journal(answers_file) as journal:
                answers = Answers(journal, config.max_new_tokens, config.slots)
                prompts = [row.prompt for row in asked]
                ends = stop_ids(subject.tokenizer, style)
                replies[subject.name] = answers.of(subject, prompts, ends, style.stop)
            if kept := len(asked) - answers.asked:
                report(f"{kept:,} of {len(asked):,} answers of {subject.name} were kept in {answers_file} and read.")
        subject.release()
    return Compared(rows, asked, foreseen, replies, [subject.facts() for subject in subjects])
