"""Turns ids into text as they come. Knows nothing of where they come from."""

from __future__ import annotations

from collections.abc import Sequence

from litft.text.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"

KEPT_IDS = 16  # of those whose text is given: more than any token's text depends on


class StreamDecoder:
    """Gives the text of a growing answer, piece by piece; the pieces joined are the whole answer.

    The last ids are decoded anew each time, because one token's text depends on its neighbours. Text that may yet
    change (part of a UTF-8 character) or go away (the beginning of a stop string) is held back.

    Attributes:
        stopped: a stop string was met; all that follows is ignored.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = (), context: Sequence[int] = ()) -> None:
        """Begins an answer.

        Args:
            tokenizer: of the model that writes.
            stop: texts at which the answer ends; they are never given out.
            context: ids before the answer, whose text is not given out. With them the first word keeps the space that
                it would lose at the beginning of a text: wanted when continuing a text, not when answering a prompt.
        """
        self.stopped = False
        self._tokenizer = tokenizer
        self._stop = [text for text in stop if text]
        self._ids = list(context)
        self._given = len(tokenizer.decode(self._ids))

    def push(self, token_id: int) -> str:
        """Takes the next id and gives the text that is now certain, often empty."""
        if self.stopped:
            return ""
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        # A character that is split over tokens shows as replacement characters until its last byte is there.
        given = self._give(text.rstrip(REPLACEMENT), is_last=False)
        if len(self._ids) >= 2 * KEPT_IDS:
            self._forget(text)
        return given

    def finish(self) -> str:
        """Gives what was held back, once no id will come."""
        return "" if self.stopped else self._give(self._tokenizer.decode(self._ids), is_last=True)

    def _forget(self, text: str) -> None:
        """Lets go of ids whose text is given, where the last ones alone give the same end of `text`.

        Half a character would spoil all bytes beside it, in both alike.
        """
        kept = self._ids[-KEPT_IDS:]
        end = self._tokenizer.decode(kept)
        gone = len(text) - len(end)
        if REPLACEMENT not in end and text.endswith(end) and gone <= self._given:
            self._ids, self._given = kept, self._given - gone

    def _give(self, text: str, is_last: bool) -> str:
        """Gives the part of `text` that is new and safe, and remembers having given it."""
        new = text[self._given :]
        cuts = [position for position in map(new.find, self._stop) if position >= 0]
        if cuts:
            self.stopped = True
            new = new[: min(cuts)]
        elif not is_last:
            new = new[: len(new) - self._held(new)]
        self._given += len(new)
        return new

    def _held(self, text: str) -> int:
        """Counts the characters at the end that may be the beginning of a stop string."""
        longest = max(map(len, self._stop), default=0)
        for count in range(min(longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stop):
                return count
        return 0
