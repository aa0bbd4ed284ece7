"""Sampling rules on logits made by hand, and generation with a model that always says the same."""

from __future__ import annotations

import pytest
import torch
import transformers
from test_methods import LLAMA
from tiny_engine import ids_of

from litft.errors import GenerationError
from litft.generate.sample import (
    Chooser,
    Sampling,
    choose_tokens,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    penalized,
    probabilities,
)
from litft.model.gpt import GPT

LOGITS = torch.tensor([[1.0, 4.0, 2.0, 3.0]])  # probabilities 0.03, 0.64, 0.09, 0.24
CPU = torch.device("cpu")


@pytest.fixture
def gpt() -> GPT:
    model = GPT(LLAMA)
    model.init_weights(seed=0)
    return model.eval()


def kept(logits: torch.Tensor) -> list[int]:
    return torch.isfinite(logits[0]).nonzero().flatten().tolist()


def chooser(sampling: Sampling, seed: int = 0, said: tuple[int, ...] = (), vocab_size: int = 4) -> Chooser:
    return Chooser(sampling, seed, said, vocab_size, CPU)


def test_top_k_keeps_the_k_likeliest() -> None:
    assert kept(keep_top_k(LOGITS, 2)) == [1, 3]
    assert kept(keep_top_k(LOGITS, 99)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("p", "wanted"), [(0.5, [1]), (0.64, [1]), (0.7, [1, 3]), (0.9, [1, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, wanted: list[int]) -> None:
    assert kept(keep_top_p(LOGITS, p)) == wanted


@pytest.mark.parametrize(("share", "wanted"), [(0.0, [0, 1, 2, 3]), (0.1, [1, 2, 3]), (0.3, [1, 3]), (1.0, [1])])
def test_min_p_keeps_those_with_a_share_of_the_likeliest(share: float, wanted: list[int]) -> None:
    assert kept(keep_min_p(LOGITS, share)) == wanted


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.7),
        Sampling(1.3, top_k=20),
        Sampling(0.9, top_p=0.8),
        Sampling(1.0, min_p=0.05),
        Sampling(1.5, top_k=40, top_p=0.9, min_p=0.02, repetition_penalty=1.3),
        Sampling(1.0, repetition_penalty=0.7),
    ],
)
def test_probabilities_are_those_of_transformers(sampling: Sampling) -> None:
    logits = torch.randn((3, 96), generator=torch.Generator().manual_seed(0)) * 3
    said = torch.tensor([[1, 2, 3, 3], [9, 8, 7, 6], [40, 41, 42, 43]])
    wanted = logits
    processors = [transformers.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)]
    processors.append(transformers.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        processors.append(transformers.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p:
        processors.append(transformers.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        processors.append(transformers.MinPLogitsWarper(sampling.min_p))
    for processor in processors:
        wanted = processor(said, wanted)
    seen = torch.zeros(3, 96, dtype=torch.bool).scatter(1, said, True)
    got = probabilities(penalized(logits, seen, sampling.repetition_penalty), sampling)
    assert torch.allclose(got, wanted.softmax(-1), atol=1e-6)
    assert torch.equal(got > 0, wanted.softmax(-1) > 0)


def test_temperature_zero_is_the_likeliest_and_others_follow_the_probabilities() -> None:
    assert choose_tokens(LOGITS, [chooser(Sampling())]).tolist() == [1]
    drawing = chooser(Sampling(temperature=2.0))
    drawn = torch.cat([choose_tokens(LOGITS, [drawing]) for _ in range(4_000)])
    shares = torch.bincount(drawn, minlength=4) / 4_000
    assert torch.allclose(shares, (LOGITS[0] / 2).softmax(-1), atol=0.02)


def test_rows_with_other_rules_are_chosen_as_if_alone() -> None:
    logits = torch.randn((6, 50), generator=torch.Generator().manual_seed(1))
    rules = [Sampling(), Sampling(1.0), Sampling(1.0, top_k=3), Sampling(1.0), Sampling(0.0, repetition_penalty=9.0)]
    rules.append(Sampling(0.8, min_p=0.1, repetition_penalty=2.0))

    def choosers() -> list[Chooser]:
        return [chooser(rule, seed, (seed, 3), 50) for seed, rule in enumerate(rules)]

    together, alone = choosers(), choosers()
    for _ in range(20):
        got = choose_tokens(logits, together).tolist()
        assert got == [int(choose_tokens(row[None], [each])) for row, each in zip(logits, alone, strict=True)]
        for pair, token in zip(zip(together, alone, strict=True), got, strict=True):
            for each in pair:
                each.push(token)
    assert len({int(choose_tokens(logits[4:5], [alone[4]]))} - {int(logits[4].argmax())}) == 1  # was said too often


def test_the_same_seed_gives_the_same_tokens_and_another_one_others(gpt: GPT) -> None:
    def draw(seed: int | None) -> list[int]:
        return ids_of(gpt, [1, 2, 3], 20, Sampling(temperature=1.0), seed=seed)

    assert draw(7) == draw(7)
    assert len({tuple(draw(seed)) for seed in (7, 8, None, None)}) == 4


def test_generation_ends_at_a_stop_token_at_the_limit_and_at_the_end_of_the_context(gpt: GPT) -> None:
    free = ids_of(gpt, [1, 2, 3], 10)
    assert len(free) == 10
    stop = free[4]
    assert ids_of(gpt, [1, 2, 3], 10, stop_ids={stop}) == free[: free.index(stop)]
    assert len(ids_of(gpt, list(range(1, 61)), 100)) == gpt.config.block_size - 60


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [
        ([], 5, "prompt is empty"),
        ([1], 0, "max_new_tokens is 0"),
        ([1] * 64, 5, "64 tokens; l reads at most 64"),
        ([1, 64], 5, "the id 64; the model knows ids from 0 to 63"),
        ([1, -1], 5, "the id -1"),
    ],
)
def test_requests_that_cannot_be_answered(gpt: GPT, ids: list[int], count: int, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        ids_of(gpt, ids, count)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("nan")},
    ],
)
def test_sampling_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(GenerationError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
