"""The words and facts that both the plain text and the instruction rows are made of. Knows no torch, no files but its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

LARGEST_ADDEND = 15
LARGEST_NUMBER = 40


@dataclass(frozen=True)
class Facts:
    """What the base model is to know.

    Attributes:
        opposites: (word, opposite), each pair once; it holds in both directions.
        past_tense: (verb, its past tense).
        plurals: (noun, its plural).
        capitals: (country, capital), and continents: (country, continent), the same countries.
        kinds: (thing, the kind of thing it is).
    """

    opposites: tuple[tuple[str, str], ...]
    past_tense: tuple[tuple[str, str], ...]
    plurals: tuple[tuple[str, str], ...]
    capitals: tuple[tuple[str, str], ...]
    continents: tuple[tuple[str, str], ...]
    kinds: tuple[tuple[str, str], ...]

    @property
    def sums(self) -> tuple[tuple[int, int], ...]:
        """All ordered pairs of numbers that the demo adds."""
        numbers = range(1, LARGEST_ADDEND + 1)
        return tuple((left, right) for left in numbers for right in numbers)

    @property
    def things(self) -> tuple[str, ...]:
        """Nouns that lists are made of."""
        return tuple(dict.fromkeys([noun for noun, _ in self.plurals] + [thing for thing, _ in self.kinds]))


@cache
def load_facts() -> Facts:
    """Reads the word lists that ship beside this module."""
    capitals = _read("capitals.txt")
    return Facts(
        opposites=tuple((one, other) for one, other in _read("opposites.txt")),
        past_tense=tuple((verb, past) for verb, past in _read("past_tense.txt")),
        plurals=tuple((noun, plural) for noun, plural in _read("plurals.txt")),
        capitals=tuple((country, capital) for country, capital, _ in capitals),
        continents=tuple((country, continent) for country, _, continent in capitals),
        kinds=tuple((thing, kind) for thing, kind in _read("kinds.txt")),
    )


def _read(name: str) -> list[list[str]]:
    """Gives the words of each line of one list."""
    text = (resources.files("litft.demo") / "words" / name).read_text(encoding="utf-8")
    return [line.split() for line in text.splitlines() if line.strip()]
