"""Sampling rules on logits made by hand, and generation with a model that always says the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_methods import LLAMA

from litft.errors import GenerationError
from litft.generate.sample import Sampling, choose_token, evaluating, iter_tokens, keep_top_k, keep_top_p
from litft.model.gpt import GPT

LOGITS = torch.tensor([[1.0, 4.0, 2.0, 3.0]])  # probabilities 0.03, 0.64, 0.09, 0.24


@pytest.fixture
def gpt() -> GPT:
    model = GPT(LLAMA)
    model.init_weights(seed=0)
    return model.eval()


def kept(logits: torch.Tensor) -> list[int]:
    return torch.isfinite(logits[0]).nonzero().flatten().tolist()


def test_top_k_keeps_the_k_likeliest() -> None:
    assert kept(keep_top_k(LOGITS, 2)) == [1, 3]
    assert kept(keep_top_k(LOGITS, 99)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("p", "wanted"), [(0.5, [1]), (0.64, [1]), (0.7, [1, 3]), (0.9, [1, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, wanted: list[int]) -> None:
    assert kept(keep_top_p(LOGITS, p)) == wanted


def test_temperature_zero_is_the_likeliest_and_others_follow_the_probabilities() -> None:
    assert choose_token(LOGITS, Sampling()).tolist() == [1]
    many = LOGITS.expand(20_000, -1)
    drawn = choose_token(many, Sampling(temperature=2.0), torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, (LOGITS[0] / 2).softmax(-1), atol=0.01)


def test_the_same_seed_gives_the_same_tokens_and_another_one_others(gpt: GPT) -> None:
    def draw(seed: int) -> list[int]:
        with evaluating(gpt):
            return list(iter_tokens(gpt, [1, 2, 3], 20, Sampling(temperature=1.0), seed=seed))

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)


def test_generation_ends_at_a_stop_token_at_the_limit_and_at_the_end_of_the_context(gpt: GPT) -> None:
    with evaluating(gpt):
        free = list(iter_tokens(gpt, [1, 2, 3], 10, Sampling()))
        assert len(free) == 10
        stop = free[4]
        assert list(iter_tokens(gpt, [1, 2, 3], 10, Sampling(), stop_ids={stop})) == free[: free.index(stop)]
        full = list(iter_tokens(gpt, list(range(1, 61)), 100, Sampling()))
        assert len(full) == gpt.config.block_size - 60


def test_the_cache_does_not_change_the_tokens(gpt: GPT) -> None:
    windowed = GPT(dataclasses.replace(LLAMA, sliding_window=4)).eval()
    windowed.init_weights(seed=1)
    for model in (gpt, windowed):
        ids = [5, 6, 7]
        with evaluating(model):
            cached = list(iter_tokens(model, ids, 12, Sampling()))
            for wanted in cached:
                assert int(model.head(model(torch.tensor([ids]))[:, -1]).argmax()) == wanted
                ids = [*ids, wanted]


def test_two_answers_at_once_leave_the_callers_gradients_alone(gpt: GPT) -> None:
    one, two = (iter_tokens(gpt, [1, 2, 3], 3, Sampling()) for _ in range(2))
    for _ in range(3):
        assert next(one) == next(two)
        assert torch.is_grad_enabled()
    assert list(one) == list(two) == []
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [
        ([], 5, "prompt is empty"),
        ([1], 0, "max_new_tokens is 0"),
        ([1] * 64, 5, "64 tokens; l reads at most 64"),
    ],
)
def test_requests_that_cannot_be_answered(gpt: GPT, ids: list[int], count: int, message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        list(iter_tokens(gpt, ids, count, Sampling()))


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_sampling_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(GenerationError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
