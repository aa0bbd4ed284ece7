"""The model FLOPs of a run: the work that its mathematics asks for, however it is computed.

A weight costs 2 for each token forward, 2 backward where something below it is trained, and 2 more where it is
trained itself: 6 N a token for full finetuning, 4 N for adapters. The head costs that for each target only, as it runs
on no other position. Attention costs 4 D for each head and each pair of a token and one that it sees, and twice that
backward. What is computed a second time (checkpointing, attention's backward pass) and padding count for nothing.

Source: arXiv 2204.02311, appendix B (6 N, and attention), with half of attention's pairs, those that causality leaves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litft.config.model import ModelConfig
from litft.methods.base import Method, freeze
from litft.model.gpt import GPT
from litft.model.load import build_empty


def model_flops(config: ModelConfig, method: Method, lengths: Tensor, targets: int) -> float:
    """Gives the floating-point operations of one pass over rows, forward and backward.

    Args:
        config: the base's sizes.
        method: says what is trained.
        lengths: (n,) int64, tokens of each row.
        targets: how many positions have a target.
    """
    model = build_empty(config)
    method.apply(model)
    freeze(model, method)
    first = _first_trained_block(model)
    total, tokens = _matrix_flops(model.lm_head, 0, config) * targets, int(lengths.sum())
    for layer, block in enumerate(model.get_submodule("transformer.h").children()):
        total += _matrix_flops(block, layer - first, config) * tokens
        passes = 3 if layer >= first else 1  # backward is twice the forward
        pairs = _pairs(lengths, config.window_of(layer))
        total += passes * 4 * config.n_head * config.head_size * pairs
    return total


def _first_trained_block(model: GPT) -> int:
    """Gives the lowest block that gradients reach; their number where none does."""
    blocks = list(model.get_submodule("transformer.h").children())
    trained = [layer for layer, block in enumerate(blocks) if _is_trained(block)]
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    return 0 if any(_is_trained(module) for module in embeddings) else min(trained, default=len(blocks))


def _is_trained(module: nn.Module) -> bool:
    """Says whether any of its parameters is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _matrix_flops(module: nn.Module, height: int, config: ModelConfig) -> float:
    """Gives the operations that the matrices of a module take for one token.

    Args:
        module: a block, or the head.
        height: below 0 where no gradient comes.
        config: says how many experts a token goes through.
    """
    total = 0.0
    for name, parameter in module.named_parameters():
        if parameter.ndim == 2 and not name.endswith("adapter_prompt"):  # which is no matrix that a token meets
            share = config.n_expert_per_token / config.n_expert if ".experts." in name else 1.0
            total += 2 * parameter.numel() * share * (1 + (height >= 0) + parameter.requires_grad)
    return total


def _pairs(lengths: Tensor, window: int | None) -> int:
    """Counts the pairs of a token and one that it sees, itself included."""
    seen = torch.clamp(lengths, max=window) if window else lengths
    return int((seen * (seen + 1) // 2 + (lengths - seen) * seen).sum())
