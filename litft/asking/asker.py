"""Questions to a model, wherever it runs: what an asker is, and one that asks nothing twice. Knows no datasets."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from litft.checkpoint.journal import Journal
from litft.errors import DataError, GenerationError
from litft.terminal.bars import Bar

# Where so many requests are refused before one is answered, the rest would be too.
FIRST_REQUESTS = 3


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        prompt: what the model reads.
        max_new_tokens: longest reply in tokens.
        temperature: 0 for the likeliest token every time.
        top_p: choose among the likeliest tokens that together reach this probability; None for all.
        stop: texts at which the reply ends; they are left out.
        seed: the same seed gives the same reply where the model allows it; tells equal questions apart.
    """

    prompt: str
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def key(self, who: str) -> str:
        """Gives what tells it from other questions, and from the same one to another model: 64 hex digits."""
        return hashlib.sha256(json.dumps([who, asdict(self)]).encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: the reply.
        is_whole: False where it was cut at `max_new_tokens`.
        refused: why there is no reply to this question, such as a prompt that is too long; None where there is one.
        prompt_tokens, reply_tokens: as the asker counts them.
    """

    text: str
    is_whole: bool = True
    refused: str | None = None
    prompt_tokens: int = 0
    reply_tokens: int = 0


class Asker(Protocol):
    """A model that can be asked.

    Attributes:
        name: which model it is, in keys and manifests.
        at_once: how many questions it takes at the same time.
    """

    @property
    def name(self) -> str:
        """See the class."""

    @property
    def at_once(self) -> int:
        """See the class."""

    def ask(self, question: Question) -> Reply:
        """Gives the reply; raises GenerationError where no other question will be answered either."""

    def end(self) -> None:
        """Makes questions that wait for another attempt give up; called where the work ends early."""


class Remembering:
    """Asks each question once, ever: replies are written to a journal as they come, and read from it.

    Attributes:
        kept: the journal's file.
        asked: how many questions were asked this time.
        prompt_tokens, reply_tokens: what they cost.
    """

    def __init__(self, asker: Asker, journal: Journal) -> None:
        """Takes over what the journal knows.

        Args:
            asker: the model.
            journal: its entries are replies with their `key`.

        Raises:
            DataError: the journal holds something else.
        """
        self._asker, self._journal, self.kept = asker, journal, journal.path
        self.asked = self.prompt_tokens = self.reply_tokens = 0
        try:
            self._known = {entry.pop("key"): Reply(**entry) for entry in map(dict, journal.entries)}
        except (KeyError, TypeError) as error:
            raise DataError(f"{journal.path} holds lines that are no replies; remove the file, or move it.") from error
        self._unwritten: list[dict[str, Any]] = []  # refusals, until one answer shows that they are of the question
        self._lock = threading.Lock()
        self._has_answered = any(reply.refused is None for reply in self._known.values())

    def knows(self, question: Question) -> bool:
        """Says whether a question was answered, or refused, before."""
        return question.key(self._asker.name) in self._known

    def ask_all(self, questions: Sequence[Question], title: str | None = None) -> list[Reply]:
        """Gives a reply to each question, in their order.

        Args:
            questions: equal ones are asked once.
            title: of a progress bar; None for none.

        Raises:
            GenerationError: no question is answered any more, or none of the first is.
        """
        keys = [question.key(self._asker.name) for question in questions]
        left = {key: each for key, each in zip(keys, questions, strict=True) if key not in self._known}
        count = len(set(keys))
        with Bar(title or "", count, "replies", count - len(left), is_shown=title is not None) as bar:
            self._ask_left(left, bar)
        return [self._known[key] for key in keys]

    def cost(self) -> str:
        """Says what was asked this time, and for how many tokens."""
        return (
            f"{self.asked:,} requests this time: {self.prompt_tokens:,} tokens of prompts and {self.reply_tokens:,} of "
            f"replies, as {self._asker.name} counts them."
        )

    def _ask_left(self, left: dict[str, Question], bar: Bar) -> None:
        """Asks what is not known. The shortest go first, one by one: where they fail, nothing else is spent."""
        order = list(left)[::-1] if self._has_answered else sorted(left, key=lambda key: -len(left[key].prompt))
        is_single = self._asker.at_once == 1
        while order and (is_single or not self._has_answered):
            key = order.pop()
            self._ask(key, left[key])
            bar.update()
        if not order:
            return
        pool = ThreadPoolExecutor(self._asker.at_once)
        try:
            futures = [pool.submit(self._ask, key, left[key]) for key in reversed(order)]
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BaseException:
            self._asker.end()
            raise
        finally:
            pool.shutdown(cancel_futures=True)  # waits for requests that are out: they are paid for, and kept

    def _ask(self, key: str, question: Question) -> None:
        """Asks one question and keeps the reply."""
        reply = self._asker.ask(question)
        with self._lock:
            self._keep(key, reply)

    def _keep(self, key: str, reply: Reply) -> None:
        """Counts a reply and writes it down."""
        self.asked += 1
        self.prompt_tokens += reply.prompt_tokens
        self.reply_tokens += reply.reply_tokens
        self._known[key] = reply
        self._unwritten.append({"key": key, **asdict(reply)})
        self._has_answered |= reply.refused is None
        if self._has_answered:
            self._journal.add(*self._unwritten)
            self._unwritten.clear()
        elif len(self._unwritten) == FIRST_REQUESTS:
            raise GenerationError(
                f"{self._asker.name} refuses each of the first {FIRST_REQUESTS} requests: {reply.refused}"
            )
