"""`litft judge`: two models answer the same prompts, and a third says which answers are better.

Each pair is asked in both orders, and counts only where both verdicts say the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from litft.asking.asker import Question, Remembering, Reply
from litft.asking.endpoint import Endpoint
from litft.asking.local import open_asker
from litft.checkpoint.disk import atomic_path, write_json
from litft.checkpoint.journal import Journal
from litft.config.evaluate import JUDGEMENTS_DIR, PairwiseConfig
from litft.data.html import refuse_foreign
from litft.data.listing import table_lines
from litft.data.view import Table
from litft.errors import ConfigError, DataError, GenerationError
from litft.evaluate.answers import Answers
from litft.evaluate.contest import Contestant, Prompt, open_prompts
from litft.evaluate.page import Comparison, Text, page_of
from litft.evaluate.rates import Tally, tally
from litft.evaluate.subject import Subject
from litft.evaluate.verdicts import (
    EMPTY,
    FLIP,
    TIE,
    UNANSWERED,
    UNREADABLE,
    A,
    B,
    Outcome,
    ask_text,
    outcome_of,
    read_verdict,
)

Report = Callable[[str], None]

COMMAND = "judge"
ANSWERS_FILE, REPLIES_FILE = "answers.jsonl", "replies.jsonl"
NUMBERS_FILE, PAGE_FILE = "judgement.json", "verdicts.html"

# Where so many pairs give no verdict, the judge does not do what it is asked for.
FIRST_PAIRS = 10


class Pair(NamedTuple):
    """One prompt with both answers and what became of them."""

    prompt: Prompt
    a: Reply
    b: Reply
    outcome: Outcome


class Judgement(NamedTuple):
    """All of it.

    Attributes:
        names: a, b and the judge.
        pairs: in the order of the prompts.
        tokens: of the prompts and the replies of the judge, whenever they were asked.
    """

    names: tuple[str, str, str]
    pairs: list[Pair]
    tokens: tuple[int, int]

    @property
    def counts(self) -> Tally:
        """What the pairs came to."""
        return tally([pair.outcome for pair in self.pairs])


def judge(config: PairwiseConfig, report: Report = lambda message: None) -> Iterator[str]:
    """Has a model compare the answers of two.

    Args:
        config: who answers, who judges, and the prompts.
        report: takes each message for the user.

    Returns:
        The numbers, as lines.

    Raises:
        ConfigError, CheckpointError, TokenizerError, DataError: something that is named cannot be used.
        GenerationError: the judge does not answer, or gives no verdict; what was answered by then is kept.
    """
    a, b = _contestants(config)
    prompts = open_prompts(config, (a, b))
    if not prompts:
        raise DataError("There are no prompts; name others with --data_dir or --prompt_file.")
    for each in (a, b):
        each.check(prompts)
    judging = config.judging()
    remote = Endpoint(judging, report) if judging.checkpoint_dir is None else None
    if judging.checkpoint_dir is not None:
        Subject(judging.checkpoint_dir, config.precision)  # checked now, loaded when a and b are done
    out_dir = (config.out_dir or JUDGEMENTS_DIR / f"{_slug(a)}-or-{_slug(b)}").expanduser()
    refuse_foreign(out_dir / PAGE_FILE, COMMAND, "out_dir would write")
    with Journal(out_dir / ANSWERS_FILE) as journal:
        answers = Answers(journal, config.max_new_tokens, config.slots)
        replies = [each.answer(prompts, answers) for each in (a, b)]
    asker = remote or open_asker(judging, report)
    with Journal(out_dir / REPLIES_FILE) as journal:
        remembering = Remembering(asker, journal)
        judgement = _compare(config, (a.name, b.name, asker.name), prompts, replies, remembering)
    _write(judgement, config, out_dir, report)
    report(remembering.cost())
    return iter([f"{title_of(judgement)}\n", *table_lines(counts_table(judgement))])


def _contestants(config: PairwiseConfig) -> tuple[Contestant, Contestant]:
    """Gives who answers.

    Raises:
        ConfigError: both are the same.
    """
    if config.a.expanduser().resolve() == config.b.expanduser().resolve():
        raise ConfigError(f"--a and --b are both {config.a}; name two that differ.")
    return Contestant(config.a, config.precision), Contestant(config.b, config.precision)


def _slug(contestant: Contestant) -> str:
    """Gives a name as part of a folder's."""
    return Path(contestant.name).stem if contestant.subject is None else contestant.subject.slug()


def _compare(
    config: PairwiseConfig,
    names: tuple[str, str, str],
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[Reply]],
    judge_of_pairs: Remembering,
) -> Judgement:
    """Has all pairs judged that there is something to judge of."""
    made: list[Pair] = []
    asked: dict[int, tuple[Question, Question]] = {}
    for number, (prompt, first, second) in enumerate(zip(prompts, *answers, strict=True)):
        refused = next((reply.refused for reply in (first, second) if reply.refused is not None), None)
        outcome = Outcome(UNANSWERED, note=f"a prompt was refused: {refused}")
        if refused is None and first.text.strip() == second.text.strip():
            outcome = Outcome(TIE, note="both answers are the same text")
        elif refused is None:
            texts = (ask_text(prompt.text, one, two) for one, two in _orders(first.text, second.text))
            asked[number] = tuple(Question(text, config.judge_tokens, seed=config.seed) for text in texts)  # type: ignore[assignment]
        made.append(Pair(prompt, first, second, outcome))
    numbers = list(asked)
    _judge(asked, numbers[:FIRST_PAIRS], made, judge_of_pairs, None)
    _refuse_unreadable([made[number].outcome for number in numbers[:FIRST_PAIRS]], names[2], judge_of_pairs.kept)
    tokens = _judge(asked, numbers, made, judge_of_pairs, "judging")
    return Judgement(names, made, tokens)


def _orders(first: str, second: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (first, second), (second, first)


def _judge(
    asked: dict[int, tuple[Question, Question]],
    numbers: Sequence[int],
    pairs: list[Pair],
    judge_of_pairs: Remembering,
    title: str | None,
) -> tuple[int, int]:
    """Puts the outcomes of some pairs in their places; gives tokens of prompts and of replies."""
    replies = judge_of_pairs.ask_all([question for number in numbers for question in asked[number]], title)
    for place, number in enumerate(numbers):
        straight, swapped = replies[2 * place : 2 * place + 2]
        outcome = outcome_of((read_verdict(straight, False), read_verdict(swapped, True)))
        pairs[number] = pairs[number]._replace(outcome=outcome)
    return sum(reply.prompt_tokens for reply in replies), sum(reply.reply_tokens for reply in replies)


def _refuse_unreadable(outcomes: Sequence[Outcome], name: str, kept: Path) -> None:
    """Refuses a judge whose first replies give no verdict: the others would cost as much and give none too.

    Raises:
        GenerationError: with the beginning of a reply.
    """
    verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
    if not verdicts or any(verdict.side is not None for verdict in verdicts):
        return
    advice = "let another model judge, or give it more room with --judge_tokens"
    if all(verdict.reason == EMPTY for verdict in verdicts):
        advice = (
            "all are empty: a base model without a chat template ends at once, so let a chat model judge; one that "
            "thinks first may have used up its tokens, so give it more with --judge_tokens"
        )
    raise GenerationError(
        f"None of the first {len(verdicts)} replies of {name} is a verdict ({json.dumps(verdicts[0].reason)}), "
        f'which is JSON such as {{"reason": "...", "better": "1"}}; {advice}. These replies are not asked for again as '
        f"long as {kept} holds them."
    )


def title_of(judgement: Judgement) -> str:
    """Gives the result in one sentence."""
    counts, (a, b, by) = judgement.counts, judgement.names
    if counts.rate is None or counts.interval is None:
        return f"No pair of {a} and {b} counts, by {by}."
    low, high = counts.interval
    return f"{a} wins {counts.rate:.1%} against {b} ({low:.1%} to {high:.1%} with 95% confidence), by {by}"


def counts_table(judgement: Judgement) -> Table:
    """Gives the numbers to be read."""
    counts, (a, b, _) = judgement.counts, judgement.names
    rows = [
        (f"{a} is better", counts.wins),
        (f"{b} is better", counts.losses),
        ("tie", counts.ties),
        ("order flips, not counted", counts.flips),
        ("  of these, always the first answer", counts.first),
        ("  of these, always the second answer", counts.second),
        ("  of these, a tie in one order", counts.flips - counts.first - counts.second),
        ("no readable verdict, not counted", counts.unreadable),
        ("no answer, not counted", counts.unanswered),
    ]
    note = (
        "Both orders of each pair were asked; a pair counts where both verdicts say the same, a tie as half a win. The "
        "interval is Wilson's."
    )
    return Table("Pairs", ("", "pairs"), [(name, f"{count:,}") for name, count in rows], (note,))


def _write(judgement: Judgement, config: PairwiseConfig, out_dir: Path, report: Report) -> None:
    """Writes numbers and page."""
    out_dir.mkdir(parents=True, exist_ok=True)  # journals that hold nothing take their folder with them
    write_json(out_dir / NUMBERS_FILE, to_dict(judgement, config))
    with atomic_path(out_dir / PAGE_FILE) as path:
        path.write_text(_page(judgement, config), encoding="utf-8")
    report(f"{out_dir / PAGE_FILE}: verdicts to be read; {out_dir / NUMBERS_FILE}: the same for programs")


def to_dict(judgement: Judgement, config: PairwiseConfig) -> dict[str, Any]:
    """Gives all of it as plain types: no times, so that the same replies give the same file."""
    counts, (a, b, by) = judgement.counts, judgement.names
    pairs = [
        {
            "prompt": pair.prompt.text,
            "a": pair.a.text,
            "b": pair.b.text,
            "outcome": pair.outcome.kind,
            "verdicts": [verdict._asdict() for verdict in pair.outcome.verdicts],
            "note": pair.outcome.note,
        }
        for pair in judgement.pairs
    ]
    tokens = dict(zip(("prompt_tokens", "reply_tokens"), judgement.tokens, strict=True))
    result = {**counts._asdict(), "counted": counts.counted, "rate": counts.rate, "interval": counts.interval}
    return {"a": a, "b": b, "judge": by, "seed": config.seed, **result, **tokens, "pairs": pairs}


def _page(judgement: Judgement, config: PairwiseConfig) -> str:
    """Gives the page."""
    a, b, by = judgement.names
    prompts = str(config.data_dir or config.prompt_file or "those of the answers")
    facts = [("a", a), ("b", b), ("judge", by), ("prompts", prompts), ("seed", str(config.seed))]
    facts.append(
        ("tokens of the judge", " of prompts, ".join(f"{count:,}" for count in judgement.tokens) + " of replies")
    )
    lines: list[tuple[str, ...]] = [(f"{number}", *_line(pair)) for number, pair in enumerate(judgement.pairs)]
    verdicts = Table("Verdicts", ("prompt", "outcome", "a first", "b first"), lines)
    comparisons = [_comparison(number, pair, (a, b)) for number, pair in enumerate(judgement.pairs)]
    tables = [counts_table(judgement), verdicts]
    return "".join(page_of(title_of(judgement), COMMAND, facts, tables, "Pairs side by side", comparisons))


def _line(pair: Pair) -> tuple[str, str, str]:
    """Gives what became of a pair, in short."""
    sides = [str(verdict.side or "?") for verdict in pair.outcome.verdicts] or ["-", "-"]
    return (pair.outcome.kind, sides[0], sides[1])


_SAID = {
    A: "a is better",
    B: "b is better",
    TIE: "tie",
    FLIP: "order flip, not counted",
    UNREADABLE: "no readable verdict, not counted",
    UNANSWERED: "no answer, not counted",
}


def _comparison(number: int, pair: Pair, names: tuple[str, str]) -> Comparison:
    """Gives one pair to be read."""
    kind = pair.outcome.kind
    texts = [
        Text(f"{side}: {name}{', better' if kind == side else ''}", reply.text, kind == side)
        for side, name, reply in zip((A, B), names, (pair.a, pair.b), strict=True)
    ]
    orders = zip(("a first", "b first"), pair.outcome.verdicts, strict=False)
    notes = [f"{order}: {verdict.side or 'unreadable'}. {verdict.reason}" for order, verdict in orders]
    if pair.outcome.note:
        notes.append(pair.outcome.note)
    return Comparison(f"prompt {number}: {_SAID[kind]}", pair.prompt.text, texts, notes)
