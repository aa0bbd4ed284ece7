"""GPT: the network of every family, built from a ModelConfig.

Tensor letters, here and in attention.py: B batch, T new tokens, S all tokens so far, C n_embd, H query heads,
G query groups (key/value heads), D head_size, R rotary_size, V padded_vocab_size.

Variants are chosen when a block is built, from tables. Names of modules are Lit-GPT's.
Source: nanoGPT and Lit-GPT for the shape of the code; `families` for what each family chooses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from litft.config.model import ModelConfig
from litft.model.activations import Activations
from litft.model.attention import (
    AttentionContext,
    CausalSelfAttention,
    KVCache,
    alibi_mask,
    alibi_slopes,
    attention_mask,
    positions_after,
)
from litft.model.documents import Documents
from litft.model.kernels import BACKENDS, GROUPED, Kernel
from litft.model.layers import build_mlp, build_norm
from litft.model.rope import build_rope

BlockForward = Callable[[Tensor, AttentionContext], Tensor]
Compiler = str | Callable[..., Any]  # as torch.compile takes it


class Block(nn.Module):
    """Attention and MLP of one layer, with the norms that its kind has; `forward` wires them."""

    norm_1: nn.Module
    norm_2: nn.Module
    norm_attn_out: nn.Module
    norm_mlp_out: nn.Module

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attn = CausalSelfAttention(config, layer)
        self.mlp = build_mlp(config)
        for name in config.block_norms:
            setattr(self, name, build_norm(config))
        self.activations = Activations()


class SequentialBlock(Block):
    """Llama's."""

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.norm_1(x), context)
        x = x + self.activations.of_mlp(lambda x: self.mlp(self.norm_2(x)), x)
        return x


class ParallelBlock(Block):
    """GPT-NeoX's and Falcon 40b's."""

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.norm_1(x), context) + self.activations.of_mlp(lambda x: self.mlp(self.norm_2(x)), x)
        return x


class SharedNormBlock(Block):
    """Falcon 7b's and Phi's."""

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        normed = self.norm_1(x)
        x = x + self.attn(normed, context) + self.activations.of_mlp(self.mlp, normed)
        return x


class SandwichBlock(Block):
    """Gemma 2's."""

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.norm_attn_out(self.attn(self.norm_1(x), context))
        x = x + self.activations.of_mlp(lambda x: self.norm_mlp_out(self.mlp(self.norm_2(x))), x)
        return x


class PostNormBlock(Block):
    """OLMo 2's."""

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.norm_attn_out(self.attn(x, context))
        x = x + self.activations.of_mlp(lambda x: self.norm_mlp_out(self.mlp(x)), x)
        return x


BLOCKS: dict[str, type[Block]] = {
    "sequential": SequentialBlock,
    "parallel": ParallelBlock,
    "shared_norm": SharedNormBlock,
    "sandwich": SandwichBlock,
    "post_norm": PostNormBlock,
}


class GPT(nn.Module):
    """A decoder-only language model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        block = BLOCKS[config.block]
        parts: dict[str, nn.Module] = {"wte": nn.Embedding(config.padded_vocab_size, config.n_embd)}
        if config.positions == "learned":
            parts["wpe"] = nn.Embedding(config.block_size + config.position_offset, config.n_embd)
        parts["h"] = nn.ModuleList(block(config, layer) for layer in range(config.n_layer))
        parts["ln_f"] = build_norm(config)
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(config.n_embd, config.padded_vocab_size, bias=config.lm_head_bias)
        self.tie_weights()
        self.windows = [config.window_of(layer) for layer in range(config.n_layer)]
        self.ropes = {window: build_rope(config, window is not None) for window in self.windows}
        self.slopes = alibi_slopes(config.n_head, config.alibi_bias_max)
        self.keep_activations(Activations())
        self.backend = GROUPED

    def forward(
        self, input_ids: Tensor, cache: KVCache | None = None, documents: Sequence[tuple[int, int]] | None = None
    ) -> Tensor:
        """Gives the final hidden states; `head` turns those that are wanted into logits.

        Args:
            input_ids: (B, T) int64.
            cache: keys and values of the tokens before these; they are extended by these.
            documents: that the one row is packed of, B = 1; none sees another. Of each its tokens, and the number of a
                document before it that it goes on from, -1 for none: that one it sees.

        Returns:
            (B, T, C) in the dtype of the weights.
        """
        past, length = (cache.past if cache else 0), input_ids.shape[1]
        packed = Documents(documents, input_ids.device) if documents else None
        positions = packed.positions if packed else positions_after(past, length, input_ids.device)
        x = self.embed(input_ids, positions)
        contexts = {window: self.context(window, positions, x.dtype, cache, packed) for window in self.ropes}
        with self.activations.waiting():
            for block, window in zip(cast(nn.ModuleList, self.transformer["h"]), self.windows, strict=True):
                x = self.activations.of_block(block, x, contexts[window])
        if cache is not None:
            cache.filled += length
        return cast(Tensor, self.transformer["ln_f"](x))

    def attend_by(self, backend: str) -> None:
        """Says what attends to packed documents: `grouped`, or a row of `kernels.BACKENDS` for those that it can."""
        self.backend = backend

    def compile_blocks(self, backend: Compiler = "inductor") -> None:
        """Has each block compiled when it is first used; all that are alike share the result.

        A forward pass with a cache stays as it is: a compiler would begin anew with each token.

        Args:
            backend: of torch.compile.
        """
        for block in cast(nn.ModuleList, self.transformer["h"]):
            # The function, not the module: what FSDP hangs on a module stays outside, and names stay as they are.
            block.forward = compiled_forward(cast(Block, block), backend)

    def keep_activations(self, how: Activations) -> None:
        """Says what a forward pass keeps for its backward pass."""
        self.activations = how
        for block in cast(nn.ModuleList, self.transformer["h"]):
            cast(Block, block).activations = how

    def embed(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """(B, T) and (T,) or (B, T) -> (B, T, C)."""
        x: Tensor = self.transformer["wte"](input_ids)
        if self.config.embedding_scale is not None:
            # The factor is rounded to the dtype of the weights. Source: `GemmaTextScaledWordEmbedding`.
            x = x * torch.tensor(self.config.embedding_scale, dtype=x.dtype, device="cpu").item()
        if self.config.positions == "learned":
            x = x + self.transformer["wpe"](positions + self.config.position_offset)
        return x

    def context(
        self,
        window: int | None,
        positions: Tensor,
        dtype: torch.dtype,
        cache: KVCache | None,
        documents: Documents | None,
    ) -> AttentionContext:
        """Gives what the blocks of this window share."""
        length, device = positions.shape[-1], positions.device
        texts: list[tuple[int, int | Tensor]] = [(length, cache.past if cache else 0)]
        kernel, longest = self.kernel(window, documents), 0
        if documents:
            groups = () if kernel else documents.groups
            texts = [(group.length, group.past_tokens) for group in groups]
            longest = max((group.length + group.past_tokens for group in groups), default=0)
        masks = tuple(self.mask(tokens, before, window, device, dtype) for tokens, before in texts)
        cos, sin = self.ropes[window].angles(positions.flatten(), self.reaches(length, cache, documents), dtype)
        if positions.dim() == 2:
            cos, sin = (x.view(len(positions), 1, length, x.shape[-1]) for x in (cos, sin))
        is_plain = self.config.positions != "alibi" and self.config.attention_softcap is None
        is_plain = is_plain and (window is None or longest <= window)
        return AttentionContext(cos, sin, masks, positions, cache, documents, is_plain, kernel)

    def kernel(self, window: int | None, documents: Documents | None) -> Kernel | None:
        """Gives what attends to these documents; None where they are grouped, as those that go on from others are."""
        if documents is None or not documents.is_simple or self.backend == GROUPED:
            return None
        return BACKENDS[self.backend].build(self.config, window, documents)

    def mask(
        self, length: int, past: int | Tensor, window: int | None, device: torch.device, dtype: torch.dtype
    ) -> Tensor | None:
        """Gives what `AttentionContext.masks` holds for a text of `length` tokens after `past` others."""
        if self.config.positions == "alibi":
            return alibi_mask(length, past, self.slopes.to(device), dtype)
        return attention_mask(length, past, window, device)

    def reaches(self, length: int, cache: KVCache | None, documents: Documents | None) -> list[tuple[int, int]]:
        """Gives how far each text is to grow, beside how many of these tokens are its: (tokens, reach) of each.

        A text's rotation must not change while it grows, so it is chosen by what the cache says of its end.
        """
        if documents:
            return [(tokens, tokens) for tokens in documents.lengths]
        return [(length, reach) for reach in (cache.reach.tolist() if cache else [length])]

    def head(self, hidden: Tensor) -> Tensor:
        """(..., C) -> logits (..., V)."""
        logits: Tensor = self.lm_head(hidden)
        cap = self.config.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

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
            module = self.get_submodule(name.rpartition(".")[0])
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif isinstance(module, nn.Linear | nn.Embedding):
                std = residual if name.endswith(("attn.proj.weight", ".down.weight")) else small
                nn.init.normal_(parameter, 0.0, std, generator=generator)
            else:
                nn.init.constant_(parameter, getattr(module, "initial", 1.0))


def compiled_forward(block: Block, backend: Compiler) -> BlockForward:
    """Gives the forward of a block, compiled for any number of tokens; a call with a cache is left as it was.

    A module names in `never_compiled` the method that the compiler is to leave alone. A decorator there would import
    torch's compiler, a second's work, into commands that never compile.

    Args:
        block: whose.
        backend: of torch.compile.
    """
    for module in block.modules():
        name = getattr(module, "never_compiled", None)
        if isinstance(name, str):
            setattr(module, name, torch.compiler.disable(getattr(module, name)))  # type: ignore[no-untyped-call]
    forward: BlockForward = block.forward
    compiled = torch.compile(forward, backend=backend)

    @functools.wraps(forward)
    def called(x: Tensor, context: AttentionContext) -> Tensor:
        if context.cache is not None:
            return forward(x, context)
        for tensor, dimension in ((x, -2), (context.cos, -2), (context.sin, -2)):
            torch._dynamo.maybe_mark_dynamic(tensor, tensor.dim() + dimension)
        return compiled(x, context)

    return called
