"""Rows made out of rows: the options of a question in another order, a question in another frame of words.

Only what is sure not to change the right answer is done; a row that leaves that open stays as it is. Knows no
tokenizer.

Source: that models favour places among options: Zheng et al. 2023, "Large Language Models Are Not Robust Multiple
Choice Selectors" (arXiv 2309.03882); one task in many wordings: Longpre et al. 2023, "The Flan Collection" (arXiv
2301.13688).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import factorial
from pathlib import Path

from litft.data.encode import AnyRow
from litft.data.reading.rows import Row
from litft.errors import DataError
from litft.text.conversation import ASSISTANT, USER, Conversation, Message

INSTRUCTION = "{instruction}"

# `(A) text`, `a. text`, `B: text`; and `- text` below a line that says so.
_LETTERED = re.compile(r"(?P<before>\s*\(?)(?P<label>[A-Za-z])(?P<after>[).:]+\s+)(?P<text>\S.*?)\s*")
_BULLET = re.compile(r"(?P<before>\s*[-*\u2022]\s+)(?P<text>\S.*?)\s*")
_HEADER = re.compile(r"\s*(options|choices|possible answers)\s*:\s*", re.IGNORECASE)

# Options that speak of others, or of their places.
_REFERS = re.compile(
    r"\b(above|below|both|neither|either|previous|following|all of|none of)\b|\b[A-Z] (and|or) [A-Z]\b"
)

# Words by which an answer may name a place.
_COUNTS = re.compile(r"\b(first|second|third|fourth|fifth|last|former|latter|option)\b", re.IGNORECASE)

_ANSWER = re.compile(r"(?P<before>\(?)(?P<label>[A-Za-z])(?P<after>[).:]*)(?:\s+(?P<text>\S.*?))?[.\s]*")


@dataclass(frozen=True)
class _Options:
    """Options in a text.

    Attributes:
        first: number of the line of the first of them.
        lines: how each is written, its text aside; empty behind it.
        texts: of each.
        labels: their letters; empty for bullets.
    """

    first: int
    lines: tuple[str, ...]
    texts: tuple[str, ...]
    labels: str


def augmented(rows: Iterator[AnyRow], copies: int, frames: Sequence[str], seed: int) -> Iterator[AnyRow]:
    """Gives rows in other words and, behind each, the copies of it with its options in other orders.

    Args:
        rows: all of them; ids stay as they are.
        copies, frames, seed: as `in_other_orders` and `in_other_words` take them; no frames leave the words.
    """
    for row in rows:
        if not isinstance(row, Row):
            yield row
            continue
        for number, talk in enumerate([row.conversation, *in_other_orders(row.conversation, copies, seed)]):
            framed = in_other_words(talk, frames, seed) if frames else talk
            yield replace(row, conversation=framed, is_copy=number > 0)


def in_other_orders(conversation: Conversation, copies: int, seed: int) -> list[Conversation]:
    """Gives a multiple-choice question again with its options in other orders, the letter of the answer with them.

    Args:
        conversation: one question and its answer; any other gives nothing.
        copies: how many; fewer where there are not so many orders.
        seed: the same seed and row give the same orders.

    Returns:
        Nothing where no options were found, or the answer does not name one of them, or one speaks of others ("all of
        the above").
    """
    messages = conversation.messages
    if not copies or [message.role for message in messages if message.role in (USER, ASSISTANT)] != [USER, ASSISTANT]:
        return []
    asked, answer = messages[-2:]
    field = next((name for name in ("input", "text") if _find(getattr(asked, name))), None)
    options = field and _find(getattr(asked, field))
    if not field or not options or any(_REFERS.search(text) for text in options.texts):
        return []
    right = _right(options, answer.text)
    if right is None:
        return []
    made = []
    for order in _orders(len(options.texts), copies, seed, f"{asked.text}\0{asked.input}"):
        written = _written(getattr(asked, field), options, order)
        question = replace(asked, input=written) if field == "input" else replace(asked, text=written)
        said = replace(answer, text=_answered(answer.text, options, order.index(right)))
        made.append(replace(conversation, messages=(*messages[:-2], question, said)))
    return made


def _find(text: str) -> _Options | None:
    """Finds the first two options or more that stand one below the other."""
    lines = text.split("\n")
    for first in range(len(lines)):
        found = _lettered(lines, first) or _bulleted(lines, first)
        if found:
            return found
    return None


def _lettered(lines: Sequence[str], first: int) -> _Options | None:
    """Reads options from A on, of one way to write them."""
    taken: list[re.Match[str]] = []
    for line in lines[first:]:
        match = _LETTERED.fullmatch(line)
        start = ord(taken[0]["label"]) if taken else ord("A" if match and match["label"] == "A" else "a")
        if match is None or ord(match["label"]) != start + len(taken):
            break
        taken.append(match)
    if len(taken) < 2:
        return None
    written = tuple(match["before"] + match["label"] + match["after"] for match in taken)
    return _Options(first, written, tuple(match["text"] for match in taken), "".join(match["label"] for match in taken))


def _bulleted(lines: Sequence[str], first: int) -> _Options | None:
    """Reads bullets below a line such as "Options:"."""
    if first == 0 or not _HEADER.fullmatch(lines[first - 1]):
        return None
    taken: list[re.Match[str]] = []
    for line in lines[first:]:
        match = _BULLET.fullmatch(line)
        if match is None:
            break
        taken.append(match)
    if len(taken) < 2:
        return None
    return _Options(first, tuple(match["before"] for match in taken), tuple(match["text"] for match in taken), "")


def _right(options: _Options, answer: str) -> int | None:
    """Says which option an answer names; behind bullets one that it speaks of. None where that is not sure."""
    if not options.labels:
        said = [index for index, text in enumerate(options.texts) if text.lower() in answer.lower()]
        return said[0] if said and not _COUNTS.search(answer) else None
    whole = [index for index, text in enumerate(options.texts) if _same(answer, text)]
    if len(whole) == 1:
        return whole[0]
    match = _ANSWER.fullmatch(answer.strip())
    if match is None or match["label"] not in options.labels:
        return None
    index = options.labels.index(match["label"])
    return index if match["text"] is None or _same(match["text"], options.texts[index]) else None


def _same(one: str, other: str) -> bool:
    """Says whether two texts are equal but for a full stop and capitals."""
    return one.strip().rstrip(".").lower() == other.strip().rstrip(".").lower()


def _orders(count: int, copies: int, seed: int, text: str) -> list[list[int]]:
    """Gives different orders, none of them the one that is there."""
    chance = random.Random(f"{seed} {hashlib.sha256(text.encode()).hexdigest()}")
    seen, made = {tuple(range(count))}, list[list[int]]()
    while len(made) < min(copies, factorial(count) - 1):
        order = chance.sample(range(count), count)
        if tuple(order) not in seen:
            seen.add(tuple(order))
            made.append(order)
    return made


def _written(text: str, options: _Options, order: Sequence[int]) -> str:
    """Gives a text with its options in another order; letters and bullets stay in their places."""
    lines = text.split("\n")
    for place, index in enumerate(order):
        lines[options.first + place] = options.lines[place] + options.texts[index]
    return "\n".join(lines)


def _answered(answer: str, options: _Options, place: int) -> str:
    """Gives the answer with the letter that the right option has now; one in words stays."""
    match = _ANSWER.fullmatch(answer.strip())
    if not options.labels or any(_same(answer, text) for text in options.texts) or match is None:
        return answer
    begin = answer.index(match["label"])
    return answer[:begin] + options.labels[place] + answer[begin + 1 :]


def read_paraphrases(path: Path) -> tuple[str, ...]:
    """Reads frames of words, one a line, such as `Please {instruction}`; blank lines are skipped.

    Raises:
        DataError: the file cannot be read, or a line does not say once where the instruction goes.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"Cannot read paraphrases {path}: {why}.") from error
    frames = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            if line.count(INSTRUCTION) != 1:
                raise DataError(f'{path}, line {number} must hold {INSTRUCTION} once: "{line[:60]}".')
            frames.append(line.replace("\\n", "\n"))
    if not frames:
        raise DataError(f"{path} holds no paraphrases; write one a line, such as: Please {INSTRUCTION}")
    return tuple(frames)


def in_other_words(conversation: Conversation, frames: Sequence[str], seed: int) -> Conversation:
    """Gives a conversation with its first question in one of the frames.

    Args:
        conversation: of any turns; one without a question stays as it is.
        frames: as `read_paraphrases` gives them.
        seed: the same seed and row give the same frame.
    """
    first = next((index for index, message in enumerate(conversation.messages) if message.role == USER), None)
    if first is None:
        return conversation
    asked: Message = conversation.messages[first]
    chance = random.Random(f"{seed} {hashlib.sha256(asked.text.encode()).hexdigest()}")
    framed = replace(asked, text=chance.choice(frames).replace(INSTRUCTION, asked.text))
    return replace(conversation, messages=(*conversation.messages[:first], framed, *conversation.messages[first + 1 :]))
