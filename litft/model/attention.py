"""Causal self-attention and a key/value cache that the caller owns.

Covers MHA, GQA and MQA, rotary positions and ALiBi, sliding windows, soft caps, and norms of queries and keys. Knows
nothing of blocks or training.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.config.model import ModelConfig
from litft.model.cpu_attention import PackedAttention
from litft.model.documents import Documents
from litft.model.layers import build_qk_norm
from litft.model.rope import rotate

if TYPE_CHECKING:
    from litft.model.kernels import Kernel


class KVCache:
    """Keys and values of texts so far, pre-allocated; made by generation, given to each forward, kept by no module.

    Each row is a text of its own, as long as it is: no padding stands before a short one.

    Attributes:
        keys, values: (layers, B, G, room, D).
        filled: (B,) int64 on the CPU, tokens of each row whose keys and values stand here.
        reach: (B,) int64 on the CPU, how far each text is to grow; all the room unless somebody says less.
    """

    def __init__(self, config: ModelConfig, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        """Makes an empty cache for `batch` texts of up to `length` tokens."""
        shape = (config.n_layer, batch, config.n_query_groups, length, config.head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.filled = torch.zeros(batch, dtype=torch.int64, device="cpu")
        self.reach = torch.full((batch,), length, device="cpu")

    def part(self, start: int, stop: int) -> KVCache:
        """Gives some of the rows; what is written to them stands here."""
        part = copy.copy(self)
        part.keys, part.values = self.keys[:, start:stop], self.values[:, start:stop]
        part.filled, part.reach = self.filled[start:stop], self.reach[start:stop]
        return part

    def swap(self, one: int, other: int, count: int) -> None:
        """Exchanges the first `count` tokens of two rows."""
        for kept in (*self.keys, *self.values):  # layer by layer: what is copied aside stays small
            kept[[one, other], :, :count] = kept[[other, one], :, :count]

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies the first `count` tokens of one row over another."""
        for kept in (self.keys, self.values):
            kept[:, target, :, :count] = kept[:, source, :, :count]

    @property
    def past(self) -> int | Tensor:
        """How many tokens stand before the new ones: a number where there is one row, else `filled`."""
        return int(self.filled) if len(self.filled) == 1 else self.filled

    def extend(self, layer: int, key: Tensor, value: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Writes what one layer made of new tokens and gives all so far.

        Args:
            layer: which one.
            key, value: (B, G, T, D).
            positions: of the new tokens, as `positions_after` gives them.

        Returns:
            Keys and values (B, G, longest text, D); behind the end of a shorter one stands anything finite.
        """
        stop = int(self.filled.max()) + key.shape[2]
        whole = self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]
        for kept, new in zip(whole, (key, value), strict=True):
            if positions.dim() == 1:
                kept[:, :, stop - key.shape[2] :] = new
            else:
                rows = torch.arange(len(new), device=new.device)[:, None]
                kept.transpose(1, 2)[rows, positions] = new.transpose(1, 2).to(kept.dtype)
        return whole


@dataclass(frozen=True)
class AttentionContext:
    """What the blocks of one forward share.

    Attributes:
        cos, sin: (T, R) rotary angles of these positions, or (B, 1, T, R) where each row has its own; R is 0 where
            nothing is rotated.
        masks: (T, past + T) bool, True where a query sees a key, or (H, T, past + T) to be added to the scores, with
            (B, 1 or H, ...) before them where each row has its own past; None when plain causality, or one query, needs
            none. One for the text, or one for each group of documents.
        positions: of these tokens, (T,) or (B, T).
        cache: where keys and values are kept, if anywhere.
        documents: of a packed row; None where each row is one text.
        is_plain: of documents, whether causality alone says what is seen: no window, no ALiBi, no soft cap.
        kernel: that attends to these documents; None where they are grouped.
    """

    cos: Tensor
    sin: Tensor
    masks: tuple[Tensor | None, ...]
    positions: Tensor
    cache: KVCache | None
    documents: Documents | None
    is_plain: bool
    kernel: Kernel | None = None


def attention_mask(length: int, past: int | Tensor, window: int | None, device: torch.device) -> Tensor | None:
    """Gives the mask of `length` new tokens after `past` cached ones, or None where the kernel's own causality will do.

    A window of W lets a token see W tokens, itself included (query i sees key j when 0 <= i - j < W).

    Returns:
        (length, past + length) bool, or None; (B, 1, length, longest + length) for a `past` of each row.
    """
    if isinstance(past, int) and (window is None or past + length <= window) and (past == 0 or length == 1):
        return None
    distance = _distances(length, past, device)
    return (distance >= 0) & (distance < (window or distance.shape[-1]))


def alibi_mask(length: int, past: int | Tensor, slopes: Tensor, dtype: torch.dtype) -> Tensor:
    """Gives what ALiBi adds to the scores: minus the distance times the head's slope, minus infinity for the future.

    Args:
        length, past: new and cached tokens.
        slopes: (H,).
        dtype: of the queries.

    Returns:
        (H, length, past + length); (B, H, length, longest + length) for a `past` of each row.

    Source: arXiv 2108.12409.
    """
    distance = _distances(length, past, slopes.device)
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, -math.inf).to(dtype)


def alibi_slopes(n_head: int, bias_max: float) -> Tensor:
    """Gives the slopes (H,): 2^(-bias_max i / n) for i = 1..n, n the next power of two; of more than H, the odd first.

    Source: `build_mpt_alibi_tensor` of Hugging Face.
    """
    count = 2 ** math.ceil(math.log2(n_head))
    slopes = 2.0 ** (-bias_max / count * torch.arange(1, count + 1, dtype=torch.float32, device="cpu"))
    return slopes if count == n_head else torch.cat((slopes[1::2], slopes[::2]))[:n_head]


def positions_after(past: int | Tensor, length: int, device: torch.device) -> Tensor:
    """Gives the positions of `length` new tokens: (length,), or (B, length) for a `past` of each row."""
    if isinstance(past, int):
        return torch.arange(past, past + length, device=device)
    return past.to(device)[:, None] + torch.arange(length, device=device)


def _distances(length: int, past: int | Tensor, device: torch.device) -> Tensor:
    """Gives how far back each key lies from each query: (length, total), or (B, 1, length, total)."""
    total = length + (past if isinstance(past, int) else int(past.max()))
    distances = positions_after(past, length, device)[..., None] - torch.arange(total, device=device)
    return distances if isinstance(past, int) else distances[:, None]


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None) -> Tensor:
    """Softmax attention by torch's kernels: q (B, H, T, D), k and v (B, G, S, D) -> (B, H, T, D)."""
    if mask is not None:
        # Under a mask CUDA's grouped attention falls back to a kernel that holds all T x S scores.
        # Source: `sdpa_attention.py` of transformers.
        k, v = repeat_groups(k, q), repeat_groups(v, q)
        mask = mask.to(q.dtype) if mask.is_floating_point() else mask  # q is narrower under autocast
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def softcapped_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None, cap: float
) -> Tensor:
    """The same with scores of cap * tanh(score / cap), which torch's kernels do not have. Source: arXiv 2408.00118."""
    k, v = repeat_groups(k, q), repeat_groups(v, q)
    scores = q @ k.mT * (scale or q.shape[-1] ** -0.5)  # (B, H, T, S)
    scores = cap * torch.tanh(scores / cap)
    if causal:
        mask = _distances(q.shape[2], 0, q.device) >= 0  # T = S
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.float().softmax(-1).to(q.dtype) @ v


def repeat_groups(x: Tensor, q: Tensor) -> Tensor:
    """Repeats keys or values (B, G, S, D) for each query head of their group: (B, H, S, D)."""
    return x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)


class CausalSelfAttention(nn.Module):
    """Attention of one block; q, k and v come from one linear layer whose rows are [q; k; v]."""

    never_compiled = "grouped"  # how many groups there are, and how long, is another in each row

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.qkv = nn.Linear(config.n_embd, sum(config.qkv_sizes), bias=config.qkv_bias)
        self.proj = nn.Linear(config.n_head * config.head_size, config.n_embd, bias=config.proj_bias)
        self.norm_q = build_qk_norm(config, config.n_head)
        self.norm_k = build_qk_norm(config, config.n_query_groups)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.project(x)
        q, k = rotate(q, context.cos, context.sin), rotate(k, context.cos, context.sin)
        if context.cache is not None:
            k, v = context.cache.extend(self.layer, k, v, context.positions)
        y = self.attend(q, k, v, context)  # (B, H, T, D)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))  # (B, T, C)
        return out

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, C) -> q (B, H, T, D), k and v (B, G, T, D), not rotated yet."""
        qkv = self.qkv(x)  # (B, T, (H + 2G) D)
        if self.config.qkv_clip is not None:
            qkv = qkv.clamp(-self.config.qkv_clip, self.config.qkv_clip)
        parts = torch.split(qkv, list(self.config.qkv_sizes), dim=-1)
        q, k, v = (part.view(*part.shape[:2], -1, self.config.head_size).transpose(1, 2) for part in parts)
        return self.norm_q(q), self.norm_k(k), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        """Softmax attention, within each document: q (B, H, T, D), k and v (B, G, S, D) -> (B, H, T, D)."""
        if context.documents is None:
            return self.causal(q, k, v, context.masks[0])
        if context.kernel is not None:
            return context.kernel(q, k, v)
        y: Tensor = self.grouped(q, k, v, context, context.documents)
        return y

    def grouped(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext, documents: Documents) -> Tensor:
        """Attention within each document, those of like length side by side."""
        if context.is_plain and q.device.type == "cpu" and torch.is_grad_enabled():
            scale = self.config.attention_scale or q.shape[-1] ** -0.5
            return PackedAttention.apply(q, k, v, documents, scale)  # type: ignore[no-any-return, no-untyped-call]
        rows = documents.spread(q), *(documents.spread(x, with_past=True) for x in (k, v))
        return documents.join([self.causal(*group) for group in zip(*rows, context.masks, strict=True)])

    def causal(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Softmax attention where each row is one text: q (B, H, T, D), k and v (B, G, S, D) -> (B, H, T, D)."""
        if q.shape[2] > 1 or q.shape[1] == k.shape[1]:
            return self.kernel(q, k, v, mask, causal=mask is None and q.shape[2] > 1)
        # One query: the heads of a group stand as its queries, and no key is copied for each of them.
        if mask is not None and mask.is_floating_point():  # ALiBi's, of each head
            mask = mask.view(*mask.shape[:-3], k.shape[1], -1, mask.shape[-1])
        grouped = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])  # (B, G, H/G, D)
        return self.kernel(grouped, k, v, mask, causal=False).reshape(q.shape)

    def kernel(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """The attention of this model's kind, with its scale and soft cap."""
        scale, cap = self.config.attention_scale, self.config.attention_softcap
        if cap is None:
            return fused_attention(q, k, v, mask, causal, scale)
        return softcapped_attention(q, k, v, mask, causal, scale, cap)
