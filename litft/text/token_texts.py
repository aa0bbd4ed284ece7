"""What each single token says, for people who look at tokens. Knows no rows and no styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from litft.text.stream import REPLACEMENT
from litft.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenText:
    """One token.

    Attributes:
        number: its id.
        text: what it adds to the text; of a special token its name, such as `</s>`.
        is_special: it stands for no characters.
        is_open: its last character is not whole; the next token goes on with it.
    """

    number: int
    text: str
    is_special: bool = False
    is_open: bool = False


class TokenReader:
    """Gives the text of each token of a row; joined, without the special ones, they are the text of the row."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Begins.

        Args:
            tokenizer: of the model that the ids are for.
        """
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def read(self, ids: Sequence[int]) -> list[TokenText]:
        """Gives the tokens of a row.

        Args:
            ids: all known to the tokenizer.
        """
        made: list[TokenText] = []
        part: list[int] = []  # tokens of characters that are not whole yet
        for number in ids:
            alone = self._alone(number)
            if not alone or REPLACEMENT not in alone:
                self._close(made, part)
                part = []
                made.append(TokenText(number, alone or self._tokenizer.token_text(number), is_special=not alone))
                continue
            given = self._certain(part)
            part.append(number)
            text = self._certain(part)
            is_open = self._tokenizer.decode_within(part) != text
            made.append(TokenText(number, text[len(given) :], is_open=is_open))
            part = part if is_open else []
        self._close(made, part)
        return made

    def _alone(self, number: int) -> str:
        """Gives the text of one token behind another; nothing for a special one."""
        if number not in self._known:
            self._known[number] = self._tokenizer.decode_within([number])
        return self._known[number]

    def _certain(self, ids: list[int]) -> str:
        """Gives the text of tokens up to a character that is not whole."""
        return self._tokenizer.decode_within(ids).rstrip(REPLACEMENT) if ids else ""

    def _close(self, made: list[TokenText], part: list[int]) -> None:
        """Gives the last token what never became a whole character."""
        if part:
            rest = self._tokenizer.decode_within(part)[len(self._certain(part)) :]
            made[-1] = replace(made[-1], text=made[-1].text + rest, is_open=False)
