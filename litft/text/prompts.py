"""How a conversation becomes text, and then ids: the frame of each prompt style.

Training and serving both go through `encode_turns`, so the ids a model is asked with are those it was trained on.
Knows no datasets and no masks.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from litft.config.io import dump_yaml, load_yaml
from litft.errors import ConfigError, did_you_mean
from litft.text.tokenizer import Tokenizer

STYLE_FILE = "prompt_style.yaml"


@dataclass(frozen=True)
class Turn:
    """One question and its answer; the answer is empty where the model is to give it."""

    instruction: str
    input: str = ""
    response: str = ""


@dataclass(frozen=True)
class Conversation:
    """Turns in their order, and what the model is told before them."""

    turns: tuple[Turn, ...]
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class PromptStyle:
    """The frame around an instruction. Every answer ends in the tokenizer's EOS.

    The texts hold `{instruction}` and `{input}`; all else stands as it is, and braces in a user's text stay theirs.

    Attributes:
        name: as the command line names it.
        first: the frame of the first turn; first_with_input: the same where the turn has an input.
        later, later_with_input: the frames of the turns after it.
        stop: texts at which generation ends, beside EOS.
    """

    name: str
    first: str
    first_with_input: str
    later: str
    later_with_input: str
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses frames that lose the user's text.

        Raises:
            ConfigError: a field is no text, or a frame lacks a placeholder.
        """
        for field in ("name", "first", "first_with_input", "later", "later_with_input"):
            text = getattr(self, field)
            if not isinstance(text, str):
                raise ConfigError(f"{field} of the prompt style is {text!r}; it must be text.")
            wanted = [] if field == "name" else ["{instruction}"] + ["{input}"] * field.endswith("with_input")
            for placeholder in wanted:
                if placeholder not in text:
                    raise ConfigError(f'{field} of the prompt style "{self.name}" lacks {placeholder}.')

    def prompts(self, conversation: Conversation) -> list[str]:
        """Gives the text before each answer; a system text stands before the first, with an empty line between."""
        texts = [self._prompt(turn, is_first=index == 0) for index, turn in enumerate(conversation.turns)]
        if conversation.system and texts:
            texts[0] = f"{conversation.system}\n\n{texts[0]}"
        return texts

    def _prompt(self, turn: Turn, is_first: bool) -> str:
        """Gives one turn's frame, filled in one pass so that a placeholder in a user's text stays text."""
        plain, with_input = (self.first, self.first_with_input) if is_first else (self.later, self.later_with_input)
        texts = {"{instruction}": turn.instruction, "{input}": turn.input}
        frame = with_input if turn.input.strip() else plain
        return re.sub(r"\{instruction\}|\{input\}", lambda found: texts[found[0]], frame)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types, ready for YAML; `from_dict` reads them back."""
        return {**dataclasses.asdict(self), "stop": list(self.stop)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PromptStyle:
        """Builds from plain types.

        Raises:
            ConfigError: a key is unknown, missing or not of its type.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise ConfigError(f'Unknown field "{key}" of a prompt style.{did_you_mean(str(key), known)}')
        missing = sorted(known - values.keys() - {"stop"})
        if missing:
            raise ConfigError(f"The prompt style lacks {', '.join(missing)}.")
        stop = values.get("stop") or []
        if not isinstance(stop, list | tuple) or not all(isinstance(text, str) for text in stop):
            raise ConfigError(f"stop of the prompt style is {stop!r}; it must be a list of texts.")
        return cls(**{**values, "stop": tuple(stop)})


# Source: Stanford Alpaca, `train.py: PROMPT_DICT`. The answer begins right after the colon; some projects put a newline
# there. Turns after the first are ours: the same frame without the preamble.
ALPACA = PromptStyle(
    name="alpaca",
    first=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:"
    ),
    first_with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
    ),
    later="\n\n### Instruction:\n{instruction}\n\n### Response:",
    later_with_input="\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
)

# No frame at all, for text completion.
PLAIN = PromptStyle(
    name="plain",
    first="{instruction}",
    first_with_input="{instruction}\n{input}",
    later="{instruction}",
    later_with_input="{instruction}\n{input}",
)

STYLES = {style.name: style for style in (ALPACA, PLAIN)}


def style_named(name: str) -> PromptStyle:
    """Gives a style of the table.

    Raises:
        ConfigError: no style has this name.
    """
    if name not in STYLES:
        raise ConfigError(f'No prompt style "{name}"; there are {", ".join(STYLES)}.{did_you_mean(name, STYLES)}')
    return STYLES[name]


def encode_conversations(
    tokenizer: Tokenizer, style: PromptStyle, conversations: Sequence[Conversation]
) -> list[list[tuple[list[int], list[int]]]]:
    """Gives `encode_turns` of many conversations, encoded in threads of the library.

    Raises:
        TokenizerError: the tokenizer has no EOS, or a text has half a character.
    """
    end = [tokenizer.require_eos()]
    texts = [
        (prompt, turn.response)
        for conversation in conversations
        for prompt, turn in zip(style.prompts(conversation), conversation.turns, strict=True)
    ]
    # Prompt and answer are encoded apart: joined, the pieces at the border could merge, and then the prompt that
    # generation feeds would not be the one that was trained.
    ids = iter(tokenizer.encode_batch(list(chain.from_iterable(texts))))
    encoded = [[(next(ids), next(ids) + end) for _ in conversation.turns] for conversation in conversations]
    return [_with_bos(tokenizer, turns) for turns in encoded]


def encode_turns(
    tokenizer: Tokenizer, style: PromptStyle, conversation: Conversation
) -> list[tuple[list[int], list[int]]]:
    """Gives, for each turn, the ids of its prompt and of its answer, which ends in EOS.

    BOS stands once, before the first prompt, where the model was trained with one.

    Raises:
        TokenizerError: the tokenizer has no EOS, or a text has half a character.
    """
    return encode_conversations(tokenizer, style, [conversation])[0]


def encode_prompt(tokenizer: Tokenizer, style: PromptStyle, conversation: Conversation) -> list[int]:
    """Gives the ids to generate from: all before the answer of the last turn.

    Args:
        tokenizer: of the model that answers.
        style: the one it was trained with.
        conversation: earlier turns with their answers, then the turn to answer.

    Raises:
        TokenizerError: the tokenizer has no EOS, or a text has half a character.
    """
    turns = encode_turns(tokenizer, style, conversation)
    earlier = [number for prompt, response in turns[:-1] for number in [*prompt, *response]]
    return earlier + turns[-1][0]


def _with_bos(tokenizer: Tokenizer, turns: list[tuple[list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    """Puts BOS before the first prompt where the model wants it."""
    if not tokenizer.adds_bos or not turns:
        return turns
    prompt, response = turns[0]
    return [(tokenizer.with_bos(prompt), response), *turns[1:]]


def load_prompt_style(directory: Path) -> PromptStyle:
    """Gives the style saved beside a checkpoint; Alpaca's where none was saved.

    Raises:
        ConfigError: prompt_style.yaml is there and cannot be used.
    """
    path = directory / STYLE_FILE
    if not path.is_file():
        return ALPACA
    try:
        return PromptStyle.from_dict(load_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"The prompt style {path} cannot be used: {error}") from error


def save_prompt_style(directory: Path, style: PromptStyle) -> None:
    """Writes the style beside a checkpoint, whole or not at all."""
    temporary = directory / f".{STYLE_FILE}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(dump_yaml(style.to_dict()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / STYLE_FILE)
    finally:
        temporary.unlink(missing_ok=True)
