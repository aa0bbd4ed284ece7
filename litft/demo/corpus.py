"""The plain text the base model is trained on: facts and skills in many sentence forms, never an instruction.

Each document mixes facts of all sorts, or lists facts of one sort as a table. Knows no tokenizer and no torch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources

from litft.demo.words import LARGEST_NUMBER, Facts, load_facts

N_DOCUMENTS = 24000
DOCUMENT_SIZE = 120
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
}

_SUM_SENTENCES = (
    "{a} and {b} make {c}.",
    "{a} plus {b} is {c}.",
    "{a} + {b} = {c}.",
    "The sum of {a} and {b} is {c}.",
    "The sum of {a} + {b} is {c}.",
    "When {a} and {b} are added, the result is {c}.",
    "He had {a} coins and got {b} more, in total {c}.",
)

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

_TABLE_ROWS = ("{a}\n{b}\n\n", "{a}\n\n{b}\n\n", "{a}: {b}\n", "{a} - {b}\n", "{a}:\n{b}\n\n", "### {a}\n\n{b}\n\n")

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

    Args:
        seed: decides which facts stand together in which form.
        n_documents: how many documents, of about DOCUMENT_SIZE tokens each.
    """
    chance = random.Random(seed)
    facts = load_facts()
    makers: tuple[Callable[[random.Random, Facts], str], ...] = (_paragraph, _table, _table, _notes)
    for _ in range(n_documents):
        EXPO[0] = chance.choice((1.0, BIG))
        yield chance.choice(makers)(chance, facts)


@cache
def prose_sentences() -> tuple[str, ...]:
    """Gives the hand-written sentences about words, lists and tasks."""
    text = (resources.files("litft.demo") / "words" / "prose.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def draw_pair(chance: random.Random, facts: Facts, skill: str) -> tuple[str, str]:
    """Draws what is given and what follows from it: a word and its opposite, a list and its last word.

    Args:
        chance: the source of randomness; it is advanced.
        facts: the word lists.
        skill: a key of the title table, such as `plurals` or `reverse`.
    """
    if skill == "sums":
        left, right = _draw(chance, facts.sums)
        return f"{left} + {right}", str(left + right)
    if skill == "order":
        numbers = chance.sample(range(1, LARGEST_NUMBER + 1), 3)
        return _join(numbers), _join(sorted(numbers))
    if skill in ("first", "last", "reverse"):
        words = draw_list(chance, facts)
        return ", ".join(words), {"first": words[0], "last": words[-1], "reverse": ", ".join(reversed(words))}[skill]
    one, other = _draw(chance, getattr(facts, skill))
    if skill == "opposites" and chance.random() < 0.5:
        return other, one
    return one, other


def draw_list(chance: random.Random, facts: Facts) -> list[str]:
    """Draws a list of three to five different things."""
    n = chance.choice((3, 3, 4, 4, 5))
    words: list[str] = []
    while len(words) < n:
        w = _draw(chance, facts.things)
        if w not in words:
            words.append(w)
    return words


EXPO = [1.0]
BIG = float(__import__("os").environ.get("EXPO", "3"))
PERM: dict[int, list[int]] = {}


def _draw(chance, items):
    """skewed"""
    n = len(items)
    if n not in PERM:
        PERM[n] = random.Random(n).sample(range(n), n)
    return items[PERM[n][int(n * chance.random() ** EXPO[0])]]


def _paragraph(chance: random.Random, facts: Facts) -> str:
    """Sentences about anything, one after the other."""
    return " ".join(_fill(lambda: _sentence(chance, facts)))


def _sentence(chance: random.Random, facts: Facts) -> str:
    """One sentence: a fact in one of its forms, a list, numbers, or prose."""
    draw = chance.random()
    if draw < 0.08:
        return chance.choice(prose_sentences())
    if draw < 0.20:
        return _list_sentence(chance, facts)
    if draw < 0.28:
        return _order_sentence(chance)
    if draw < 0.36:
        left, right = _draw(chance, facts.sums)
        return chance.choice(_SUM_SENTENCES).format(a=left, b=right, c=left + right)
    skill = chance.choice(tuple(_PAIR_SENTENCES))
    a, b = draw_pair(chance, facts, skill)
    return chance.choice(_PAIR_SENTENCES[skill]).format(a=a, b=b)


def _list_sentence(chance: random.Random, facts: Facts) -> str:
    """A sentence about a list of things."""
    words = draw_list(chance, facts)
    return chance.choice(_LIST_SENTENCES).format(
        words=", ".join(words), reverse=", ".join(reversed(words)), first=words[0], last=words[-1]
    )


def _order_sentence(chance: random.Random) -> str:
    """A sentence about the order of three numbers."""
    numbers = chance.sample(range(1, LARGEST_NUMBER + 1), 3)
    return chance.choice(_ORDER_SENTENCES).format(
        numbers=_join(numbers), ordered=_join(sorted(numbers)), smallest=min(numbers), largest=max(numbers)
    )


def _table(chance: random.Random, facts: Facts) -> str:
    """A title and facts of one sort below it, all in one form."""
    skill = chance.choice(tuple(_TITLES))
    row = chance.choice(_TABLE_ROWS)
    rows = _fill(lambda: _entry(row, *draw_pair(chance, facts, skill)))
    return f"{chance.choice(_TITLES[skill])}\n\n{''.join(rows)}".rstrip()


def _notes(chance: random.Random, facts: Facts) -> str:
    """Facts of all sorts, each below its own title, with prose between them."""
    row = chance.choice(_TABLE_ROWS)
    return "".join(_fill(lambda: _note(chance, facts, row))).rstrip()


def _note(chance: random.Random, facts: Facts, row: str) -> str:
    """One fact below its title, or a sentence of prose."""
    if chance.random() < 0.15:
        return chance.choice(prose_sentences()) + "\n\n"
    skill = chance.choice(tuple(_SINGLE_TITLES))
    a, b = draw_pair(chance, facts, skill)
    return _entry(row, _SINGLE_TITLES[skill].format(a=a), b)


def _entry(row: str, a: str, b: str) -> str:
    """What is given and what follows from it, in one of the forms of a table."""
    return row.format(a=a, b=b)


def _fill(make: Callable[[], str]) -> list[str]:
    """Makes parts until they hold DOCUMENT_SIZE words, signs and line ends together."""
    parts: list[str] = []
    weight = 0
    while weight < DOCUMENT_SIZE:
        parts.append(make())
        weight += len(_PIECES.findall(parts[-1]))
    return parts


def _join(numbers: list[int]) -> str:
    """The numbers with commas between them."""
    return ", ".join(map(str, numbers))
