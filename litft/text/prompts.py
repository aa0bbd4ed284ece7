"""How a conversation becomes text, and then ids: the frame of each prompt style.

Training and serving both go through `encode_turns`, so the ids a model is asked with are those it was trained on.
Knows no datasets and no masks.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litft.errors import ConfigError, TokenizerError, did_you_mean
from litft.text.tokenizer import Tokenizer


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
    """The frame around a conversation.

    The frames hold `{instruction}` and `{input}`, the first also `{system}` if it stands elsewhere than before it; all
    else stands as it is, and braces in a user's text stay theirs. Special tokens written in a frame are tokens, those
    that a person writes are plain characters.

    Attributes:
        name: as the command line names it.
        first: the frame of the first turn; first_with_input: the same where the turn has an input.
        later, later_with_input: the frames of the turns after it.
        system: the frame of a system text, which holds `{system}`; default_system: the text where none is given.
        answer: the frame of an answer, which holds `{response}`; all of it is learned.
        end: the special token that ends an answer; empty for the tokenizer's EOS.
        after: what stands between that token and the next turn; not learned.
        bos_each_turn: BOS stands before every turn, not before the first alone.
        stop: texts at which generation ends, beside the end token.
    """

    name: str
    first: str
    first_with_input: str
    later: str
    later_with_input: str
    system: str = "{system}\n\n"
    default_system: str = ""
    answer: str = "{response}"
    end: str = ""
    after: str = ""
    bos_each_turn: bool = False
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses frames that lose the user's text.

        Raises:
            ConfigError: a field is no text, or a frame lacks a placeholder.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "str" and not isinstance(value, str):
                raise ConfigError(f"{field.name} of the prompt style is {value!r}; it must be text.")
        for name, placeholders in _PLACEHOLDERS.items():
            for placeholder in placeholders:
                if placeholder not in getattr(self, name):
                    raise ConfigError(f'{name} of the prompt style "{self.name}" lacks {placeholder}.')

    def prompts(self, conversation: Conversation) -> list[str]:
        """Gives the text before each answer, without BOS; what stands after an answer is the beginning of the next."""
        return ["".join(piece for piece, _ in segments) for segments in self.prompt_segments(conversation)]

    def prompt_segments(self, conversation: Conversation) -> list[list[tuple[str, bool]]]:
        """Gives the text before each answer in pieces, and whether each is of the frame."""
        system = conversation.system or self.default_system
        return [self._prompt(turn, system, is_first=index == 0) for index, turn in enumerate(conversation.turns)]

    def answer_segments(self, turn: Turn) -> list[tuple[str, bool]]:
        """Gives an answer in pieces, its end token left out, and whether each is of the frame."""
        return fill(self.answer, {"{response}": [(turn.response, False)]})

    def _prompt(self, turn: Turn, system: str, is_first: bool) -> list[tuple[str, bool]]:
        """Gives one turn's frame, filled in one pass so that a placeholder in a user's text stays text."""
        plain, with_input = (self.first, self.first_with_input) if is_first else (self.later, self.later_with_input)
        frame = with_input if turn.input.strip() else plain
        framed_system = fill(self.system, {"{system}": [(system, False)]}) if system else []
        texts = {"{instruction}": [(turn.instruction, False)], "{input}": [(turn.input, False)]}
        if not is_first:
            return [(self.after, True), *fill(frame, texts)]
        if SYSTEM not in frame:
            return framed_system + fill(frame, texts)
        return fill(frame, {**texts, SYSTEM: framed_system})

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
        needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
        missing = sorted(needed - values.keys())
        if missing:
            raise ConfigError(f"The prompt style lacks {', '.join(missing)}.")
        stop = values.get("stop") or []
        if not isinstance(stop, list | tuple) or not all(isinstance(text, str) for text in stop):
            raise ConfigError(f"stop of the prompt style is {stop!r}; it must be a list of texts.")
        return cls(**{**values, "stop": tuple(stop)})


SYSTEM = "{system}"
_PLACEHOLDERS = {
    "first": ("{instruction}",),
    "first_with_input": ("{instruction}", "{input}"),
    "later": ("{instruction}",),
    "later_with_input": ("{instruction}", "{input}"),
    "system": (SYSTEM,),
    "answer": ("{response}",),
}


def fill(frame: str, values: Mapping[str, list[tuple[str, bool]]]) -> list[tuple[str, bool]]:
    """Puts pieces in the places of a frame.

    Args:
        frame: text with placeholders such as `{instruction}`.
        values: placeholder -> pieces, and whether each is of the frame.

    Returns:
        The whole text in pieces.
    """
    parts = re.split("(" + "|".join(map(re.escape, values)) + ")", frame)
    return [piece for part in parts if part for piece in values.get(part, [(part, True)])]


def encode_conversations(
    tokenizer: Tokenizer, style: PromptStyle, conversations: Sequence[Conversation]
) -> list[list[tuple[list[int], list[int]]]]:
    """Gives `encode_turns` of many conversations, encoded in threads of the library.

    Raises:
        TokenizerError: the tokenizer lacks the end token, or a text has half a character.
    """
    end = [end_id(tokenizer, style)]
    texts = [
        segments
        for conversation in conversations
        for prompt, turn in zip(style.prompt_segments(conversation), conversation.turns, strict=True)
        for segments in (prompt, style.answer_segments(turn))
    ]
    # Prompt and answer are encoded apart: joined, the pieces at the border could merge, and then the prompt that
    # generation feeds would not be the one that was trained.
    ids = iter(tokenizer.encode_framed(texts))
    encoded = [[(next(ids), next(ids) + end) for _ in conversation.turns] for conversation in conversations]
    return [_with_bos(tokenizer, style, turns) for turns in encoded]


def end_id(tokenizer: Tokenizer, style: PromptStyle) -> int:
    """Gives the id that ends an answer.

    Raises:
        TokenizerError: the tokenizer has no such token.
    """
    if not style.end:
        return tokenizer.require_eos()
    found = tokenizer.id_of(style.end)
    if found is None:
        raise TokenizerError(
            f'The prompt style "{style.name}" ends answers with {style.end}, which is no token of this tokenizer; '
            "choose another --prompt_style."
        )
    return found


def stop_ids(tokenizer: Tokenizer, style: PromptStyle | None) -> list[int]:
    """Gives every id at which an answer ends, that of the style first: also stop texts that are one special token."""
    if style is None:
        return sorted(tokenizer.stop_ids, key=lambda number: (number != tokenizer.eos_id, number))
    texts = [tokenizer.encode(text, bos=False) for text in style.stop]
    single = {ids[0] for ids in texts if len(ids) == 1}
    end = tokenizer.id_of(style.end) if style.end else tokenizer.eos_id
    known = {*tokenizer.stop_ids, *single, *([end] if end is not None else [])}
    return sorted(known, key=lambda number: (number != end, number))


def encode_turns(
    tokenizer: Tokenizer, style: PromptStyle, conversation: Conversation
) -> list[tuple[list[int], list[int]]]:
    """Gives, for each turn, the ids of its prompt and of its answer, which ends in the end token.

    BOS stands once, before the first prompt, or before each where the style says so, if the model was trained with one.

    Raises:
        TokenizerError: the tokenizer lacks the end token, or a text has half a character.
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


def _with_bos(
    tokenizer: Tokenizer, style: PromptStyle, turns: list[tuple[list[int], list[int]]]
) -> list[tuple[list[int], list[int]]]:
    """Puts BOS where the model wants it."""
    if not tokenizer.adds_bos or not turns:
        return turns
    count = len(turns) if style.bos_each_turn else 1
    return [(tokenizer.with_bos(prompt), response) for prompt, response in turns[:count]] + turns[count:]
