"""What texts have in common is read once: samples of one prompt, and the turns of a conversation."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from test_engine import KINDS, build, ids, prompts, request
from tiny_configs import PHI3
from tiny_engine import bytes_tokenizer, come_and_go, ids_of

from litft.config.model import RopeScaling
from litft.generate.engine import Engine
from litft.generate.request import Answer
from litft.generate.sample import Sampling
from litft.model.gpt import GPT

TOKENIZER = bytes_tokenizer()
SEVERAL = ["llama", "gemma2", "mistral", "mpt", "opt"]  # rotated, two windows, a short window, ALiBi, learned positions
FAR = RopeScaling(
    kind="longrope", factor=4.0, original_block_size=28, short_factors=(1.0, 1.5), long_factors=(2.0, 3.0)
)
RULE = Sampling(1.0, top_k=40, repetition_penalty=1.2)


@contextmanager
def counting(model: GPT) -> Iterator[list[int]]:
    """Gives a list that gets how many tokens each forward pass reads."""
    read: list[int] = []
    hook = model.register_forward_pre_hook(lambda module, given: read.append(given[0].numel()))
    try:
        yield read
    finally:
        hook.remove()


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("slots", [2, 4])
def test_samples_read_their_prompt_once_and_are_what_they_are_alone(kind: str, slots: int) -> None:
    model, [prompt] = build(kind), prompts(lengths=(30,))
    asked = [request(prompt, 9, RULE, seed=seed, top_logprobs=2) for seed in range(4)]
    with counting(model) as read:
        together = list(Engine(model, TOKENIZER, slots).run(asked))
    assert sum(read) == 30 + 3 + 4 * 8  # the prompt, its last token for the others, and each answer but its last token
    for seed, answer in enumerate(together):
        [alone] = Engine(model, TOKENIZER, slots=1).run([asked[seed]])
        assert (ids(answer), answer.text, answer.finish) == (ids(alone), alone.text, alone.finish)
        for one, other in zip(answer.tokens, alone.tokens, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
    assert len({tuple(ids(answer)) for answer in together}) == 4


def turn(engine: Engine, said: tuple[int, ...], **more: Any) -> tuple[Answer, int]:
    """Answers one turn; gives the answer, and how many tokens of the prompt were read."""
    with counting(engine._model) as read:
        [answer] = engine.run([request(said, 6, **more)])
    return answer, sum(read) - 5


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_turn_reads_only_what_is_new(kind: str) -> None:
    model, said = build(kind), prompts(lengths=(20,))[0]
    engine = Engine(model, TOKENIZER, slots=1, room=60)
    wanted = 20
    for more in prompts(lengths=(4, 7)):
        answer, read = turn(engine, said)
        assert read == wanted
        assert ids(answer) == ids_of(model, said, 6)
        said, wanted = (*said, *ids(answer), *more), 1 + len(more)  # the newest token of an answer is not read in it
    said = (*said[:18], 5, *said[18:])
    answer, read = turn(engine, said)
    assert read == len(said) - 18 and ids(answer) == ids_of(model, said, 6)  # up to the first that differs
    assert turn(engine, said)[1] == 1  # the same again
    assert turn(engine, (9, *said[:-1]))[1] == len(said)  # nothing in common


def test_little_in_common_is_read_again() -> None:
    engine, [prompt] = Engine(build(), TOKENIZER, slots=1), prompts(lengths=(30,))
    turn(engine, prompt)
    assert turn(engine, (*prompt[:10], *prompt[15:]))[1] == 25


@pytest.mark.parametrize(
    ("kind", "reaches", "is_taken"),
    [
        ("phi3", (26, 28), True),
        ("phi3", (28, 29), False),
        ("phi3", (29, 40), True),
        ("dynamic", (26, 27), False),
        ("dynamic", (26, 26), True),
    ],
)
def test_keys_that_are_turned_otherwise_are_not_taken(kind: str, reaches: tuple[int, int], is_taken: bool) -> None:
    """Angles of longrope depend on whether a text is to grow beyond 28 tokens; those of dynamic on how far."""
    config = dataclasses.replace(PHI3, rope_scaling=FAR) if kind == "phi3" else KINDS[kind]
    model, [prompt] = build(config), prompts(lengths=(24,))
    engine = Engine(model, TOKENIZER, slots=1)
    for reach, wanted in zip(reaches, (24, 1 if is_taken else 24), strict=True):
        count = reach - len(prompt)
        with counting(model) as read:
            [answer] = engine.run([request(prompt, count)])
        assert sum(read) == wanted + count - 1
        assert ids(answer) == ids_of(model, prompt, count)


def test_the_oldest_text_makes_room_and_one_that_goes_on_keeps_its_slot() -> None:
    model, [one, two, three, more] = build(), prompts(lengths=(20, 21, 22, 5))
    engine = Engine(model, TOKENIZER, slots=2, room=60)
    first, _ = turn(engine, one)
    turn(engine, two)
    said = (*one, *ids(first), *more)
    assert turn(engine, said)[1] == 6  # in its own slot
    assert turn(engine, two)[1] == 1
    assert turn(engine, three)[1] == 22  # in the place of the first, which is older
    assert turn(engine, two)[1] == 1
    assert turn(engine, said)[1] == len(said)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "dynamic", "phi3"])
def test_whoever_comes_and_goes_each_gets_its_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, chance = build(kind), random.Random(3)
    monkeypatch.setattr("litft.generate.engine.READ_AT_ONCE", 9)
    stems = prompts(lengths=(18, 24))
    asked = []
    for more in prompts(lengths=tuple(chance.randint(1, 9) for _ in range(24))):
        stem = chance.choice(stems)
        asked.append(request((*stem[: chance.randint(1, len(stem))], *more), chance.randint(1, 9)))
    asked += asked[:6]
    answers = come_and_go(Engine(model, TOKENIZER, slots=3, room=45), asked, chance)
    for each, answer in zip(asked, answers, strict=True):
        assert ids(answer) == ids_of(model, each.prompt_ids, each.max_new_tokens)[: len(answer.tokens)]
    assert sum(answer.finish == "length" for answer in answers) > 20
