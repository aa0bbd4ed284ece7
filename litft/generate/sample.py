"""Sampling: from logits to the next token of each row. Knows no model, no text and no prompt style."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.errors import GenerationError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 for the likeliest token; logits are divided by it otherwise.
        top_k: only among the k likeliest; None for all.
        top_p: only among the likeliest that together reach this probability; None for all.
        min_p: only among those that have at least this share of the likeliest one's probability; None for all.
        repetition_penalty: above 1 makes tokens that stand in the prompt or the answer less likely; 1 changes nothing.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            GenerationError: naming the field, its value and its range.
        """
        if not 0 <= self.temperature < math.inf:
            raise GenerationError(f"temperature is {self.temperature}; it must be 0 or above.")
        if self.top_k is not None and self.top_k < 1:
            raise GenerationError(f"top_k is {self.top_k}; it must be at least 1.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise GenerationError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise GenerationError(f"min_p is {self.min_p}; it must be from 0 to 1.")
        if not 0 < self.repetition_penalty < math.inf:
            raise GenerationError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0.")


class Chooser:
    """How the tokens of one answer are chosen: its rule, a source of chance of its own, and what was said before."""

    def __init__(
        self, sampling: Sampling, seed: int | None, prompt_ids: Sequence[int], vocab_size: int, device: torch.device
    ) -> None:
        """Begins an answer.

        Args:
            sampling: the rule.
            seed: the same one gives the same draws; None: fresh ones.
            prompt_ids: what stands before the answer.
            vocab_size: V, of the logits.
            device: of the logits.
        """
        self.sampling = sampling
        self.generator = torch.Generator(device)
        self.generator.manual_seed(self.generator.seed() if seed is None else seed)
        self.seen: Tensor | None = None  # (V,) bool, where a penalty asks
        if sampling.repetition_penalty != 1:
            self.seen = torch.zeros(vocab_size, dtype=torch.bool, device=device)
            self.seen[list(prompt_ids)] = True

    def push(self, token: int) -> None:
        """Takes note of a token that was chosen."""
        if self.seen is not None:
            self.seen[token] = True


def choose_tokens(logits: Tensor, choosers: Sequence[Chooser]) -> Tensor:
    """Gives the next token of each row.

    Args:
        logits: (B, V).
        choosers: one for each row.

    Returns:
        (B,) int64.
    """
    return draw_tokens(chances_of(logits, choosers), choosers)


def draw_tokens(chances: Tensor, choosers: Sequence[Chooser]) -> Tensor:
    """Gives a token of each row by its chances (B, V), which need not add up to 1: (B,) int64."""
    tokens = chances.argmax(dim=-1)
    for row, chooser in enumerate(choosers):
        if chooser.sampling.temperature > 0:
            tokens[row] = torch.multinomial(chances[row], 1, generator=chooser.generator)
    return tokens


def chances_of(logits: Tensor, choosers: Sequence[Chooser], ahead: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Gives the chance of each token to be the next one.

    Args:
        logits: (B, V).
        choosers: one for each row; those with the same rule are computed at once.
        ahead: ids of each row that stand before the next token and were not pushed yet.

    Returns:
        (B, V) float32; at temperature 0 the likeliest token has all of it.
    """
    groups: dict[Sampling, list[int]] = {}
    for row, chooser in enumerate(choosers):
        groups.setdefault(chooser.sampling, []).append(row)
    chances = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    for sampling, rows in groups.items():
        scores = logits if len(groups) == 1 else logits[rows]
        if sampling.repetition_penalty != 1:
            seen = [_with(choosers[row].seen, ahead[row] if ahead else ()) for row in rows]
            scores = penalized(scores, torch.stack(seen), sampling.repetition_penalty)
        chances[rows] = probabilities(scores, sampling)
    return chances


def _with(seen: Tensor | None, ids: Sequence[int]) -> Tensor:
    """Gives what was seen (V,) together with some more ids."""
    assert seen is not None
    seen = seen.clone()
    seen[list(ids)] = True
    return seen


def penalized(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Makes tokens that were said less likely: positive logits are divided by the penalty, others multiplied.

    Args:
        logits: (B, V).
        seen: (B, V) bool, True for what was said.
        penalty: above 1 to discourage.

    Source: CTRL, arXiv 1909.05858, with `RepetitionPenaltyLogitsProcessor` of Hugging Face for negative logits.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Gives the chance of each token (B, V), by temperature and cuts, in the order of Hugging Face."""
    if sampling.temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.softmax(dim=-1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Sets all but the k largest of each row (B, V) to -inf."""
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Sets all but the smallest set of likeliest tokens that reaches probability p to -inf, per row (B, V).

    Source: nucleus sampling, arXiv 1904.09751.
    """
    ordered, index = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return logits.masked_fill((before >= p).scatter(-1, index, before >= p), -torch.inf)


def keep_min_p(logits: Tensor, share: float) -> Tensor:
    """Sets all that have less than this share of the likeliest one's probability to -inf, per row (B, V).

    Source: arXiv 2407.01082.
    """
    if share == 0:
        return logits
    return logits.masked_fill(logits < logits.amax(dim=-1, keepdim=True) + math.log(share), -torch.inf)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off and no gradients inside; the mode from before comes back, also after an error."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
