"""Causal self-attention with rotary positions and a key/value cache that the caller owns.

Covers MHA, GQA and MQA, partial rotation, rope scaling and sliding windows. Knows nothing of blocks or training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.config.model import ModelConfig, RopeScaling


class Rope:
    """Rotary angles. Half rotation: the first half of the rotated numbers pairs with the second, in every family.

    Not a module: its frequencies are never cast, saved or left on the meta device.

    Source: arXiv 2104.09864; the pairing is GPT-NeoX's, which Hugging Face uses for all of these families.
    """

    def __init__(self, config: ModelConfig) -> None:
        exponents = torch.arange(0, config.rotary_size, 2, dtype=torch.float32, device="cpu") / config.rotary_size
        frequencies = 1.0 / config.rope_base**exponents  # (R/2,)
        self.frequencies = scale_frequencies(frequencies, config.rope_scaling)

    def angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gives cos and sin for these positions, computed in float32.

        Args:
            positions: (T,) int64.
            dtype: of the activations.

        Returns:
            Two tensors (T, R), R = rotary_size, both halves equal.
        """
        if self.frequencies.device != positions.device:
            self.frequencies = self.frequencies.to(positions.device)
        half = positions.float()[:, None] * self.frequencies  # (T, R/2)
        full = torch.cat((half, half), dim=-1)  # (T, R)
        return full.cos().to(dtype), full.sin().to(dtype)


def scale_frequencies(frequencies: Tensor, scaling: RopeScaling | None) -> Tensor:
    """Stretches rotary frequencies (R/2,) beyond the length of the first training.

    Source: Hugging Face `modeling_rope_utils`; the llama3 rule is from Meta's Llama 3.1 reference code.
    """
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    wavelengths = 2 * math.pi / frequencies
    low, high, length = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_block_size
    share = ((length / wavelengths - low) / (high - low)).clamp(0, 1)  # 0: long waves, 1: short waves
    return (1 - share) * frequencies / scaling.factor + share * frequencies


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the first R numbers of each head; the rest pass.

    Args:
        x: (B, H, T, D).
        cos, sin: (T, R).

    Returns:
        (B, H, T, D).
    """
    size = cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)  # under autocast q and k are narrower than the embedding
    rotated, passed = x[..., :size], x[..., size:]
    first, second = rotated.chunk(2, dim=-1)
    turned = rotated * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, passed), dim=-1) if size < x.shape[-1] else turned


class KVCache:
    """Keys and values of a text so far, pre-allocated; made by generation, given to each forward, kept by no module."""

    def __init__(self, config: ModelConfig, batch: int, length: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.n_layer, batch, config.n_query_groups, length, config.head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.filled = 0  # tokens whose keys and values stand here

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the new keys and values (B, G, T, D) of one layer and gives all so far (B, G, filled + T, D)."""
        stop = self.filled + key.shape[2]
        self.keys[layer, :, :, self.filled : stop] = key
        self.values[layer, :, :, self.filled : stop] = value
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]


@dataclass(frozen=True)
class AttentionContext:
    """What every block of one forward shares.

    Attributes:
        cos, sin: (T, R) rotary angles of these positions.
        mask: (T, past + T) bool, True where a query sees a key; None when plain causality, or one query, needs none.
        cache: where keys and values are kept, if anywhere.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    cache: KVCache | None


def attention_mask(length: int, past: int, window: int | None, device: torch.device) -> Tensor | None:
    """Gives the mask of `length` new tokens after `past` cached ones, or None where the kernel's own causality will do.

    A window of W lets a token see W tokens, itself included (query i sees key j when 0 <= i - j < W).

    Returns:
        (length, past + length) bool, or None.
    """
    total = past + length
    sees_all = window is None or total <= window
    if sees_all and (past == 0 or length == 1):
        return None
    distance = torch.arange(past, total, device=device)[:, None] - torch.arange(total, device=device)
    return (distance >= 0) & (distance < (window or total))


class CausalSelfAttention(nn.Module):
    """Attention of one block; q, k and v come from one linear layer whose rows are [q; k; v]."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.qkv = nn.Linear(config.n_embd, sum(config.qkv_sizes), bias=config.qkv_bias)
        self.proj = nn.Linear(config.n_head * config.head_size, config.n_embd, bias=config.proj_bias)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q, k, v = self.split_heads(self.qkv(x))
        q, k = rotate(q, context.cos, context.sin), rotate(k, context.cos, context.sin)
        if context.cache is not None:
            k, v = context.cache.extend(self.layer, k, v)
        y = self.attend(q, k, v, context.mask)  # (B, H, T, D)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))  # (B, T, C)
        return out

    def split_heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, (H + 2G) D) -> q (B, H, T, D), k and v (B, G, T, D)."""
        parts = torch.split(qkv, list(self.config.qkv_sizes), dim=-1)
        q, k, v = (part.view(*part.shape[:2], -1, self.config.head_size).transpose(1, 2) for part in parts)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Softmax attention: q (B, H, T, D), k and v (B, G, S, D) -> (B, H, T, D)."""
        if mask is not None:
            # Under a mask CUDA's grouped attention falls back to a kernel that holds all T x S scores.
            # Source: `sdpa_attention.py` of transformers.
            repeats = q.shape[1] // k.shape[1]
            k, v = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and q.shape[2] > 1, enable_gqa=q.shape[1] != k.shape[1]
        )
