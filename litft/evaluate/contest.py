"""Two that answer the same prompts: where the prompts come from, and where the answers do. Knows no judge."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litft.asking.asker import Reply
from litft.config.evaluate import PairwiseConfig
from litft.data.reading.lines import iter_json_lines, iter_prompts
from litft.data.store import PreparedData
from litft.data.texts import require_tokenizer, saved_style
from litft.errors import DataError
from litft.evaluate.answers import Answers
from litft.evaluate.rows import Rows, asked_rows, in_words, open_split
from litft.evaluate.subject import Subject
from litft.text.conversation import ASSISTANT, USER, Conversation, Message
from litft.text.encoding import encode_prompt, stop_ids
from litft.text.frames import Frames, Said

ANSWERS_SUFFIX = ".jsonl"


class Prompt:
    """One prompt.

    Attributes:
        conversation: what is asked, earlier answers included.
        text: the same to be read, by which answers in a file are found.
    """

    def __init__(self, turns: Sequence[Said]) -> None:
        """Takes what was said, the last of it by a user."""
        roles = (ASSISTANT if turn.is_answer else USER for turn in turns)
        self.conversation = Conversation(
            tuple(Message(role, turn.text) for role, turn in zip(roles, turns, strict=True))
        )
        self.text = in_words(turns)


class Contestant:
    """Who answers: a checkpoint, or a file of answers.

    Attributes:
        name: as the user wrote it.
        subject: the checkpoint; None for a file.
        given: answers by prompt, of a file.
    """

    def __init__(self, path: Path, precision: str | None) -> None:
        """Opens it, but no weights.

        Args:
            path: a checkpoint, or JSON Lines of `{"prompt", "answer"}`.
            precision: of a checkpoint.

        Raises:
            CheckpointError, TokenizerError, ConfigError, DataError: it cannot be used, with the reason.
        """
        self.name = str(path)
        is_file = path.suffix == ANSWERS_SUFFIX
        self.subject = None if is_file else Subject(path, precision)
        self.given = _read_answers(path) if is_file else {}

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Makes sure that a file answers all prompts.

        Raises:
            DataError: it does not, with the first prompt that is missing.
        """
        if self.subject is not None:
            return
        missing = [prompt.text for prompt in prompts if prompt.text.strip() not in self.given]
        if missing:
            shown = json.dumps(missing[0][:80], ensure_ascii=False)
            raise DataError(
                f"{self.name} has no answer to {len(missing):,} of {len(prompts):,} prompts, such as {shown}; its "
                '"prompt" must be the prompt word for word.'
            )

    def answer(self, prompts: Sequence[Prompt], answers: Answers) -> list[Reply]:
        """Gives an answer to each prompt.

        Args:
            prompts: which were checked.
            answers: knows those of checkpoints, and has the others written.
        """
        if self.subject is None:
            return [Reply(self.given[prompt.text.strip()]) for prompt in prompts]
        subject = self.subject
        ids = [tuple(encode_prompt(subject.tokenizer, subject.style, prompt.conversation)) for prompt in prompts]
        replies = answers.of(subject, ids, stop_ids(subject.tokenizer, subject.style), subject.style.stop)
        subject.release()
        return replies


def open_prompts(config: PairwiseConfig, contestants: Sequence[Contestant]) -> list[Prompt]:
    """Gives the prompts, each once.

    Raises:
        DataError: there are none, or they cannot be read.
        CheckpointError, TokenizerError: the tokenizer of the data cannot be used.
    """
    if config.data_dir is not None:
        prompts = _of_rows(open_split(config.data_dir, "test"), contestants)
    elif config.prompt_file is not None:
        prompts = [Prompt([Said(False, text)]) for text in _read_prompts(config.prompt_file)]
    else:
        of_file = next(each for each in contestants if each.subject is None)
        prompts = [Prompt([Said(False, text)]) for text in of_file.given]
    return list({prompt.text: prompt for prompt in prompts}.values())[: config.count]


def _of_rows(data: PreparedData, contestants: Sequence[Contestant]) -> list[Prompt]:
    """Gives what the rows of prepared data ask before their first answer with loss."""
    folder = next((each.subject.folder for each in contestants if each.subject is not None), None)
    tokenizer = require_tokenizer(data, folder)
    style = saved_style(data)
    numbers: list[int] = (data.target_counts > 0).nonzero().flatten().tolist()
    asked = asked_rows(Rows(data, numbers, style), tokenizer, len(numbers)) if numbers else []
    frames = Frames(tokenizer, style)
    return [Prompt(frames.said(row.prompt, [False] * len(row.prompt))) for row in asked]


def _read_prompts(path: Path) -> list[str]:
    """Gives the prompts of a file."""
    prompts = [_text(path, number, row, "prompt") for number, row in iter_prompts(path.expanduser())]
    if not prompts:
        raise DataError(f"prompt_file {path} holds no prompts.")
    return prompts


def _read_answers(path: Path) -> dict[str, str]:
    """Gives the answers of a file by their prompts."""
    rows = list(iter_json_lines(path.expanduser()))
    if not rows:
        raise DataError(f"{path} holds no answers.")
    return {_text(path, number, row, "prompt").strip(): _text(path, number, row, "answer") for number, row in rows}


def _text(path: Path, number: int, row: dict[str, Any], field: str) -> str:
    """Gives a text of one row.

    Raises:
        DataError: it has none, with its number.
    """
    text = row.get(field)
    if not isinstance(text, str):
        raise DataError(f'{path}, line {number} has no text "{field}"; a line is {{"prompt": "...", "answer": "..."}}.')
    return text
