"""The words and facts that both the plain text and the instruction rows are made of. Knows no files but its own."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from importlib import resources

LARGEST_ADDEND = 10
LARGEST_NUMBER = 20
N_LIST_WORDS = 60
_SHUFFLE_SEED = 0


@dataclass(frozen=True)
class Facts:
    """What the base model is to know.

    Attributes:
        opposites: (word, opposite), each pair once; it holds in both directions.
        past_tense: (verb, its past tense).
        plurals: (noun, its plural).
        capitals: (country, capital), and continents: (country, continent), the same countries.
        kinds: (thing, the kind of thing it is).
        sums: (left + right, their sum), all numbers up to LARGEST_ADDEND in both orders.

    Each stands in an order drawn once, since the first ones are told more often (see `draw`).
    """

    opposites: tuple[tuple[str, str], ...]
    past_tense: tuple[tuple[str, str], ...]
    plurals: tuple[tuple[str, str], ...]
    capitals: tuple[tuple[str, str], ...]
    continents: tuple[tuple[str, str], ...]
    kinds: tuple[tuple[str, str], ...]
    sums: tuple[tuple[str, str], ...]

    @property
    def list_words(self) -> tuple[str, ...]:
        """Nouns that lists are made of."""
        return tuple(thing for thing, _ in self.kinds[:N_LIST_WORDS])


@cache
def load_facts() -> Facts:
    """Reads the word lists that ship beside this module."""
    capitals = _read("capitals.txt")
    numbers = range(1, LARGEST_ADDEND + 1)
    return Facts(
        opposites=_shuffled([(one, other) for one, other in _read("opposites.txt")]),
        past_tense=_shuffled([(verb, past) for verb, past in _read("past_tense.txt")]),
        plurals=_shuffled([(noun, plural) for noun, plural in _read("plurals.txt")]),
        capitals=_shuffled([(country, capital) for country, capital, _ in capitals]),
        continents=_shuffled([(country, continent) for country, _, continent in capitals]),
        kinds=_shuffled([(thing, kind) for thing, kind in _read("kinds.txt")]),
        sums=_shuffled([(f"{left} + {right}", str(left + right)) for left in numbers for right in numbers]),
    )


def _read(name: str) -> list[list[str]]:
    """Gives the words of each line of one list."""
    text = (resources.files("litft.demo") / "words" / name).read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line.strip()]


def _shuffled(pairs: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Gives the pairs in an order that has nothing to do with the alphabet or the file."""
    return tuple(random.Random(_SHUFFLE_SEED).sample(pairs, len(pairs)))
