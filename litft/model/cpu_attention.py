"""Causal attention of packed documents on a CPU, whose backward pass is made of batched matrix products.

torch's flash kernel for CPUs is slow backwards on short documents: on two cores, 2,048 tokens in documents of 128 took
54 ms forward and backward with it and 29 ms so, in documents of 512 86 and 77 ms. Scores and their gradient are
float32: against float64 the result is as close as the kernel's. Knows no masks, soft caps or rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litft.model.documents import Documents, Group, after_past

BLOCK = 128  # queries at once; those of a block see no key beyond its end, which saves half of a long document's work


class PackedAttention(torch.autograd.Function):
    """softmax(q k' scale, future masked) v within each document and what it goes on from.

    q (1, H, T, D), k and v (1, G, T, D) -> (1, H, T, D).

    Kept are q, k, v and what they gave, without padding.
    Source: the gradient is that of FlashAttention-2, arXiv 2307.08691, section 3.1.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, documents: Documents, scale: float) -> Tensor:
        """Leaves each group of documents to torch's kernel."""
        q, k, v = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))  # (T, H, D), (T, G, D)
        y = torch.empty_like(q)
        for group in documents.groups:
            rows, keys, values = (_padded(x, group).transpose(1, 2) for x in (q, k, v))
            keys, values = (_with_past(x, each, group) for x, each in ((k, keys), (v, values)))
            mask = None
            if group.past:
                mask = torch.ones(group.length, keys.shape[2], dtype=torch.bool, device=q.device).tril_(
                    group.past_tokens
                )
            part = F.scaled_dot_product_attention(
                rows, keys, values, mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
            )
            _put(y, part.transpose(1, 2), group)
        ctx.save_for_backward(q, k, v, y)
        ctx.documents, ctx.scale = documents, scale
        return y.transpose(0, 1)[None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Computes the probabilities again, group by group."""
        q, k, v, y = ctx.saved_tensors
        gradient = gradients[0][0].transpose(0, 1)  # (T, H, D)
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for group in ctx.documents.groups:
            rows = [_padded(x, group).transpose(1, 2).contiguous() for x in (q, y, gradient, k, v)]
            if group.back is not None:  # what padding gave is not used
                rows[2].masked_fill_(group.padding[:, None, :, None], 0.0)
            rows[3:] = [_with_past(x, each, group) for x, each in zip((k, v), rows[3:], strict=True)]
            for out, part in zip((dq, dk, dv), _gradients(rows, ctx.scale), strict=True):
                _put(out, part[:, :, -group.length :].transpose(1, 2), group)
                if group.past and out is not dq:  # what is gone on from stands before, and has its own share already
                    out[group.past] += part[:, :, : group.past_tokens].sum(0).transpose(0, 1)
        return dq.transpose(0, 1)[None], dk.transpose(0, 1)[None], dv.transpose(0, 1)[None], None, None


def _padded(x: Tensor, group: Group) -> Tensor:
    """(T, H, D) -> (count, length, H, D)."""
    tokens = x[group.start : group.stop]
    if group.places is not None:
        tokens = tokens.index_select(0, group.places)
    return tokens.reshape(group.count, group.length, *x.shape[1:])


def _with_past(x: Tensor, rows: Tensor, group: Group) -> Tensor:
    """Puts what a group goes on from before its keys or values: x is (T, G, D), they are (count, G, length, D)."""
    return after_past(x.transpose(0, 1)[None], rows, group)


def _put(out: Tensor, rows: Tensor, group: Group) -> None:
    """Writes (count, length, H, D) to its tokens of (T, H, D), padding left out."""
    tokens = rows.flatten(0, 1)
    if group.back is not None:
        torch.index_select(tokens, 0, group.back, out=out[group.start : group.stop])
    else:
        out[group.start : group.stop] = tokens


def _gradients(rows: Sequence[Tensor], scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gives the gradients of q (B, H, T, D) and of k and v (B, G, S, D).

    Args:
        rows: q, what it gave and its gradient, all (B, H, T, D), k and v (B, G, S, D): the last query sees all S.
        scale: of the scores.
    """
    q, y, g, k, v = rows
    groups, length, past = k.shape[1], q.shape[2], k.shape[2] - q.shape[2]
    # A group's query heads stand side by side: they share its keys and values.
    q, y, g = (x.view(x.shape[0], groups, -1, *x.shape[2:]) for x in (q, y, g))
    dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        of_block = [x[:, :, :, start:stop].flatten(2, 3) for x in (q, y, g)]  # (B, G, H/G block, D)
        seen = [x[:, :, : past + stop] for x in (k, v)]
        block_dq, block_dk, block_dv = _block_gradients([*of_block, *seen], scale, past + start)
        dq[:, :, :, start:stop] = block_dq.view(*q.shape[:3], stop - start, -1)
        dk[:, :, : past + stop] += block_dk
        dv[:, :, : past + stop] += block_dv
    return dq.flatten(1, 2), dk, dv


def _block_gradients(tensors: Sequence[Tensor], scale: float, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gives what a block of queries adds to the gradients of queries, keys and values.

    Args:
        tensors: q, y, g: (B, G, H/G N, D), N queries from position `start` on, what they gave, and its gradient; k and
            v: (B, G, start + N, D), what they see.
        scale: of the scores.
        start: position of the first query.
    """
    q, y, g, k, v = tensors
    q, total = q * scale, k.shape[2]
    count = total - start
    scores = q.float() @ k.float().mT  # (B, G, H/G N, S)
    future = torch.ones(count, total, dtype=torch.bool, device=q.device).triu_(1 + start)
    scores.view(*scores.shape[:2], -1, count, total).masked_fill_(future, -torch.inf)
    chances = scores.softmax(-1)
    mean = (g.float() * y).sum(-1, keepdim=True)
    change = (g.float() @ v.float().mT).sub_(mean).mul_(chances).to(q.dtype)
    return (change @ k).mul_(scale), change.mT @ q, chances.to(q.dtype).mT @ g
