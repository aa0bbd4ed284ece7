"""Continuous batching: whatever runs beside a request, its answer is the one it gets alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from parity_checks import build_pair
from tiny_configs import CONFIGS, LLAMA
from tiny_engine import bytes_tokenizer, ids_of
from tiny_run import methods

from litft.config.model import ModelConfig, RopeScaling
from litft.errors import GenerationError
from litft.generate import engine as engine_module
from litft.generate.engine import Engine
from litft.generate.request import Answer, Request
from litft.generate.sample import Sampling
from litft.model.gpt import GPT

TOKENIZER = bytes_tokenizer()
DYNAMIC = dataclasses.replace(
    LLAMA, name="dynamic", rope_scaling=RopeScaling(kind="dynamic", factor=2.0, original_block_size=8)
)
KINDS = {**CONFIGS, "dynamic": DYNAMIC, "gqa alibi": dataclasses.replace(CONFIGS["mpt"], n_query_groups=2)}
LENGTHS = (1, 2, 5, 9, 14, 20, 3, 7)


def build(kind: str | ModelConfig = "llama", seed: int = 0) -> GPT:
    """Gives a random model whose answers depend on what it reads."""
    model = GPT(KINDS[kind] if isinstance(kind, str) else kind)
    model.init_weights(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 6
    return model.eval()


def prompts(vocab_size: int = 64, lengths: tuple[int, ...] = LENGTHS) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randint(3, vocab_size, (length,), generator=generator).tolist()) for length in lengths]


def request(prompt: tuple[int, ...], count: int = 12, sampling: Sampling | None = None, **more: Any) -> Request:
    return Request(prompt, count, sampling or Sampling(), **more)


def ids(answer: Answer) -> list[int]:
    return [token.id for token in answer.tokens]


@pytest.mark.parametrize("kind", KINDS)
def test_together_as_alone_as_by_a_model_without_a_cache(kind: str) -> None:
    model = build(kind)
    counts = [12 - index for index in range(len(LENGTHS))]  # so that each has a reach of its own
    asked = [request(prompt, count) for prompt, count in zip(prompts(), counts, strict=True)]
    together = [ids(answer) for answer in Engine(model, TOKENIZER, slots=3, room=40).run(asked)]
    for each, got in zip(asked, together, strict=True):
        prompt, count = list(each.prompt_ids), each.max_new_tokens
        assert got == ids_of(model, prompt, count)
        reach = torch.tensor([prompt + got + [3] * (count - len(got))])  # rotation may depend on the whole length
        if model.config.rope_scaling is None:
            with torch.no_grad():
                wanted = model.head(model(reach))[0, len(prompt) - 1 : -1].argmax(-1).tolist()
            assert got == wanted


@pytest.mark.parametrize(
    ("family", "variation"),
    [
        ("llama", "gqa"),
        ("mistral", "short window"),
        ("falcon", "40b"),
        ("gemma2", "9b"),
        ("phi", "2"),
        ("opt", "relu"),
        ("mpt", "7b"),
        ("qwen3_moe", "normalized"),
    ],
)
def test_eight_greedy_answers_at_once_are_those_of_transformers(family: str, variation: str, tmp_path: Any) -> None:
    pair = build_pair(family, variation, tmp_path)
    asked = prompts(96)
    together = [ids(answer) for answer in Engine(pair.ours, TOKENIZER, slots=8).run(map(request, asked))]
    for prompt, got in zip(asked, together, strict=True):
        wanted = pair.theirs.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        assert got == wanted[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", methods())
def test_finetuned_models_answer_together_as_alone(name: str) -> None:
    model = build()
    methods()[name].apply(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    model.eval()
    asked = [request(prompt) for prompt in prompts()]
    together = [ids(answer) for answer in Engine(model, TOKENIZER, slots=8).run(asked)]
    assert together == [ids_of(model, each.prompt_ids, 12) for each in asked]
    assert len({tuple(answer) for answer in together}) > 4


def test_joining_and_leaving_between_tokens_changes_nobody() -> None:
    model, asked = build(), [request(prompt, 15) for prompt in prompts()]
    wanted = [ids_of(model, each.prompt_ids, 15) for each in asked]
    engine = Engine(model, TOKENIZER, slots=4, room=40)
    answers = {0: engine.add(asked[0]), 1: engine.add(asked[1])}
    for step in range(60):
        engine.step()
        if step % 3 == 0 and len(answers) < len(asked):
            answers[len(answers)] = engine.add(asked[len(answers)])
        if step == 5:
            engine.cancel(answers[0])
        if step == 10:
            engine.cancel(answers[3])
    assert engine.is_idle
    for index, answer in answers.items():
        if index in (0, 3):
            assert answer.finish == "cancelled" and 0 < len(answer.tokens) < 15
        else:
            assert answer.finish == "length"
        assert ids(answer) == wanted[index][: len(answer.tokens)]


def test_cancelling_frees_a_slot_at_once_wherever_the_answer_is() -> None:
    engine = Engine(build(), TOKENIZER, slots=1)
    running, waiting, last = (engine.add(request(prompt, 5)) for prompt in prompts()[:3])
    engine.step()
    assert (engine.running, engine.waiting) == (1, 2)
    engine.cancel(waiting)
    engine.cancel(running)
    assert (engine.running, engine.waiting) == (0, 1)
    [(answer, _)] = engine.step()
    assert answer is last and waiting.tokens == [] and len(running.tokens) == 1
    while not engine.is_idle:
        engine.step()
    engine.cancel(last)
    assert [each.finish for each in (running, waiting, last)] == ["cancelled", "cancelled", "length"]


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mpt", "dynamic", "opt"])
def test_a_prompt_read_in_parts_is_a_prompt_read_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, [long, *short] = build(kind), prompts(lengths=(33, 4, 6))
    wanted = [ids_of(model, prompt, 12) for prompt in (long, *short)]
    monkeypatch.setattr(engine_module, "READ_AT_ONCE", 7)
    engine = Engine(model, TOKENIZER, slots=3)
    answers = [engine.add(request(prompt)) for prompt in (short[0], long, short[1])]
    counts = []
    for _ in range(6):
        engine.step()
        counts.append([len(answer.tokens) for answer in answers])
    assert counts[4][0] == 5 and counts[4][1] <= 1  # while the long one is read, the short one goes on
    engine.cancel(answers[0])  # the row that is being read, or was just read, moves to its place
    while not engine.is_idle:
        engine.step()
    assert [ids(answer) for answer in answers] == [wanted[1][:6], wanted[0], wanted[2]]


def test_a_row_moves_while_its_prompt_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model, [long, one, two] = build(), prompts(lengths=(33, 4, 6))
    monkeypatch.setattr(engine_module, "READ_AT_ONCE", 10)
    engine = Engine(model, TOKENIZER, slots=3)
    first, second, third = (engine.add(request(prompt)) for prompt in (one, two, long))
    engine.step()
    engine.step()
    assert engine.running == 3 and not third.tokens
    engine.cancel(first)
    while not engine.is_idle:
        engine.step()
    assert [ids(second), ids(third)] == [ids_of(model, prompt, 12) for prompt in (two, long)]


def test_a_seed_gives_the_same_answer_whatever_runs_beside_it() -> None:
    model, asked = build(), prompts()
    rule = Sampling(1.0, top_k=40, min_p=0.01)
    alone = ids_of(model, asked[3], 20, rule, seed=5)
    rules = [Sampling(2.0), rule, Sampling(), rule, Sampling(1.0, repetition_penalty=1.5), rule, rule, rule]
    for slots in (1, 3, 8):
        requests = [request(prompt, 20, each, seed=5) for prompt, each in zip(asked, rules, strict=True)]
        assert ids(list(Engine(model, TOKENIZER, slots).run(requests))[3]) == alone
    assert alone != ids_of(model, asked[3], 20, rule, seed=6)


@pytest.mark.parametrize("penalty", [1.0, 1.7])
def test_a_repetition_penalty_is_that_of_transformers(penalty: float, tmp_path: Any) -> None:
    pair = build_pair("llama", "gqa", tmp_path)
    prompt = prompts(96)[5]
    wanted = pair.theirs.generate(
        torch.tensor([prompt]), max_new_tokens=30, do_sample=False, eos_token_id=-1, repetition_penalty=penalty
    )
    got = ids_of(pair.ours, prompt, 30, Sampling(repetition_penalty=penalty))
    assert got == wanted[0, len(prompt) :].tolist()
    assert penalty == 1.0 or got != ids_of(pair.ours, prompt, 30)


def test_logprobs_are_those_of_a_pass_over_the_whole_text_before_any_cut() -> None:
    model, asked = build("gemma2"), prompts()
    rule = Sampling(0.5, top_k=5, repetition_penalty=1.3)
    requests = [request(prompt, 12, rule, seed=1, top_logprobs=index) for index, prompt in enumerate(asked)]
    for index, answer in enumerate(Engine(model, TOKENIZER, slots=8).run(requests)):
        prompt = list(asked[index])
        with torch.no_grad():
            whole = model.head(model(torch.tensor([prompt + ids(answer)]))).float().log_softmax(-1)[0]
        for place, token in enumerate(answer.tokens, start=len(prompt) - 1):
            assert token.logprob == pytest.approx(whole[place, token.id].item(), abs=1e-4)
            best = whole[place].topk(index)
            assert [candidate.id for candidate in token.top] == best.indices.tolist()
            assert [candidate.logprob for candidate in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def spoken(model: GPT, prompt: tuple[int, ...], count: int) -> str:
    """What a model of 256 bytes says."""
    [answer] = Engine(model, TOKENIZER, slots=1).run([request(prompt, count, Sampling(1.0), seed=3)])
    return answer.text


@pytest.fixture(scope="module")
def speaker() -> Iterator[GPT]:
    model = GPT(dataclasses.replace(LLAMA, vocab_size=259, padded_vocab_size=259, block_size=200))
    model.init_weights(seed=0)
    with torch.no_grad():
        letters = torch.zeros(259)
        letters[TOKENIZER.encode("abcdefgh ", bos=False)] = 1
        model.lm_head.weight.mul_(0.5)
        model.lm_head.bias = torch.nn.Parameter(torch.where(letters > 0, 8.0, -8.0))
    yield model.eval()


def test_pieces_joined_are_the_text_and_a_stop_text_over_borders_of_tokens_is_never_given(speaker: GPT) -> None:
    prompt = tuple(TOKENIZER.encode("ab"))
    whole = spoken(speaker, prompt, 100)
    assert len(whole) == 100
    for start in (0, 1, 37, 90):
        stop = whole[start : start + 4]
        at = whole.index(stop)
        asked = request(prompt, 100, Sampling(1.0), seed=3, stop=("never", stop), stop_ids=frozenset({1}))
        [answer] = Engine(speaker, TOKENIZER, slots=2).run([asked])
        assert answer.text == whole[:at] and answer.finish == "stop"
        assert len(answer.tokens) == at + len(stop)
        shown = ""
        for token in answer.tokens:  # what was given at any time is the beginning of the answer
            shown += token.text
            assert answer.text.startswith(shown)


def test_text_held_back_for_a_stop_text_comes_at_the_end_however_the_answer_ends(speaker: GPT) -> None:
    prompt = tuple(TOKENIZER.encode("ab"))
    whole = spoken(speaker, prompt, 50)
    [cut] = Engine(speaker, TOKENIZER, slots=1).run(
        [request(prompt, 50, Sampling(1.0), seed=3, stop=(whole[48:] + "~",))]
    )
    assert cut.text == whole and cut.finish == "length"
    last = TOKENIZER.encode(whole[-1], bos=False)[0]
    ends = request(prompt, 50, Sampling(1.0), seed=3, stop=(whole[:20] + "~",), stop_ids=frozenset({last}))
    [answer] = Engine(speaker, TOKENIZER, slots=1).run([ends])
    assert answer.finish == "stop" and answer.tokens[-1].id == last
    assert answer.text == whole[: whole.index(whole[-1])]


def test_run_gives_answers_in_order_and_takes_requests_as_slots_come_free() -> None:
    taken: list[int] = []

    def source() -> Iterator[Request]:
        for index, prompt in enumerate(prompts() * 4):
            taken.append(index)
            yield request(prompt, 1 + index % 5)

    engine = Engine(build(), TOKENIZER, slots=2)
    seen = []
    for answer in engine.run(source()):
        seen.append(len(answer.tokens))
        assert len(taken) <= len(seen) + 2 + 2 * 5  # not far ahead
    assert seen == [1 + index % 5 for index in range(32)]


def test_a_run_that_nobody_reads_to_its_end_leaves_the_engine_idle() -> None:
    engine = Engine(build(), TOKENIZER, slots=2)
    running = engine.run([request(prompt, 9) for prompt in prompts()])
    next(running)
    running.close()
    assert engine.is_idle


def test_room_and_memory_are_said_and_a_prompt_beyond_them_refused() -> None:
    model = build()
    engine = Engine(model, TOKENIZER, slots=3, room=20)
    config = model.config
    assert engine.cache_bytes == 2 * config.n_layer * 3 * config.n_query_groups * 20 * config.head_size * 4
    with pytest.raises(GenerationError, match="20 tokens; l reads at most 20"):
        engine.add(request((5,) * 20))
    [answer] = engine.run([request((5,) * 15, 30)])
    assert len(answer.tokens) == 5 and answer.finish == "length"
    assert Engine(model, TOKENIZER, slots=1).room == config.block_size
    with pytest.raises(GenerationError, match="top_logprobs is 65"):
        engine.add(request((5,), top_logprobs=65))


@pytest.mark.parametrize("rows", [1, 2])
def test_what_failed_to_be_read_is_read_again(rows: int) -> None:
    """Memory that runs out, in the prompt of a new request or in a step of the others."""
    model, asked = build(), [request(prompt) for prompt in (prompts()[0], prompts()[1], prompts()[5])]
    engine = Engine(model, TOKENIZER, slots=3)
    answers = [engine.add(each) for each in asked[:2]]
    engine.step()
    answers.append(engine.add(asked[2]))
    hook = model.lm_head.register_forward_pre_hook(lambda module, given: fail() if len(given[0]) == rows else None)
    for _ in range(2):
        with pytest.raises(MemoryError):
            engine.step()
    hook.remove()
    while not engine.is_idle:
        engine.step()
    assert [ids(answer) for answer in answers] == [ids_of(model, each.prompt_ids, 12) for each in asked]


def fail() -> None:
    raise MemoryError


def test_the_callers_gradients_are_left_alone() -> None:
    engine = Engine(build(), TOKENIZER, slots=2)
    engine.add(request((5, 6), 3))
    while not engine.is_idle:
        engine.step()
        assert torch.is_grad_enabled()
