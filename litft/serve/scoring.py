"""What a text's own tokens are worth to the model: their log-probabilities, for clients that want the prompt back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from litft.generate.request import Candidate, Token
from litft.model.gpt import GPT

POSITIONS_AT_ONCE = 256  # of which logits over the whole vocabulary are held


def score(model: GPT, ids: Sequence[int], candidates: int) -> list[Token]:
    """Gives a token for each id, without its text; the first one's log-probability is not a number.

    Args:
        model: in evaluation mode.
        ids: T of them, no more than the model's context.
        candidates: how many of the likeliest are told at each.
    """
    told = torch.tensor([ids], device=next(model.parameters()).device)  # (1, T)
    scored = [Token(ids[0], "", math.nan)]
    with torch.no_grad():
        hidden = model(told)[0, :-1]  # (T - 1, C)
        for begin in range(0, len(hidden), POSITIONS_AT_ONCE):
            logprobs = model.head(hidden[begin : begin + POSITIONS_AT_ONCE]).float().log_softmax(dim=-1)
            values, best = logprobs.topk(min(candidates, logprobs.shape[-1]), dim=-1)
            tops = [
                tuple(Candidate(number, value) for number, value in zip(*pair, strict=True))
                for pair in zip(best.tolist(), values.tolist(), strict=True)
            ]
            following = told[0, begin + 1 : begin + 1 + len(logprobs)]
            chosen = logprobs.gather(1, following[:, None]).squeeze(1).tolist()
            scored += [
                Token(number, "", value, top)
                for number, value, top in zip(following.tolist(), chosen, tops, strict=True)
            ]
    return scored
