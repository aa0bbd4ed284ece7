"""The plain text the base model is trained on: facts and skills in many sentence forms, never an instruction.

Each document mixes facts of all sorts, or lists facts of one sort as a table. Knows no tokenizer and no torch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources

from litft.demo.draw import FACT_KINDS, KINDS, Draw
from litft.demo.words import load_facts

N_DOCUMENTS = 32000
DOCUMENT_SIZE = 120
PROSE_SHARE = 0.1
_SKEWS = (1, 1, 3, 6)
_PIECES = re.compile(r"\w+|[^\w\s]+|\n+")

_PAIR_SENTENCES = {
    "opposites": (
        "The opposite of {a} is {b}.",
        "The word {a} has the opposite {b}.",
        "The opposite of the word {a} is the word {b}.",
        "They found that {a} and {b} are opposites.",
        "Who does not say {a} may say the opposite, {b}.",
        "There is {a} on one side and its opposite {b} on the other.",
        "The meaning of {a} is opposite to that of {b}.",
    ),
    "past_tense": (
        "The past tense of {a} is {b}.",
        "The verb {a} has the past tense {b}.",
        "Today they {a}; yesterday they {b}.",
        "I {a} every day, and last week I {b} too.",
        "They {a} now as they {b} before.",
        "The past form of the verb {a} is {b}.",
        "Those who {a} today say tomorrow that they {b}.",
    ),
    "plurals": (
        "The plural of {a} is {b}.",
        "The noun {a} has the plural {b}.",
        "One {a}, two {b}.",
        "There was one {a}; now there are many {b}.",
        "More than one {a} makes several {b}.",
        "The plural form of the noun {a} is {b}.",
        "He had one {a}, and she had three {b}.",
    ),
    "capitals": (
        "The capital of {a} is {b}.",
        "The country {a} has the capital {b}.",
        "{b} is the capital of {a}.",
        "The capital city of {a} is {b}.",
        "Travelers in {a} often begin in {b}.",
        "{a} is governed from its capital city {b}.",
        "The road through {a} leads to {b}.",
    ),
    "continents": (
        "{a} lies in {b}.",
        "The continent of {a} is {b}.",
        "The country {a} is on the continent {b}.",
        "{a} is a country in {b}.",
        "Maps of {b} show {a}.",
        "The people of {a} live in {b}.",
    ),
    "kinds": (
        "The word {a} names a kind of {b}.",
        "The word {a} belongs to the category {b}.",
        "The kind of thing that {a} belongs to is {b}.",
        "Here {a} is a kind of {b}.",
        "The category of {a} is {b}.",
        "In the group {b} there is also {a}.",
    ),
    "sums": (
        "{a} = {b}.",
        "The sum of {a} is {b}.",
        "The numbers {a} make {b}.",
        "The result of {a} is {b}.",
        "He counted {a} coins, in total {b}.",
    ),
}

_LIST_SENTENCES = (
    "In the list {words} the first word is {first} and the last word is {last}.",
    "In the list {words} the last item is {last}.",
    "In the list {words} the first item is {first}.",
    "The words {words} begin with {first} and end with {last}.",
    "The list is {words}. The first in it is {first}.",
    "The list is {words}. The last in it is {last}.",
    "The list is {words}. In reverse order it is {reverse}.",
    "From front to back: {words}. From back to front: {reverse}.",
    "Written backwards, the list {words} becomes {reverse}.",
    "The reverse of {words} is {reverse}.",
)

_ORDER_SENTENCES = (
    "The numbers {numbers} in order are {ordered}.",
    "From the smallest to the largest, {numbers} becomes {ordered}.",
    "The numbers are {numbers}. Sorted they are {ordered}.",
    "The numbers are {numbers}. The smallest is {smallest} and the largest is {largest}.",
    "Of {numbers} the largest is {largest}.",
    "Of {numbers} the smallest is {smallest}.",
)

_TITLES = {
    "opposites": ("Words and their opposites", "Pairs of opposites", "Opposite meanings", "The opposite of each word"),
    "past_tense": (
        "Verbs and their past tense",
        "Verbs in the past",
        "Today and yesterday",
        "The past tense of each verb",
    ),
    "plurals": ("Nouns and their plurals", "One and many", "Plural forms", "The plural of each noun"),
    "capitals": (
        "Countries and their capitals",
        "Capital cities",
        "Capitals of the world",
        "The capital of each country",
    ),
    "continents": (
        "Countries and their continents",
        "Continents",
        "Where countries lie",
        "The continent of each country",
    ),
    "kinds": ("Things and their kinds", "Categories of things", "What belongs where", "The category of each thing"),
    "sums": ("Sums", "Numbers added together", "The sum of two numbers"),
    "first": ("Lists and their first word", "How lists begin", "The first item of each list"),
    "last": ("Lists and their last word", "How lists end", "The last item of each list"),
    "reverse": ("Lists and their reverse", "Lists in reverse order", "Backwards"),
    "order": ("Numbers in order", "Sorted numbers", "From the smallest to the largest"),
}

_TABLE_ROWS = (
    "{a}\n{b}\n\n",
    "{a}\n\n{b}\n\n",
    "{a}: {b}\n",
    "{a} - {b}\n",
    "{a}:\n{b}\n\n",
    "### {a}\n\n{b}\n\n",
    "Left:\n{a}\n\nRight:\n{b}\n\n",
    "On the left: {a}\nOn the right: {b}\n\n",
)

_SINGLE_TITLES = {
    "opposites": "The opposite of {a}",
    "past_tense": "The past tense of {a}",
    "plurals": "The plural of {a}",
    "capitals": "The capital of {a}",
    "continents": "The continent of {a}",
    "kinds": "The category of {a}",
    "sums": "The sum of {a}",
    "first": "The first item in the list {a}",
    "last": "The last item in the list {a}",
    "reverse": "The reverse of the list {a}",
    "order": "The numbers {a} in order",
}


def iter_documents(seed: int, n_documents: int = N_DOCUMENTS) -> Iterator[str]:
    """Gives the plain-text documents of the base model, the same ones for the same seed.

    Half of them tell some facts far more often than others: where all are told alike, a small model needs many times
    as long until it finds that a word decides what follows it.

    Args:
        seed: decides which facts stand together in which form.
        n_documents: how many documents, of about DOCUMENT_SIZE tokens each.

    Source: for the skew, "How do language models learn facts?", arXiv 2503.21676.
    """
    chance = random.Random(seed)
    facts = load_facts()
    makers: tuple[Callable[[Draw], str], ...] = (_paragraph, _table, _sections, _notes)
    for _ in range(n_documents):
        yield chance.choice(makers)(Draw(chance, facts, chance.choice(_SKEWS)))


@cache
def prose_sentences() -> tuple[str, ...]:
    """Gives the hand-written sentences about words, lists and tasks."""
    text = (resources.files("litft.demo") / "words" / "prose.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def _paragraph(draw: Draw) -> str:
    """Sentences about anything, one after the other."""
    return " ".join(_fill(lambda: _sentence(draw)))


def _table(draw: Draw) -> str:
    """A title and facts of one kind below it, all in one form."""
    kind = draw.chance.choice(KINDS)
    row = draw.chance.choice(_TABLE_ROWS)
    title = draw.chance.choice(_TITLES[kind])
    return f"{title}\n\n{''.join(_fill(lambda: _entry(row, *draw.pair(kind))))}".rstrip()


def _sections(draw: Draw) -> str:
    """Tables of one or two rows, of all kinds, each below its title."""
    row = draw.chance.choice(_TABLE_ROWS)
    return "\n\n".join(_fill(lambda: _section(draw, row)))


def _section(draw: Draw, row: str) -> str:
    """A title and one or two facts below it."""
    kind = draw.chance.choice(KINDS)
    rows = (_entry(row, *draw.pair(kind)) for _ in range(draw.chance.choice((1, 1, 2))))
    return f"{draw.chance.choice(_TITLES[kind])}\n\n{''.join(rows)}".rstrip()


def _notes(draw: Draw) -> str:
    """Facts of all kinds, each below its own title, with prose between them."""
    row = draw.chance.choice(_TABLE_ROWS)
    return "".join(_fill(lambda: _note(draw, row))).rstrip()


def _sentence(draw: Draw) -> str:
    """One sentence: a fact in one of its forms, a list, numbers, or prose."""
    if draw.chance.random() < PROSE_SHARE:
        return draw.chance.choice(prose_sentences())
    kind = draw.chance.choice((*FACT_KINDS, "sums", "lists", "order"))
    if kind == "lists":
        return _list_sentence(draw)
    if kind == "order":
        return _order_sentence(draw)
    a, b = draw.pair(kind)
    return draw.chance.choice(_PAIR_SENTENCES[kind]).format(a=a, b=b)


def _list_sentence(draw: Draw) -> str:
    """A sentence about a list of things."""
    words = draw.words()
    return draw.chance.choice(_LIST_SENTENCES).format(
        words=", ".join(words), reverse=", ".join(reversed(words)), first=words[0], last=words[-1]
    )


def _order_sentence(draw: Draw) -> str:
    """A sentence about the order of three numbers."""
    numbers = draw.numbers()
    shown, ordered = (", ".join(map(str, listed)) for listed in (numbers, sorted(numbers)))
    return draw.chance.choice(_ORDER_SENTENCES).format(
        numbers=shown, ordered=ordered, smallest=min(numbers), largest=max(numbers)
    )


def _note(draw: Draw, row: str) -> str:
    """One fact below its title, or a sentence of prose."""
    if draw.chance.random() < PROSE_SHARE:
        return draw.chance.choice(prose_sentences()) + "\n\n"
    kind = draw.chance.choice(KINDS)
    a, b = draw.pair(kind)
    return _entry(row, _SINGLE_TITLES[kind].format(a=a), b)


def _entry(row: str, a: str, b: str) -> str:
    """What is given and what follows from it, in one of the forms of a table."""
    return row.format(a=a, b=b)


def _fill(make: Callable[[], str]) -> list[str]:
    """Makes parts until they hold DOCUMENT_SIZE words, signs and line ends together."""
    parts: list[str] = []
    size = 0
    while size < DOCUMENT_SIZE:
        parts.append(make())
        size += len(_PIECES.findall(parts[-1]))
    return parts
