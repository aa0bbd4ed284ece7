"""Which tokens of a row the frame of its style made, and what stands in it: a style the other way. Knows no files.

The texts of the frame are those that the style itself writes around placeholders. They are looked for in the row, from
its first token on; special tokens in them are found as tokens, so that nothing that a person wrote is taken for one.
Where a question and its answer meet is told by the mask if loss begins there, else by the first place that fits.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, product
from operator import itemgetter
from typing import NamedTuple

from litft.text.backends import special_pattern
from litft.text.conversation import ASSISTANT, SYSTEM, USER, Conversation, Exchange, Message, Span, StyleError
from litft.text.encoding import Style, stop_ids
from litft.text.token_texts import TokenText
from litft.text.tokenizer import Tokenizer

TEMPLATE, PROMPT, ANSWER, TARGET, END = KINDS = ("template", "prompt", "answer", "target", "end")

# Each special token is one character of a private plane while texts are compared.
_FIRST_MARK = 0xF0000
_MARK = re.compile("[\U000f0000-\U000ffffd]")
_LINE_BEGIN = re.compile("(?<=\n)(?=.)", re.DOTALL)  # behind a line end of a frame that goes on


class Said(NamedTuple):
    """What one side says.

    Attributes:
        is_answer: it is an answer; else what was asked, a system text and an input included.
        text: without frame and special tokens.
    """

    is_answer: bool
    text: str


class Framed(NamedTuple):
    """A row with its parts named.

    Attributes:
        kinds: of each token: `template` of the frame, `prompt` of a person, `target` of an answer with loss, `answer`
            of one without, `end` that ends an answer.
        unknown: the first token from which on the frame was not found; None where all of it was.
    """

    kinds: list[str]
    unknown: int | None


@dataclass(frozen=True)
class _Pattern:
    """The frame of one exchange: what stands before, between and behind its texts; the first and last may be empty."""

    literals: tuple[re.Pattern[str], ...]
    weight: int  # characters that show


class Frames:
    """The frames of a style, as they look in the ids of one tokenizer.

    Attributes:
        ends: ids of the tokens that end answers.
        is_known: whether there is a style.
    """

    def __init__(self, tokenizer: Tokenizer, style: Style | None) -> None:
        """Asks the style for its frames.

        Args:
            tokenizer: wrote the rows.
            style: the one that framed them; None where nobody knows, and only special tokens can be told.
        """
        self.is_known = style is not None
        self.ends = frozenset(stop_ids(tokenizer, style))
        self._tokenizer = tokenizer
        self._marks: dict[int, str] = {}
        self._specials = special_pattern(tokenizer.specials)
        self._special_ids = frozenset(tokenizer.specials.values())
        firsts, laters = _exchanges(style) if style else ([], [])
        self._firsts, self._laters = self._patterns(firsts), self._patterns(laters)

    def name(self, tokens: Sequence[TokenText], mask: Sequence[bool]) -> Framed:
        """Names the parts of a row.

        Args:
            tokens: the row.
            mask: for each whether it carries loss.
        """
        texts = [self._mark(token.number) if token.is_special else _MARK.sub(" ", token.text) for token in tokens]
        begins = [0]
        for text in texts:
            begins.append(begins[-1] + len(text))
        flips = {begin for begin, now, before in zip(begins[1:-1], mask[1:], mask, strict=False) if now and not before}
        owners, known = self._walk("".join(texts), flips)
        kinds = []
        for index, learned in enumerate(mask):
            begin, end = begins[index], max(begins[index + 1], begins[index] + 1)
            if begin >= known:
                kinds.append(self._kind_alone(tokens, mask, index))
            else:
                of = set(owners[begin:end])
                kind = of.pop() if len(of) == 1 else PROMPT
                kinds.append(TARGET if kind == ANSWER and learned else kind)
        unknown = next((index for index, begin in enumerate(begins[:-1]) if begin >= known), None)
        return Framed(kinds, unknown)

    def said(self, ids: Sequence[int], mask: Sequence[bool]) -> list[Said]:
        """Gives what was asked and answered in a row, by turns. Where the frame is unknown, what is learned is answer.

        Args:
            ids: the row.
            mask: for each whether it carries loss.
        """
        text, learned, owners, known = self._read(ids, mask)
        sides = [None if owner in (TEMPLATE, END) else owner == ANSWER for owner in owners[:known]] + learned[known:]
        turns: list[Said] = []
        for side, letters in groupby(zip(sides, text, strict=True), key=itemgetter(0)):
            part = _MARK.sub("", "".join(letter for _, letter in letters)).strip()
            if side is None or not part:
                continue
            if turns and turns[-1].is_answer == side:
                part = f"{turns.pop().text}\n\n{part}"
            turns.append(Said(side, part))
        return turns

    def parts(self, ids: Sequence[int], mask: Sequence[bool]) -> list[tuple[str, str]] | None:
        """Gives the texts of a row as they stand in it, each with its kind, as `name` has it; None of an unknown frame.

        Args:
            ids: the row.
            mask: for each whether it carries loss.
        """
        text, _, owners, known = self._read(ids, mask)
        if known < len(text):
            return None
        runs = groupby(zip(owners, text, strict=True), key=itemgetter(0))
        return [(kind, _MARK.sub("", "".join(letter for _, letter in letters))) for kind, letters in runs]

    def _read(self, ids: Sequence[int], mask: Sequence[bool]) -> tuple[str, list[bool], list[str], int]:
        """Gives a row's text with marks, what of it is learned, the kind of each character, and how many are known."""
        text, learned, flips = "", list[bool](), set[int]()
        for is_target, run in groupby(zip(ids, mask, strict=True), key=itemgetter(1)):
            if is_target:
                flips.add(len(text))
            text += self._marked([number for number, _ in run])
            learned += [is_target] * (len(text) - len(learned))
        return text, learned, *self._walk(text, flips)

    def _marked(self, ids: list[int]) -> str:
        """Gives a text with each special token as its mark."""
        made = ""
        for is_special, run in groupby(ids, key=self._special_ids.__contains__):
            if is_special:
                made += "".join(map(self._mark, run))
            else:
                made += _MARK.sub(" ", self._tokenizer.decode_within(list(run)))
        return made

    def _walk(self, text: str, flips: set[int]) -> tuple[list[str], int]:
        """Goes through a row exchange by exchange.

        Returns:
            The kind of each character, and how many of them a frame was found for.
        """
        owners, place = [PROMPT] * len(text), 0
        ends = "".join(re.escape(self._mark(number)) for number in self.ends)
        end = re.compile(f"[{ends}]" if ends else "(?!)")
        while place < len(text):
            found = (_match(pattern, text, place, flips) for pattern in (self._laters if place else self._firsts))
            spans = next((spans for spans in found if spans), None)
            if spans is None:
                break
            for begin, behind in spans:
                owners[begin:behind] = [TEMPLATE] * (behind - begin)
            begin = spans[-1][1]
            stop = end.search(text, begin)
            behind = stop.start() if stop else len(text)
            owners[begin:behind] = [ANSWER] * (behind - begin)
            if stop:
                owners[behind] = END
            place = stop.end() if stop else behind
        return owners, place

    def _kind_alone(self, tokens: Sequence[TokenText], mask: Sequence[bool], index: int) -> str:
        """Names a token of a row that no frame fits."""
        if not mask[index]:
            return TEMPLATE if tokens[index].is_special else PROMPT
        is_last = index + 1 == len(mask) or not mask[index + 1]
        return END if is_last and tokens[index].number in self.ends else TARGET

    def _mark(self, number: int) -> str:
        return self._marks.setdefault(number, chr(_FIRST_MARK + len(self._marks)))

    def _patterns(self, exchanges: Sequence[Exchange]) -> list[_Pattern]:
        """Gives what to look for, that with the most text first: what another frame holds too is no frame then."""
        made = {pattern.literals: pattern for pattern in map(self._pattern, exchanges)}
        return sorted(made.values(), key=lambda pattern: (-pattern.weight, len(pattern.literals)))

    def _pattern(self, exchange: Exchange) -> _Pattern:
        """Cuts an exchange's prompt where the texts of messages stand."""
        literals = [""]
        for piece in exchange.prompt:
            if piece.message is None:
                literals[-1] += piece.text
            else:
                literals.append("")
        bos = self._tokenizer.bos_id
        head = f"{self._mark(bos)}?" if exchange.bos and self._tokenizer.adds_bos and bos is not None else ""
        compiled = [re.compile(self._expression(text)) for text in literals]
        # Sentencepiece begins a text that stands alone with a space that nobody wrote.
        compiled[0] = re.compile(f"{head} ?{compiled[0].pattern}" if literals[0] else head)
        return _Pattern(tuple(compiled), len("".join("".join(literals).split())))

    def _expression(self, text: str) -> str:
        """Gives what finds a text of the frame, special tokens as their marks; a space may stand between the two.

        Llama 2's first tokenizer.json does not see a special token right behind a text, and writes its characters. One
        may stand at the begin of a line too: some decoders, as that of the demo's model, drop it only from whole texts.
        """
        made = ""
        for index, part in enumerate(self._specials.split(text)):
            if index % 2:
                made += f"(?:{self._mark(self._tokenizer.specials[part])}|{re.escape(part)})"
            elif part:
                made += (" ?" if index else "") + _LINE_BEGIN.sub(" ?", re.escape(part))
        return made


def _match(pattern: _Pattern, text: str, place: int, flips: set[int]) -> list[Span]:
    """Finds the frame of one exchange.

    Args:
        pattern: what to look for.
        text: the row.
        place: where the exchange begins.
        flips: places at which loss begins.

    Returns:
        Where the parts of the frame stand, in order; nothing where it does not fit.
    """
    head = pattern.literals[0].match(text, place)
    if head is None:
        return []
    spans = [head.span()]
    for index, literal in enumerate(pattern.literals[1:], start=2):
        found = list(_places(literal, text, spans[-1][1]))
        if not found:
            return []
        at_flip = (span for span in found if span[1] in flips)
        spans.append(next(at_flip, found[0]) if index == len(pattern.literals) else found[0])
    return spans


def _places(literal: re.Pattern[str], text: str, place: int) -> Iterator[Span]:
    """Gives where a text of the frame stands behind a person's text, which holds no special token."""
    special = _MARK.search(text, place)
    last = special.start() if special else len(text)
    for found in literal.finditer(text, place):
        if found.start() > last:
            return
        yield found.span()


def _exchanges(style: Style) -> tuple[list[Exchange], list[Exchange]]:
    """Gives first and later exchanges of a style, around placeholders, in all forms that may differ."""
    firsts: list[Exchange] = []
    laters: list[Exchange] = []
    for system, given, turns in product(((Message(SYSTEM, "Quenu"),), ()), ("", "Rilto"), (1, 3)):
        told = [(Message(USER, f"Sagha{turn}", given), Message(ASSISTANT, f"Tovbe{turn}")) for turn in range(turns)]
        with contextlib.suppress(StyleError):  # some templates refuse a system text
            first, *rest = style.exchanges(Conversation((*system, *chain.from_iterable(told))))
            firsts.append(first)
            laters += rest
    return firsts, laters
