"""Greedy answers of a checkpoint to many prompts, each written down as it comes and never asked again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict

from litft.asking.asker import Reply
from litft.checkpoint.journal import Journal
from litft.errors import DataError
from litft.evaluate.subject import Subject
from litft.generate.engine import Engine
from litft.generate.request import Answer, Request
from litft.generate.sample import Sampling
from litft.terminal.bars import Bar

Prompt = tuple[int, ...]


class Answers:
    """The answers of checkpoints that are known, in a file of JSON Lines.

    Attributes:
        asked: how many were written this time.
    """

    def __init__(self, journal: Journal, max_new_tokens: int, slots: int) -> None:
        """Takes over what the journal knows.

        Args:
            journal: its entries are replies with their `key`.
            max_new_tokens: longest answer in tokens.
            slots: answers that are written at once.

        Raises:
            DataError: the journal holds something else.
        """
        self._journal, self._longest, self._slots = journal, max_new_tokens, slots
        self.asked = 0
        try:
            self._known = {entry.pop("key"): Reply(**entry) for entry in map(dict, journal.entries)}
        except (KeyError, TypeError) as error:
            raise DataError(f"{journal.path} holds lines that are no answers; remove the file, or move it.") from error

    def of(
        self, subject: Subject, prompts: Sequence[Prompt], ends: Collection[int], stop: Sequence[str]
    ) -> list[Reply]:
        """Gives the likeliest answer to each prompt, in their order; the model is loaded only where one is not known.

        Args:
            subject: who answers.
            prompts: ids; one that fills the context is refused.
            ends: tokens at which an answer ends.
            stop: texts at which it ends; they are left out.
        """
        manner = [subject.digest(), self._longest, sorted(ends), list(stop)]
        keys = [hashlib.sha256(json.dumps([*manner, prompt]).encode()).hexdigest() for prompt in prompts]
        left = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._known}
        context = subject.config.block_size
        for key in [key for key, prompt in left.items() if len(prompt) >= context]:
            self._keep(key, Reply("", refused=f"its {len(left.pop(key))} tokens fill the context of {context}"))
        if left:
            self._write(subject, left, frozenset(ends), tuple(stop))
        return [self._known[key] for key in keys]

    def _write(self, subject: Subject, left: dict[str, Prompt], ends: frozenset[int], stop: tuple[str, ...]) -> None:
        """Has a model answer what is not known."""
        room = min(max(map(len, left.values())) + self._longest, subject.config.block_size)
        engine = Engine(subject.llm.model, subject.tokenizer, min(self._slots, len(left)), room)
        requests = (Request(prompt, self._longest, Sampling(), ends, stop) for prompt in left.values())
        with Bar(subject.name, len(left), "answers") as bar:
            for key, answer in zip(left, engine.run(requests), strict=True):
                self._keep(key, _reply(answer))
                self.asked += 1
                bar.update()

    def _keep(self, key: str, reply: Reply) -> None:
        """Writes a reply down."""
        self._known[key] = reply
        self._journal.add({"key": key, **asdict(reply)})


def _reply(answer: Answer) -> Reply:
    """Gives a finished answer without the model's ids."""
    count = sum(token.id not in answer.request.stop_ids for token in answer.tokens)
    return Reply(answer.text, answer.finish == "stop", None, len(answer.request.prompt_ids), count)
