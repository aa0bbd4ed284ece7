"""A chat template in Jinja as a style: the one a checkpoint carries, or a file of the user's. Knows no folders.

A template renders whole conversations. Where an answer begins in that text is told by the template's own `generation`
tags; else by the text that it gives for all before the answer with `add_generation_prompt`, which is what a server
feeds; else by the answer's own words. It ends at the first token at which generation stops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, ClassVar

from jinja2 import TemplateSyntaxError

from litft.errors import ConfigError
from litft.text.backends import special_pattern
from litft.text.conversation import (
    ASSISTANT,
    Conversation,
    Exchange,
    Message,
    Piece,
    StyleError,
    bare_exchange,
    dialogue,
)
from litft.text.sandbox import BEGIN, END, FAULTS, render
from litft.text.tokenizer import Tokenizer
from litft.text.work import TooMuchError

# Two more of Unicode's noncharacters: around the number of a special token that a person wrote out, which is to stay
# ordinary characters.
_OPEN, _CLOSE = "\ufdd2", "\ufdd3"
_MARKS = re.compile(f"[{BEGIN}{END}{_OPEN}{_CLOSE}]")
_WRITTEN = re.compile(f"{_OPEN}(\\d+){_CLOSE}")
_UNKNOWN = -1  # a message's words, at a place where they were not looked for

_SAID = 300  # characters of what a template says of a conversation
_PROBE = dialogue("Quenu", "Rilto", "Sagha", "Tovbe")


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the tokens that it writes.

    Attributes:
        name: for people.
        template: its Jinja source.
        bos_token, eos_token: texts that it may ask for; empty where the model has none.
        end: text of the special token that ends an answer; empty where the template writes none: then a model can be
            asked so and not trained.
        ends: texts of all tokens at which generation stops, `end` first.
        specials: texts of the tokenizer's special tokens; where a person writes one it stays ordinary characters.
    """

    name: str
    template: str
    bos_token: str
    eos_token: str
    end: str
    ends: tuple[str, ...]
    specials: tuple[str, ...]
    stop: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, name: str, template: str, tokenizer: Tokenizer) -> ChatTemplate:
        """Tries a template on two plain questions.

        Args:
            name: how messages call it.
            template: its source.
            tokenizer: of the model that is to be asked so.

        Raises:
            ConfigError: it is no template, cannot frame plain questions, or writes BOS twice.
        """
        numbers = (tokenizer.bos_id, tokenizer.eos_id)
        bos, eos = ("" if number is None else tokenizer.token_text(number) for number in numbers)
        stops = [tokenizer.token_text(number) for number in sorted(tokenizer.stop_ids)]
        bare = cls(name, template, bos, eos, "", (), ())
        try:
            text = bare._probe()
            end = bare._probe_end(text, tokenizer.specials)
            ends = tuple(dict.fromkeys((end, *stops) if end else stops))
            made = cls(name, template, bos, eos, end, ends, tuple(dict.fromkeys((*ends, *tokenizer.specials))))
            if end:
                made.exchanges(_PROBE)
        except TemplateSyntaxError as error:
            raise ConfigError(f"{name} is no Jinja template: line {error.lineno}: {error.message}.") from error
        except StyleError as error:
            raise ConfigError(f"{name} cannot frame two plain questions and answers: {error}.") from error
        return made

    def exchanges(self, conversation: Conversation) -> list[Exchange]:
        """Gives each answer and what stands before it; the last one open where the conversation ends with a question.

        Raises:
            StyleError: the template refuses the conversation, or leaves an answer or its end out.
        """
        if conversation.is_document:
            return [bare_exchange(conversation)]
        self._refuse_marks(conversation)
        is_open = conversation.messages[-1].role != ASSISTANT
        text, tagged = _without_tags(self._render(conversation, ask=is_open))
        if not self.end:
            return [self._endless(conversation, text)]
        is_plain = not conversation.tools and not any(message.fields for message in conversation.messages)
        roles = tuple(message.role for message in conversation.messages)
        return (is_plain and self._filled(conversation, roles, text)) or self._split(conversation, text, tagged)

    def _filled(self, conversation: Conversation, roles: tuple[str, ...], text: str) -> list[Exchange]:
        """Gives the exchanges of plain messages with this conversation's texts in their places.

        Most templates write the same around every text. Where this one does not, nothing is given.
        """
        exchanges, rest = _plain_exchanges(self, roles)
        wholes = [message.whole_text for message in conversation.messages]
        for texts in (wholes, [whole.strip() for whole in wholes]):
            filled = [_with_texts(exchange, texts) for exchange in exchanges]
            if "".join(map(_text_of, filled)) + rest == _restore(text, self.specials):
                return filled
        return []

    def _split(self, conversation: Conversation, text: str, tagged: Sequence[int]) -> list[Exchange]:
        """Finds answers and texts in what the template made of any conversation."""
        answers = conversation.answers
        tags = tagged if len(tagged) == len(answers) else [None] * len(answers)
        made, place, first = [], 0, 0
        for number, tag in zip(answers, tags, strict=True):
            begin, found, is_served = self._begin(conversation, number, text, place, tag)
            end = special_pattern(dict.fromkeys(self.ends, 0)).search(text, begin)
            if end is None:
                raise StyleError(f"the template writes no stop token behind message {number + 1}")
            prompt = self._pieces(text[place:begin], conversation, range(first, number))
            answer = self._pieces(text[begin : end.start()], conversation, range(number, number + 1))
            told = answer or (Piece("", number),)
            made.append(Exchange(prompt, told, number, end[0], found=found, is_served=is_served))
            place, first = end.end(), number + 1
        if conversation.messages[-1].role != ASSISTANT:
            rest = self._pieces(text[place:], conversation, range(first, len(conversation.messages)))
            made.append(Exchange(rest, (), len(conversation.messages)))
        return made

    def _endless(self, conversation: Conversation, text: str) -> Exchange:
        """Gives a whole conversation as one prompt."""
        if conversation.messages[-1].role == ASSISTANT:
            raise StyleError(
                "the template writes no special token behind an answer, so no answer could end; put "
                "{{ eos_token }} there"
            )
        count = len(conversation.messages)
        return Exchange(self._pieces(text, conversation, range(count)), (), count)

    def _begin(
        self, conversation: Conversation, number: int, text: str, place: int, tag: int | None
    ) -> tuple[int, str, bool]:
        """Gives where an answer begins, how that was found, and whether a server feeds just what stands before it."""
        fed, _ = _without_tags(self._render(conversation.until(number), ask=True))
        is_prefix = text.startswith(fed) and len(fed) >= place
        if tag is not None:
            # What a server feeds is never learned, though some templates have it in their tags.
            return (
                (len(fed), "generation tags", True)
                if is_prefix and tag <= len(fed)
                else (tag, "generation tags", False)
            )
        if is_prefix:
            return len(fed), "generation prompt", True
        found = text.find(self._escaped(conversation.messages[number].text).strip(), place)
        if found < 0:
            raise StyleError(f"the template does not write message {number + 1} as it is")
        return found, "text of the answer", False

    def _probe(self) -> str:
        """Gives what the template makes of two plain questions and answers."""
        text, _ = _without_tags(self._render(_PROBE, ask=False))
        if self.bos_token and text.startswith(2 * self.bos_token):
            raise StyleError(f"it writes {self.bos_token} twice at the beginning")
        places = [text.find(message.text) for message in _PROBE.messages]
        if min(places) < 0 or places != sorted(places):
            raise StyleError("it does not write the messages one behind the other")
        return text

    def _probe_end(self, text: str, specials: Mapping[str, int]) -> str:
        """Gives the special token that the template writes behind an answer."""
        _, answer, following, _ = (message.text for message in _PROBE.messages)
        between = text[text.index(answer) + len(answer) : text.index(following)]
        end = special_pattern(specials).search(between)
        return end[0] if end else ""

    def _render(self, conversation: Conversation, ask: bool) -> str:
        """Gives the whole text, with marks around what the template says is generated.

        Source: the variables, filters and settings of `apply_chat_template` in transformers
            (`utils/chat_template_utils.py`).

        Raises:
            StyleError: the template refuses the conversation.
            ConfigError: it does more than any template needs, and may never end.
            TemplateSyntaxError: it is no template.
        """
        messages = [self._told(message) for message in conversation.messages]
        given = {"bos_token": self.bos_token, "eos_token": self.eos_token}
        try:
            return render(
                self.template,
                sum(len(message.whole_text) for message in conversation.messages),
                messages=messages,
                tools=self._escaped_within(list(conversation.tools)) or None,
                documents=None,
                add_generation_prompt=ask,
                **given,
            )
        except TemplateSyntaxError:
            raise
        except TooMuchError as error:  # it would do so on the next row too
            raise ConfigError(f"The chat template {self.name} {error}; do not use it.") from error
        except FAULTS as error:
            raise StyleError(f"the chat template says: {str(error)[:_SAID]}") from error

    def _told(self, message: Message) -> dict[str, Any]:
        """Gives a message as templates know it."""
        fields: dict[str, Any] = self._escaped_within(dict(message.fields))
        return {"role": message.role, "content": self._escaped(message.whole_text), **fields}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """What finds special tokens in a text; a tokenizer may have a thousand of them."""
        return special_pattern(dict.fromkeys(self.specials, 0))

    def _escaped(self, text: str) -> str:
        """Puts marks in the places of special tokens that a person wrote out."""
        return self._pattern.sub(self._escape, text)

    def _escaped_within(self, value: Any) -> Any:
        """Does so in all texts of a value of JSON."""
        if isinstance(value, str):
            return self._escaped(value)
        if isinstance(value, Mapping):
            return {key: self._escaped_within(each) for key, each in value.items()}
        return [self._escaped_within(each) for each in value] if isinstance(value, list | tuple) else value

    def _escape(self, found: re.Match[str]) -> str:
        return f"{_OPEN}{self.specials.index(found[0])}{_CLOSE}"

    def _pieces(self, text: str, conversation: Conversation, numbers: range) -> tuple[Piece, ...]:
        """Gives a part of the text in pieces, by where the messages of these numbers stand in it."""
        pieces: list[Piece] = []
        place = 0
        for number in numbers:
            said = self._escaped(conversation.messages[number].whole_text).strip()
            found = self._find(text, said, place) if said else -1
            if found >= 0:
                pieces += self._restored(text[place:found], None)
                pieces += self._restored(said, number)
                place = found + len(said)
        return (*pieces, *self._restored(text[place:], None))

    def _find(self, text: str, said: str, place: int) -> int:
        """Gives where a message's text stands, outside of special tokens; -1 where it does not."""
        specials = [found.span() for found in self._pattern.finditer(text)]
        found = text.find(said, place)
        while any(begin < found + len(said) and found < end for begin, end in specials) and found >= 0:
            found = text.find(said, found + 1)
        return found

    def _restored(self, text: str, message: int | None) -> Iterator[Piece]:
        """Gives a text with the special tokens that a person wrote out as ordinary characters."""
        if message is not None:
            yield Piece(_restore(text, self.specials), message)
            return
        for index, part in enumerate(_WRITTEN.split(text)):
            if part:
                yield Piece(self.specials[int(part)], _UNKNOWN) if index % 2 else Piece(part)

    def _refuse_marks(self, conversation: Conversation) -> None:
        """Refuses texts with the characters that mark places here."""
        for number, message in enumerate(conversation.messages, start=1):
            if _MARKS.search(message.whole_text):
                raise StyleError(f"message {number} holds one of the noncharacters U+FDD0 to U+FDD3")

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types, ready for YAML; `from_dict` reads them back."""
        return {
            "name": self.name,
            "template": self.template,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "end": self.end,
            "ends": list(self.ends),
            "specials": list(self.specials),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ChatTemplate:
        """Builds from plain types.

        Raises:
            ConfigError: a key is missing or not of its type.
        """
        texts = {key: values.get(key) for key in ("name", "template", "bos_token", "eos_token", "end")}
        lists = {key: values.get(key) for key in ("ends", "specials")}
        wrong = [key for key, value in texts.items() if not isinstance(value, str)]
        wrong += [
            key
            for key, value in lists.items()
            if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value)
        ]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)} of the chat template must be text.")
        return cls(**texts, **{key: tuple(value or ()) for key, value in lists.items()})  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _plain_exchanges(style: ChatTemplate, roles: tuple[str, ...]) -> tuple[list[Exchange], str]:
    """Gives the exchanges of messages of these roles with texts that no template knows, and what stands behind them."""
    told = Conversation(tuple(Message(role, f"Quenu{number}rilto") for number, role in enumerate(roles)))
    text, tagged = _without_tags(style._render(told, ask=roles[-1] != ASSISTANT))
    exchanges = style._split(told, text, tagged)
    length = sum(len(_text_of(exchange)) for exchange in exchanges)
    return exchanges, text[length:]


def _text_of(exchange: Exchange) -> str:
    """Gives all that an exchange is in the template's text."""
    return "".join(piece.text for piece in (*exchange.prompt, *exchange.answer)) + (exchange.end or "")


def _with_texts(exchange: Exchange, texts: Sequence[str]) -> Exchange:
    """Gives an exchange with these texts in the places of its messages'."""
    prompt, answer = (
        tuple(piece if piece.message is None else Piece(texts[piece.message], piece.message) for piece in pieces)
        for pieces in (exchange.prompt, exchange.answer)
    )
    return replace(exchange, prompt=prompt, answer=answer)


def _restore(text: str, specials: Sequence[str]) -> str:
    """Gives a text with the special tokens that a person wrote out."""
    return _WRITTEN.sub(lambda found: specials[int(found[1])], text)


def _without_tags(text: str) -> tuple[str, list[int]]:
    """Takes the marks of generated parts out of a text, and gives the places where such parts begin."""
    parts = re.split(f"[{BEGIN}{END}]", text)
    places = [sum(map(len, parts[:index])) for index in range(1, len(parts), 2)]
    return "".join(parts), places
