"""Likelihoods of texts behind their contexts: packed and shared, they are those of one text at a time."""

from __future__ import annotations

import random

import pytest
import torch
from tiny_configs import CONFIGS, LLAMA
from tiny_run import CPU, methods

from litft.config.model import ModelConfig
from litft.errors import GenerationError
from litft.evaluate.likelihood import Likelihood, Pair, likelihoods
from litft.methods.base import trainable_state
from litft.model.gpt import GPT
from litft.model.load import build_random


def draw_pairs(seed: int = 0) -> list[Pair]:
    """Draws contexts with one text, with choices of one token and of several, some of which begin alike."""
    chance = random.Random(seed)

    def draw(length: int) -> tuple[int, ...]:
        return tuple(chance.randrange(50) for _ in range(length))

    pairs = [Pair(draw(3 + number), draw(1 + number % 4)) for number in range(6)]
    for length in (5, 9):
        context = draw(length)
        pairs += [Pair(context, (token,)) for token in (1, 2, 3, 4)]
        pairs += [Pair(context, draw(size)) for size in (2, 5, 2)]
        pairs += [Pair(context, (7, 8, end)) for end in (1, 2)]
    pairs.append(pairs[0])
    chance.shuffle(pairs)
    return pairs


def alone(model: GPT, pair: Pair) -> Likelihood:
    """Computes one text in a forward pass of its own."""
    ids = (*pair.context, *pair.text)[-(model.config.block_size + 1) :]
    with torch.no_grad():
        logprobs = model.head(model(torch.tensor([ids[:-1]])))[0].float().log_softmax(-1)[-len(pair.text) :]
    text = torch.tensor(pair.text)
    found = logprobs.gather(1, text[:, None]).sum()
    return Likelihood(float(found), bool((logprobs.argmax(-1) == text).all()))


def all_of(model: GPT, pairs: list[Pair], at_once: int) -> list[Likelihood]:
    found = dict(likelihoods(model, pairs, at_once))
    return [found[number] for number in range(len(pairs))]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_packed_and_shared_is_as_alone(config: ModelConfig) -> None:
    model = build_random(config, "32-true", CPU, 3).eval()
    pairs = draw_pairs()
    expected = [alone(model, pair) for pair in pairs]
    for at_once in (1, 4):
        found = all_of(model, pairs, at_once)
        assert [each.logprob for each in found] == pytest.approx([each.logprob for each in expected], abs=2e-5)
        assert [each.is_greedy for each in found] == [each.is_greedy for each in expected]


@pytest.mark.parametrize("name", ["lora", "adapter", "adapter_v2"])
def test_finetuned_models_too(name: str) -> None:
    model, method = build_random(LLAMA, "32-true", CPU, 3), methods()[name]
    method.apply(model)
    with torch.no_grad():
        for parameter in trainable_state(model, method).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
    model.eval()
    pairs = draw_pairs()
    found = [each.logprob for each in all_of(model, pairs, 4)]
    assert found == pytest.approx([alone(model, pair).logprob for pair in pairs], abs=2e-5)
    plain = build_random(LLAMA, "32-true", CPU, 3).eval()
    assert found != pytest.approx([each.logprob for each in all_of(plain, pairs, 4)], abs=1e-3)


def test_a_greedy_text_is_told() -> None:
    model = build_random(LLAMA, "32-true", CPU, 3).eval()
    ids = [5, 6, 7]
    with torch.no_grad():
        for _ in range(3):
            ids.append(int(model.head(model(torch.tensor([ids])))[0, -1].argmax()))
    context, text = tuple(ids[:3]), tuple(ids[3:])
    other = (*text[:2], (text[2] + 1) % 50)
    found = all_of(model, [Pair(context, text), Pair(context, other), Pair(context, text[:1])], 2)
    assert [each.is_greedy for each in found] == [True, False, True]


def test_long_contexts_are_cut_from_the_left() -> None:
    model = build_random(LLAMA, "32-true", CPU, 3).eval()
    chance = random.Random(1)
    context = tuple(chance.randrange(50) for _ in range(100))
    pairs = [Pair(context, (1,)), Pair(context, (2, 3, 4)), Pair(context[:2], context[:64])]
    found = all_of(model, pairs, 2)
    assert [each.logprob for each in found] == pytest.approx([alone(model, pair).logprob for pair in pairs], abs=2e-5)


def test_choices_of_one_token_cost_one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_random(LLAMA, "32-true", CPU, 3).eval()
    read: list[int] = []
    monkeypatch.setattr(
        model, "forward", lambda ids, **given: read.append(ids.numel()) or GPT.forward(model, ids, **given)
    )
    context = tuple(range(30))
    all_of(model, [Pair(context, (token,)) for token in range(4)], 8)
    all_of(model, [Pair(context, (token, 5)) for token in range(4)], 8)
    assert read == [32, 48]  # rounded up to 16; apart from each other the second would be 4 x 31


@pytest.mark.parametrize("pair", [Pair((1,), ()), Pair((), (1,)), Pair((1,), (2,) * 65)])
def test_what_cannot_be_scored_is_refused(pair: Pair) -> None:
    model = build_random(LLAMA, "32-true", CPU, 3)
    with pytest.raises(GenerationError, match="cannot be scored; each side needs at least one, and the model reads at"):
        all_of(model, [pair], 1)
