"""Answers of a bare model, as token ids, for tests that need no text."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tiny_text import write_checkpoint

from litft.generate.engine import Engine
from litft.generate.request import Answer, Request
from litft.generate.sample import Sampling
from litft.model.gpt import GPT
from litft.text.tokenizer import Tokenizer


@functools.cache
def bytes_tokenizer() -> Tokenizer:
    """Gives a tokenizer in which each byte is a token; ids that it does not know have no text."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Tokenizer(write_checkpoint(Path(folder)))
        tokenizer.encode("a")  # opens the file, which goes away
    return tokenizer


def ids_of(
    model: GPT,
    prompt: Sequence[int],
    count: int,
    sampling: Sampling | None = None,
    stop_ids: Iterable[int] = (),
    seed: int | None = None,
) -> list[int]:
    """Answers one prompt and gives the ids, without the one it stopped at."""
    room = max(len(prompt) + count, 1)
    engine = Engine(model, bytes_tokenizer(), slots=1, room=room)
    request = Request(tuple(prompt), count, sampling or Sampling(), frozenset(stop_ids), seed=seed)
    [answer] = engine.run([request])
    ids = [token.id for token in answer.tokens]
    return ids[:-1] if answer.finish == "stop" else ids


def come_and_go(engine: Engine, asked: Sequence[Request], chance: random.Random) -> list[Answer]:
    """Asks at random moments, and takes some questions back; gives the answers when all have ended."""
    answers = list[Answer]()
    while len(answers) < len(asked) or not engine.is_idle:
        if len(answers) < len(asked) and chance.random() < 0.6:
            answers.append(engine.add(asked[len(answers)]))
        if answers and chance.random() < 0.1:
            engine.cancel(chance.choice(answers))
        engine.step()
    return answers
