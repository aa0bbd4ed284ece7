"""GPT: the network of every family, built from a ModelConfig.

Tensor letters, here and in attention.py: B batch, T new tokens, S all tokens so far, C n_embd, H query heads,
G query groups (key/value heads), D head_size, R rotary_size, V padded_vocab_size.

Variants are chosen when a block is built, from tables; forward has none. Names of modules are Lit-GPT's.
Source: nanoGPT and Lit-GPT for the shape of the code; `families` for what each family chooses.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from litft.config.model import ModelConfig
from litft.model.attention import AttentionContext, CausalSelfAttention, KVCache, Rope, attention_mask
from litft.model.layers import MLPS, build_norm


class SequentialBlock(nn.Module):
    """x = x + attn(norm_1 x); x = x + mlp(norm_2 x)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm_1 = build_norm(config)
        self.attn = CausalSelfAttention(config, layer)
        self.norm_2 = build_norm(config)
        self.mlp = MLPS[config.mlp](config)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.norm_1(x), context)
        return cast(Tensor, x + self.mlp(self.norm_2(x)))


class ParallelBlock(SequentialBlock):
    """x + attn(norm_1 x) + mlp(norm_2 x), as in GPT-NeoX and Falcon 40b."""

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return cast(Tensor, x + self.attn(self.norm_1(x), context) + self.mlp(self.norm_2(x)))


class SharedNormBlock(nn.Module):
    """n = norm_1 x; x + attn(n) + mlp(n), as in Falcon 7b."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm_1 = build_norm(config)
        self.attn = CausalSelfAttention(config, layer)
        self.mlp = MLPS[config.mlp](config)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        normed = self.norm_1(x)
        return cast(Tensor, x + self.attn(normed, context) + self.mlp(normed))


# (parallel_residual, shared_attention_norm) -> block
BLOCKS: dict[tuple[bool, bool], type[nn.Module]] = {
    (False, False): SequentialBlock,
    (True, False): ParallelBlock,
    (True, True): SharedNormBlock,
}


class GPT(nn.Module):
    """A decoder-only language model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        block = BLOCKS[config.parallel_residual, config.shared_attention_norm]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.padded_vocab_size, config.n_embd),
                "h": nn.ModuleList(block(config, layer) for layer in range(config.n_layer)),
                "ln_f": build_norm(config),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=False)
        self.tie_weights()
        self.rope = Rope(config)

    def forward(self, input_ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Gives the final hidden states; `head` turns those that are wanted into logits.

        Args:
            input_ids: (B, T) int64.
            cache: keys and values of the tokens before these; they are extended by these.

        Returns:
            (B, T, C) in the dtype of the weights.
        """
        x: Tensor = self.transformer["wte"](input_ids)
        past, length = (cache.filled if cache else 0), input_ids.shape[1]
        cos, sin = self.rope.angles(torch.arange(past, past + length, device=x.device), x.dtype)
        mask = attention_mask(length, past, self.config.sliding_window, x.device)
        context = AttentionContext(cos, sin, mask, cache)
        for block in cast(nn.ModuleList, self.transformer["h"]):
            x = block(x, context)
        if cache is not None:
            cache.filled += length
        return cast(Tensor, self.transformer["ln_f"](x))

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) -> logits (..., V)."""
        return cast(Tensor, self.lm_head(hidden))

    def tie_weights(self) -> None:
        """Makes the head share the embedding's parameter where the config says so; assigning weights undoes it."""
        if self.config.tie_embeddings:
            self.lm_head.weight = cast(nn.Embedding, self.transformer["wte"]).weight

    def weight_names(self) -> list[str]:
        """Names of the tensors a checkpoint holds: all parameters, a tied head left out."""
        return [name for name, _ in self.named_parameters()]  # shared parameters are listed once

    def init_weights(self, seed: int) -> None:
        """Fills all weights at random: N(0, 2/(5 C)), the last projections of each block N(0, (2/n_layer)²/C).

        Source: GPT-NeoX-20B, arXiv 2204.06745, section 2.1.2 ("small init" and "Wang init").
        """
        generator = torch.Generator(self.lm_head.weight.device).manual_seed(seed)
        small = (2 / (5 * self.config.n_embd)) ** 0.5
        residual = 2 / self.config.n_layer / self.config.n_embd**0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 1:
                nn.init.constant_(parameter, 0.0 if name.endswith("bias") else 1.0)
            else:
                std = residual if name.endswith(("attn.proj.weight", "mlp.down.weight")) else small
                nn.init.normal_(parameter, 0.0, std, generator=generator)
