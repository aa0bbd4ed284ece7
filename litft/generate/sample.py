"""Sampling: from token ids to token ids. Knows no tokenizer, no text and no prompt style."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from litft.errors import GenerationError
from litft.model.attention import KVCache
from litft.model.gpt import GPT


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 for the likeliest token; logits are divided by it otherwise.
        top_k: only among the k likeliest; None for all.
        top_p: only among the likeliest that together reach this probability; None for all.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            GenerationError: naming the field, its value and its range.
        """
        if self.temperature < 0:
            raise GenerationError(f"temperature is {self.temperature}; it must be 0 or above.")
        if self.top_k is not None and self.top_k < 1:
            raise GenerationError(f"top_k is {self.top_k}; it must be at least 1.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise GenerationError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")


def choose_token(logits: Tensor, sampling: Sampling, generator: torch.Generator | None = None) -> Tensor:
    """Gives the next token of each row.

    Args:
        logits: (B, V).
        sampling: the rule.
        generator: source of chance, on the logits' device.

    Returns:
        (B,) int64.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = keep_top_p(logits, sampling.top_p)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator).squeeze(-1)


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


def iter_tokens(
    model: GPT,
    prompt_ids: list[int],
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: Collection[int] = (),
    seed: int | None = None,
) -> Iterator[int]:
    """Generates token by token until a stop token (which is not given), `max_new_tokens` or the end of the context.

    Args:
        model: in evaluation mode.
        prompt_ids: at least one token, BOS included where the model wants one.
        max_new_tokens: at least 1.
        sampling: how each token is chosen.
        stop_ids: tokens that end the answer.
        seed: the same seed gives the same answer on the same machine; None draws a fresh one.

    Raises:
        GenerationError: an empty prompt, or one that fills the context.
    """
    if not prompt_ids:
        raise GenerationError("The prompt is empty; give at least one token.")
    if max_new_tokens < 1:
        raise GenerationError(f"max_new_tokens is {max_new_tokens}; it must be at least 1.")
    room = model.config.block_size - len(prompt_ids)
    if room < 1:
        raise GenerationError(
            f"The prompt has {len(prompt_ids)} tokens; {model.config.name} reads at most {model.config.block_size}, "
            "one of them generated."
        )
    count = min(max_new_tokens, room)
    device = next(model.parameters()).device
    ids = torch.tensor([prompt_ids], device=device)  # (1, T)
    with torch.no_grad():
        dtype = model.transformer["wte"](ids[:, :1]).dtype  # a method's own parameters may be of another
    cache = KVCache(model.config, 1, len(prompt_ids) + count, device, dtype)
    generator = torch.Generator(device)
    generator.manual_seed(generator.seed() if seed is None else seed)
    for _ in range(count):
        # Not around the loop: what is yielded in between is the caller's, whose gradients must stay as they are.
        with torch.no_grad():
            logits = model.head(model(ids, cache)[:, -1])  # (1, V)
        ids = choose_token(logits, sampling, generator)[:, None]  # (1, 1)
        token = int(ids.item())  # host-device sync
        if token in stop_ids:
            return
        yield token
