"""The prepared rows that a checkpoint is measured with, and what some of them ask and expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from litft.config.prepare import ANSWERS_ONLY
from litft.data.batches import rows_within
from litft.data.overview import source_names
from litft.data.store import TEST_FILE, TRAIN_FILE, PreparedData, check_data_fits, find_data_dir
from litft.data.texts import saved_style
from litft.errors import DataError
from litft.evaluate.subject import Subject
from litft.text.encoding import Style
from litft.text.frames import Frames, Said
from litft.text.tokenizer import Tokenizer

Report = Callable[[str], None]


class AskedRow(NamedTuple):
    """A row as a question.

    Attributes:
        row: its number in the file.
        source: its name.
        question: what is said before the first answer with loss, without the frame.
        prompt: the ids before that answer, as they were trained.
        expected: that answer.
    """

    row: int
    source: str
    question: str
    prompt: tuple[int, ...]
    expected: str


@dataclass(frozen=True)
class Rows:
    """Rows to be measured with.

    Attributes:
        data: the prepared file.
        numbers: which of its rows: those that carry loss and that every model can read.
        style: how the rows were framed; None where the file does not say.
    """

    data: PreparedData
    numbers: list[int]
    style: Style | None

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(int(self.data.lengths[number]) for number in self.numbers)


def open_split(data_dir: Path, split: str) -> PreparedData:
    """Opens one file of prepared data.

    Raises:
        DataError: the folder is none, or has no such rows.
    """
    folder = find_data_dir(data_dir)
    name = TRAIN_FILE if split == "train" else TEST_FILE
    if not (folder / name).is_file():
        raise DataError(f"data_dir {folder} has no {name}: no row was held out; --split train measures its other rows.")
    data = PreparedData.load(folder / name)
    if not len(data):
        raise DataError(f"{data.path} holds no rows; prepare it again.")
    return data


def open_rows(data: PreparedData, subjects: Sequence[Subject], report: Report) -> Rows:
    """Gives the rows that all models can be measured with.

    Args:
        data: the prepared file.
        subjects: the models.
        report: told which rows are left out.

    Raises:
        DataError: the rows are of another tokenizer, or none can be used.
    """
    for subject in subjects:
        check_data_fits(data, subject.tokenizer, subject.folder)
    context = min(subject.config.block_size for subject in subjects)
    short = rows_within(data, context)
    numbers: list[int] = short[data.target_counts[short] > 0].tolist()
    if not numbers:
        raise DataError(f"{data.path} has no row of at most {context} tokens with an answer to be measured.")
    if len(short) < len(data):
        report(f"{len(data) - len(short):,} of {len(data):,} rows are over {context} tokens and left out.")
    if len(numbers) < len(short):
        report(f"{len(short) - len(numbers):,} rows carry no loss and are left out.")
    return Rows(data, numbers, saved_style(data))


def asked_rows(rows: Rows, tokenizer: Tokenizer, count: int) -> list[AskedRow]:
    """Gives the first so many rows that ask something, as questions.

    Args:
        rows: of the data.
        tokenizer: they were written with.
        count: how many at most.

    Raises:
        DataError: questions cannot be told from answers, or no row asks anything.
    """
    trained = rows.data.meta.get("train_on", ANSWERS_ONLY[0])
    if count and trained not in ANSWERS_ONLY:
        raise DataError(
            f'{rows.data.path} was prepared with train_on "{trained}", so its answers cannot be told from its '
            "questions; prepare it with --train_on completions, or leave --generate away."
        )
    frames, found = Frames(tokenizer, rows.style), list[AskedRow]()
    for number in rows.numbers:
        if len(found) == count:
            break
        asked = _asked(rows.data, number, frames, tokenizer)
        if asked.question:
            found.append(asked)
    if count and not found:
        raise DataError(f"No row of {rows.data.path} asks anything, so none can be answered; leave --generate away.")
    return found


def _asked(data: PreparedData, number: int, frames: Frames, tokenizer: Tokenizer) -> AskedRow:
    """Gives a row as a question; what is asked is empty where nobody asked."""
    ids, mask = (part.tolist() for part in data.row(number))
    first = mask.index(True)
    last = mask.index(False, first) if False in mask[first:] else len(mask)
    turns = frames.said(ids[:first], mask[:first])
    source = source_names(data)[int(data.source[number])]
    return AskedRow(number, source, in_words(turns), tuple(ids[:first]), tokenizer.decode(ids[first:last]))


def in_words(turns: Sequence[Said]) -> str:
    """Gives turns as a text to be read, with who says what where both do."""
    if not any(turn.is_answer for turn in turns):
        return "\n\n".join(turn.text for turn in turns)
    return "\n\n".join(f"{'Assistant' if turn.is_answer else 'User'}:\n{turn.text}" for turn in turns)
