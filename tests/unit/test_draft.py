"""A draft guesses ahead, and every answer stays the model's own: greedy ones the same, others alike in distribution."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter

import pytest
import torch
from test_engine import KINDS, TOKENIZER, build, ids, prompts, request
from tiny_engine import come_and_go, ids_of

from litft.errors import GenerationError
from litft.generate.draft import Draft, taken_of
from litft.generate.engine import Engine
from litft.generate.request import Answer, Request
from litft.generate.sample import Chooser, Sampling, chances_of
from litft.model.gpt import GPT

Said = tuple[int, ...]
SEVERAL = ["llama", "gemma2", "mistral", "mpt", "opt", "phi3", "dynamic"]
RULES = [Sampling(), Sampling(1.0), Sampling(0.8, top_k=9, min_p=0.02), Sampling(1.2, top_p=0.9)]
RULES += [Sampling(0.0, repetition_penalty=1.5), Sampling(1.0, top_k=30, repetition_penalty=1.4)]


def near(model: GPT, by: float = 0.03) -> GPT:
    """Gives a model that often says the same."""
    other, generator = GPT(model.config), torch.Generator().manual_seed(1)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * parameter.abs().mean() * torch.randn(parameter.shape, generator=generator)
    return other.eval()


@pytest.mark.parametrize("kind", SEVERAL)
def test_greedy_answers_are_the_models_whoever_guesses(kind: str) -> None:
    model = build(kind)
    asked = [request(prompt, 12 - index) for index, prompt in enumerate(prompts())]
    wanted = [ids_of(model, each.prompt_ids, each.max_new_tokens) for each in asked]
    for guesser, tokens, slots in (
        (model, 4, 3),
        (near(model), 3, 3),
        (build(kind, seed=5), 1, 8),
        (near(model), 7, 1),
    ):
        draft = Draft(guesser, tokens)
        engine = Engine(model, TOKENIZER, slots, room=40, draft=draft)
        assert [ids(answer) for answer in engine.run(asked)] == wanted
        assert draft.guessed > 0 and (draft.taken == draft.guessed) == (guesser is model)


def test_a_model_that_guesses_for_itself_is_asked_once_for_all_its_guesses() -> None:
    model, passes, lengths = build(), list[int](), list[int]()
    guesser = near(model, by=0.0)
    model.register_forward_pre_hook(lambda module, given: lengths.append(given[0].shape[1]))
    guesser.register_forward_pre_hook(lambda module, given: passes.append(given[0].shape[1]))
    draft = Draft(guesser, 4)
    [answer] = Engine(model, TOKENIZER, slots=1, draft=draft).run([request(prompts()[4], 16)])
    assert len(answer.tokens) == 16 and (draft.guessed, draft.taken) == (12, 12)
    assert lengths == [14, 5, 5, 5]  # the prompt gives one token, each other pass five
    assert passes == [14, *[2, 1, 1, 1] * 3]


def tiny_pair() -> tuple[GPT, GPT]:
    """Gives two models of six tokens that say different things."""
    config = dataclasses.replace(KINDS["llama"], vocab_size=6, padded_vocab_size=6, n_layer=1)
    return build(config), near(build(config), by=0.3)


def exactly(model: GPT, prompt: Said, rule: Sampling, count: int) -> dict[Said, float]:
    """Gives the chance of every answer of so many tokens, by the model alone."""
    found: dict[Said, float] = {(): 1.0}
    for _ in range(count):
        longer = dict[Said, float]()
        for said, chance in found.items():
            with torch.no_grad():
                logits = model.head(model(torch.tensor([[*prompt, *said]])))[:, -1]
            chances = chances_of(logits, [Chooser(rule, 0, (*prompt, *said), 6, torch.device("cpu"))])[0]
            longer |= {(*said, token): chance * chances[token].item() for token in range(6)}
        found = longer
    return found


def test_answers_are_distributed_as_without_a_draft() -> None:
    (model, guesser), prompt, count = tiny_pair(), (3, 5, 4, 4), 500
    draft, rule, seen = Draft(guesser, 2), Sampling(1.5, top_k=5, top_p=0.95, repetition_penalty=3.0), Counter[Said]()
    asked = (request(prompt, 3, rule, seed=seed) for seed in range(count))
    for answer in Engine(model, TOKENIZER, slots=24, room=7, draft=draft).run(asked):
        seen[tuple(ids(answer))] += 1
    wanted = {said: chance * count for said, chance in exactly(model, prompt, rule, 3).items()}
    often = [said for said, number in wanted.items() if number >= 5]
    squares = sum((seen[said] - wanted[said]) ** 2 / wanted[said] for said in often)
    assert len(often) > 15 and sum(wanted[said] for said in often) > 0.8 * count
    assert squares < len(often) + 4 * (2 * len(often)) ** 0.5  # four deviations of a chi-square
    assert all(wanted[said] > 0 for said in seen)
    assert 0.3 < draft.taken / draft.guessed < 0.9  # they were both taken and missed


def test_guesses_are_taken_by_the_rule_and_the_rest_is_drawn() -> None:
    chances, guessed = torch.tensor([0.5, 0.3, 0.2, 0.0]), torch.tensor([0.1, 0.6, 0.0, 0.3])
    chooser, count = Chooser(Sampling(1.0), 0, (), 4, torch.device("cpu")), 3000
    drawn, taken = torch.zeros(4), torch.zeros(4)
    for _ in range(count):
        guess = int(torch.multinomial(guessed, 1, generator=chooser.generator))
        [token, *more] = taken_of([guess], torch.stack((chances, chances)), guessed[None], chooser)
        drawn[token] += 1
        taken[guess] += bool(more)
    assert torch.allclose(drawn / count, chances, atol=0.03)
    assert torch.allclose(taken / count, torch.minimum(chances, guessed), atol=0.03)


def test_a_seed_gives_the_same_answer_whatever_runs_beside_it() -> None:
    model, asked = build(), prompts()
    rules = [*RULES, RULES[2], RULES[5]]

    def answers(slots: int, requests: list[Request]) -> list[list[int]]:
        engine = Engine(model, TOKENIZER, slots, room=40, draft=Draft(near(model), 3))
        return [ids(answer) for answer in engine.run(requests)]

    requests = [request(prompt, 14, rule, seed=5) for prompt, rule in zip(asked, rules, strict=True)]
    alone = [answers(1, [each])[0] for each in requests]
    assert answers(3, requests) == answers(8, requests) == alone
    assert answers(8, [dataclasses.replace(each, seed=6) for each in requests]) != alone


def test_logprobs_are_the_models_at_every_token() -> None:
    model, asked = build("gemma2"), prompts()
    requests = [request(prompt, 12, rule, seed=1, top_logprobs=3) for prompt, rule in zip(asked, RULES, strict=False)]
    draft = Draft(near(model), 4)
    for prompt, answer in zip(asked, Engine(model, TOKENIZER, slots=4, draft=draft).run(requests), strict=False):
        with torch.no_grad():
            whole = model.head(model(torch.tensor([[*prompt, *ids(answer)]]))).float().log_softmax(-1)[0]
        for place, token in enumerate(answer.tokens, start=len(prompt) - 1):
            assert token.logprob == pytest.approx(whole[place, token.id].item(), abs=1e-4)
            assert [candidate.id for candidate in token.top] == whole[place].topk(3).indices.tolist()
    assert draft.taken > 0


def test_an_answer_ends_within_the_guesses() -> None:
    """At a stop token or a stop text; nothing behind it is said or told."""
    config = dataclasses.replace(KINDS["llama"], vocab_size=259, padded_vocab_size=259, block_size=200)
    model, prompt = build(config), tuple(TOKENIZER.encode("ab"))
    [whole] = Engine(model, TOKENIZER, slots=1).run([request(prompt, 30)])
    for at in range(1, 12):
        end = ids(whole)[at]
        stops = [request(prompt, 30, stop_ids=frozenset({end}))]
        for text in (whole.text[at : at + 2], whole.text[at]):
            stops.append(request(prompt, 30, stop=(text,)))
        plain = list(Engine(model, TOKENIZER, slots=3).run(stops))
        engine, steps = Engine(model, TOKENIZER, slots=3, draft=Draft(model, 4)), list[Answer]()
        answers = [engine.add(each) for each in stops]
        while not engine.is_idle:
            steps += [answer for answer, _ in engine.step()]
        for one, other in zip(answers, plain, strict=True):
            assert (ids(one), one.text, one.finish) == (ids(other), other.text, other.finish)
            assert steps.count(one) == len(one.tokens)


def test_whoever_comes_and_goes_each_gets_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, chance = build("gemma2"), random.Random(4)
    monkeypatch.setattr("litft.generate.engine.READ_AT_ONCE", 7)
    asked = [request(prompt, chance.randint(1, 9)) for prompt in prompts(lengths=(18, *[chance.randint(1, 25)] * 25))]
    asked += [request((*asked[0].prompt_ids, *each.prompt_ids[:3]), 6) for each in asked[1:10]]
    answers = come_and_go(Engine(model, TOKENIZER, slots=4, room=45, draft=Draft(near(model), 3)), asked, chance)
    for each, answer in zip(asked, answers, strict=True):
        assert ids(answer) == ids_of(model, each.prompt_ids, each.max_new_tokens)[: len(answer.tokens)]
    assert sum(answer.finish == "length" for answer in answers) > 20


@pytest.mark.parametrize("of", ["model", "draft"])
@pytest.mark.parametrize("failing", [1, 4])
def test_what_failed_to_be_read_is_read_again(of: str, failing: int) -> None:
    model = build()
    draft = Draft(near(model), 3)
    engine, asked = Engine(model, TOKENIZER, slots=2, draft=draft), prompts()[2:4]
    answers = [engine.add(request(prompt, 9)) for prompt in asked]
    calls = itertools.count(1)

    def fail(module: object, given: object) -> None:
        if next(calls) in (failing, failing + 1):
            raise MemoryError

    (model if of == "model" else draft.model).lm_head.register_forward_pre_hook(fail)
    failures = 0
    while not engine.is_idle:
        try:
            engine.step()
        except MemoryError:
            failures += 1
    assert failures == 2
    assert [ids(answer) for answer in answers] == [ids_of(build(), prompt, 9) for prompt in asked]


@pytest.mark.parametrize("padded", [64, 80, 50])
def test_a_draft_may_pad_its_vocabulary_otherwise(padded: int) -> None:
    model = build()
    guesser = build(dataclasses.replace(model.config, padded_vocab_size=padded, n_layer=1), seed=3)
    for rule in RULES:
        draft = Draft(guesser, 3)
        [answer] = Engine(model, TOKENIZER, slots=1, draft=draft).run([request(prompts()[3], 9, rule, seed=1)])
        assert all(token.id < 64 for token in answer.tokens) and draft.guessed > 0
        assert rule != Sampling() or ids(answer) == ids_of(model, prompts()[3], 9)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_text_grows_to_the_very_end_of_the_context(kind: str) -> None:
    model, [prompt] = build(kind), prompts(lengths=(50,))
    engine = Engine(model, TOKENIZER, slots=2, draft=Draft(near(model), 5))
    [answer, short] = engine.run([request(prompt, 99), request(prompt[:3], 20)])
    assert len(answer.tokens) == 14 and answer.finish == "length"
    assert ids(answer) == ids_of(model, prompt, 14) and ids(short) == ids_of(model, prompt[:3], 20)


def test_a_draft_that_reads_too_little_or_guesses_nothing_is_refused() -> None:
    model = build()
    short = build(dataclasses.replace(model.config, name="shorty", block_size=20))
    Engine(model, TOKENIZER, room=20, draft=Draft(short, 4))
    with pytest.raises(GenerationError, match="The draft shorty reads at most 20 tokens, and 21 are asked for"):
        Engine(model, TOKENIZER, room=21, draft=Draft(short, 4))
    with pytest.raises(GenerationError, match="draft_tokens is 0; it must be at least 1"):
        Draft(model, 0)
