"""The instruction dataset: rows that ask for what the base model read, and held-out rows about words never asked for.

Rows have Alpaca's three keys. Knows no prompt style, no tokenizer and no torch.
"""

from __future__ import annotations

import json
import random
from importlib import resources

from litft.demo.draw import FACT_KINDS, Draw
from litft.demo.words import Facts, load_facts

Row = dict[str, str]

SEED = 20
HELD_OUT_PER_KIND = 16
DRAWN_PER_KIND = 200

INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "opposites": (
        "Give the opposite of the word.",
        "What is the opposite of this word?",
        "Write the word with the opposite meaning.",
    ),
    "plurals": (
        "Give the plural of the noun.",
        "What is the plural of this noun?",
        "Write the plural form of the word.",
    ),
    "past_tense": (
        "Give the past tense of the verb.",
        "What is the past tense of this verb?",
        "Write the past form of the verb.",
    ),
    "capitals": (
        "Give the capital of the country.",
        "What is the capital of this country?",
        "Name the capital city of the country.",
    ),
    "continents": (
        "Give the continent of the country.",
        "Which continent is this country on?",
        "Name the continent that the country lies on.",
    ),
    "kinds": (
        "Give the category of the thing.",
        "What kind of thing is this?",
        "Name the category that the word belongs to.",
    ),
    "sums": (
        "Add the two numbers.",
        "What is the sum of the numbers?",
        "Give the sum.",
    ),
    "first": (
        "Give the first item of the list.",
        "Which word comes first in this list?",
        "Write the first word of the list.",
    ),
    "last": (
        "Give the last item of the list.",
        "Which word comes last in this list?",
        "Write the last word of the list.",
    ),
    "reverse": (
        "Reverse the list.",
        "Give the list in reverse order.",
        "Write this list backwards.",
    ),
    "order": (
        "Sort the numbers from the smallest to the largest.",
        "Put these numbers in order.",
        "Write the numbers in order, the smallest first.",
    ),
}


def build_rows(seed: int = SEED) -> tuple[list[Row], list[Row]]:
    """Builds the dataset, the same one for the same seed.

    A word that a held-out row of a fact kind asks about is the input of no training row, whatever its kind; the same
    holds for held-out sums (in either order), number lists and word lists.

    Args:
        seed: decides what is held out and how each row is worded.

    Returns:
        The training rows, shuffled, and the held-out rows, HELD_OUT_PER_KIND of each kind in the order of INSTRUCTIONS.
    """
    chance = random.Random(seed)
    facts = load_facts()
    draw = Draw(chance, facts)
    held_out = {kind: _draw_held_out(draw, kind) for kind in INSTRUCTIONS}
    taken = {given for pairs in held_out.values() for given, _ in pairs}
    taken |= {answer for _, answer in held_out["opposites"]}
    train = [
        _row(chance, kind, given, answer)
        for kind in INSTRUCTIONS
        for given, answer in _training_pairs(draw, facts, kind)
        if given not in taken and _turned(given) not in taken
    ]
    chance.shuffle(train)
    return train, [_row(chance, kind, given, answer) for kind, pairs in held_out.items() for given, answer in pairs]


def kind_of(row: Row) -> str:
    """Gives the task kind of a row, a key of INSTRUCTIONS."""
    return next(kind for kind, wordings in INSTRUCTIONS.items() if row["instruction"] in wordings)


def load_rows(name: str) -> list[Row]:
    """Reads one of the two shipped files, `train` or `held_out`."""
    text = (resources.files("litft.demo") / "data" / f"{name}.json").read_text(encoding="utf-8")
    rows: list[Row] = json.loads(text)
    return rows


def rows_as_json(rows: list[Row]) -> str:
    """Gives the rows as the shipped files hold them: a JSON list, one row a line."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def _row(chance: random.Random, kind: str, given: str, answer: str) -> Row:
    """One row in a wording drawn for it."""
    return {"instruction": chance.choice(INSTRUCTIONS[kind]), "input": given, "output": answer}


def _draw_held_out(draw: Draw, kind: str) -> list[tuple[str, str]]:
    """Draws the held-out pairs of one kind, no two alike."""
    drawn: dict[str, str] = {}
    while len(drawn) < HELD_OUT_PER_KIND:
        given, answer = draw.pair(kind)
        drawn[given] = answer
    return list(drawn.items())


def _training_pairs(draw: Draw, facts: Facts, kind: str) -> list[tuple[str, str]]:
    """All facts of a kind, or a sample of what can be asked without end."""
    if kind == "opposites":
        return [pair for one, other in facts.opposites for pair in ((one, other), (other, one))]
    if kind in (*FACT_KINDS, "sums"):
        return list(getattr(facts, kind))
    return list(dict(draw.pair(kind) for _ in range(DRAWN_PER_KIND)).items())


def _turned(given: str) -> str:
    """The sum with its numbers exchanged; anything else as it is."""
    return " + ".join(reversed(given.split(" + ")))
