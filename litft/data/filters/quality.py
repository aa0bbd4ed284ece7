"""Filters by cheap rules for answers, each with where it comes from. A rule is one function and one row of `RULES`.

Gopher's rules were set for documents of 50 words or more: shorter answers are not judged by them, and blocks of code
are left aside. Source: Rae et al. 2021, Scaling Language Models, arXiv 2112.11446, section A.1.1 and Table A1.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial

from litft.config.filters import QUALITY_RULES, FiltersConfig
from litft.data.filters.row import Filter, Row
from litft.data.reading.faults import shown_text

FEWEST_WORDS = 50  # of what Gopher's rules judge

# Source: Table A1 of Gopher.
MOST_LINES_TWICE = 0.30
MOST_IN_TOP_RUN = {2: 0.20, 3: 0.18, 4: 0.16}
# Gopher asks for 80%, which sums, tables and numbered lists do not reach, and answers are full of them.
LEAST_WITH_LETTERS = 0.50

# An echo, or an end within a sentence, of fewer words is a fine answer: one of the choices, a phrase.
FEWEST_TO_TELL = 5

# Source: the lists with which ShareGPT was cleaned for Vicuna (`optional_clean.py` of ShareGPT_Vicuna_unfiltered), of
# which only such phrases are taken that a model says of itself. One that says its name is no refusal.
_I_AM, _CAN_NOT = (
    r"(?:i am|i[\u2019']?m)",
    r"(?:cannot|can not|can[\u2019']t|am unable to|am not able to|do not|don[\u2019']t)",
)
_MODEL = r"an? (?:large |text-based )?(?:ai|artificial intelligence|language model)\b"
_DO = r"(?:have|assist|help|fulfill|comply|provide|generate|create|complete|answer)\b"
_REFUSAL = re.compile(
    rf"\bas {_MODEL}"
    rf"|\b{_I_AM} (?:just |only )?{_MODEL}[^.!?]{{0,60}}\b(?:i |and ){_CAN_NOT}"
    rf"|\A(?:{_I_AM} )?(?:very |so )?sorry,? but i {_CAN_NOT} {_DO}"
    rf"|\Ai {_CAN_NOT} (?:assist|help|fulfill|comply)\b",
    flags=re.IGNORECASE,
)
_CODE = re.compile(r"```.*?(?:```|\Z)", flags=re.DOTALL)

# What stands for nothing in generated rows. Source: the faults listed by gururise/AlpacaDataCleaned.
_NOTHING = re.compile(
    r"[<\[(]?\s*(?:no ?(?:output|input|response|answer|comment)|n/?a|none|null|nan)\s*[>\])]?[.!]?", re.I
)

# What a sentence does not end with. Source: a mild form of C4's rule that a line ends in a mark (Raffel et al. 2020,
# arXiv 1910.10683, section 2.2), which would take lists, code and one-word answers as well.
_OPEN_END = re.compile(
    r"(?:[,(\[{]|\b(?:and|or|the|an|of|to|with|because|such as|including))\s*\Z", flags=re.IGNORECASE
)


def build(config: FiltersConfig) -> list[Filter]:
    """Gives a filter for each rule that is asked for."""
    return [Filter(f"quality.{name}", partial(_judge, RULES[name])) for name in config.rules]


def _judge(rule: Callable[[str, str], str | None], row: Row) -> str | None:
    """Says what a rule finds in one of the answers."""
    if rule is unfinished and not row.has_end:
        return "cut: it has no end token"
    return next((fault for question, answer in row.exchanges() if (fault := rule(question, answer))), None)


def _prose(answer: str) -> str:
    """Gives an answer without its blocks of code."""
    return _CODE.sub("\n", answer)


def echo(question: str, answer: str) -> str | None:
    """An answer that only says again what was asked, or its end.

    Source: Self-Instruct leaves out outputs that repeat the input (Wang et al. 2022, arXiv 2212.10560, section 2.2).
    """
    asked, answered = question.split(), answer.split()  # not folded: to mend commas and capitals is an answer
    is_echo = len(answered) >= FEWEST_TO_TELL and asked[-len(answered) :] == answered
    return "it says again what was asked" if is_echo else None


def empty(question: str, answer: str) -> str | None:
    """An answer without a letter or a digit, or one such as `N/A` and `<nooutput>`."""
    is_empty = not any(map(str.isalnum, answer)) or _NOTHING.fullmatch(answer.strip())
    return f"it is {shown_text(answer)}" if is_empty else None


def few_letters(question: str, answer: str) -> str | None:
    """A long answer in which fewer than half of the words have a letter. Source: Gopher."""
    words = _prose(answer).split()
    share = sum(any(map(str.isalpha, word)) for word in words) / max(len(words), 1)
    return (
        f"{share:.0%} of its words have a letter" if len(words) >= FEWEST_WORDS and share < LEAST_WITH_LETTERS else None
    )


def refusal(question: str, answer: str) -> str | None:
    """An answer that a model refuses, or in which it speaks of itself as one."""
    found = _REFUSAL.search(answer)
    return None if found is None else f"it says {shown_text(found[0])}"


def repeated_lines(question: str, answer: str) -> str | None:
    """A long answer of which more than 30% of the lines were there before. Source: Gopher."""
    text = _prose(answer)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    share = 1 - len(set(lines)) / max(len(lines), 1)
    is_long = len(text.split()) >= FEWEST_WORDS
    return f"{share:.0%} of its lines were there before" if is_long and share > MOST_LINES_TWICE else None


def repeated_words(question: str, answer: str) -> str | None:
    """A long answer too much of which is one run of two, three or four words. Source: Gopher."""
    words = _prose(answer).casefold().split()
    if len(words) < FEWEST_WORDS:
        return None
    letters = sum(map(len, words))
    for length, most in MOST_IN_TOP_RUN.items():
        run, times = Counter(zip(*(words[begin:] for begin in range(length)), strict=False)).most_common(1)[0]
        share = times * sum(map(len, run)) / letters
        if times > 1 and share > most:
            return f"{share:.0%} of it is {shown_text(' '.join(run))}"
    return None


def unfinished(question: str, answer: str) -> str | None:
    """An answer that was cut, breaks off within a sentence, or leaves a block of code open."""
    if answer.count("```") % 2:
        return "a block of code stays open"
    found = _OPEN_END.search(answer) if len(answer.split()) >= FEWEST_TO_TELL else None
    return None if found is None else f"it ends in {shown_text(answer.rstrip()[-20:])}"


RULES: dict[str, Callable[[str, str], str | None]] = {
    rule.__name__: rule for rule in (echo, empty, few_letters, refusal, repeated_lines, repeated_words, unfinished)
}
assert tuple(RULES) == QUALITY_RULES
