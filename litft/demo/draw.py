"""Draws facts, lists and numbers. Knows neither sentences nor instructions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from litft.demo.words import LARGEST_NUMBER, Facts

FACT_KINDS = ("opposites", "plurals", "past_tense", "capitals", "continents", "kinds")
LIST_KINDS = ("first", "last", "reverse")
KINDS = (*FACT_KINDS, "sums", *LIST_KINDS, "order")

LIST_LENGTH = 3

_T = TypeVar("_T")


class Draw:
    """A source of things to tell or to ask, all from one stream of chance."""

    def __init__(self, chance: random.Random, facts: Facts, skew: float = 1.0) -> None:
        """Starts a stream.

        Args:
            chance: the source of randomness; it is advanced.
            facts: the word lists.
            skew: 1 draws all facts alike; k draws the one at share s of its list with density s^(1/k - 1) / k.
        """
        self.chance = chance
        self._facts = facts
        self._skew = skew

    def one(self, items: Sequence[_T]) -> _T:
        """Gives an item, an early one more often where the stream is skewed."""
        return items[int(len(items) * self.chance.random() ** self._skew)]

    def pair(self, kind: str) -> tuple[str, str]:
        """Gives what is given and what follows from it: a word and its opposite, a list and its last word.

        Args:
            kind: one of KINDS.
        """
        if kind == "order":
            numbers = self.numbers()
            return _join(numbers), _join(sorted(numbers))
        if kind in LIST_KINDS:
            words = self.words()
            return _join(words), {"first": words[0], "last": words[-1], "reverse": _join(words[::-1])}[kind]
        one, other = self.one(getattr(self._facts, kind))
        if kind == "opposites" and self.chance.random() < 0.5:
            return other, one
        return one, other

    def words(self) -> list[str]:
        """Gives three different words."""
        words: list[str] = []
        while len(words) < LIST_LENGTH:
            word = self.one(self._facts.list_words)
            if word not in words:
                words.append(word)
        return words

    def numbers(self) -> list[int]:
        """Gives three different numbers."""
        return self.chance.sample(range(1, LARGEST_NUMBER + 1), LIST_LENGTH)


def _join(items: Sequence[object]) -> str:
    """The items with commas between them."""
    return ", ".join(map(str, items))
