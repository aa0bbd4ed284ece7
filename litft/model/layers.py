"""The parts a block is made of, and the tables that choose among them.

A new kind of norm, activation or MLP is one class here and one row in its table. Knows no attention, no families.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.config.model import ModelConfig

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) in float32, cast back, then times the weight.

    Source: `LlamaRMSNorm` of Hugging Face; the cast before the product is Llama's order.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C); a weight that is trained in float32 is cast to the activations."""
        return self.weight.to(x.dtype) * F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """torch's layer norm, built like `RMSNorm`."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C); a weight that is trained in float32 is cast to the activations."""
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}


def build_norm(config: ModelConfig) -> nn.Module:
    """Gives the norm of this model, over C = n_embd."""
    return NORMS[config.norm](config.n_embd, config.norm_eps)


class GatedMLP(nn.Module):
    """down(act(gate x) * up x), such as Llama's SwiGLU. Source: arXiv 2002.05202."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.n_embd, config.intermediate_size, bias=config.mlp_bias)
        self.up = nn.Linear(config.n_embd, config.intermediate_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, config.n_embd, bias=config.mlp_bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        gated: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return gated


class PlainMLP(nn.Module):
    """down(act(up x)), as in GPT-NeoX and Falcon."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, config.intermediate_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, config.n_embd, bias=config.mlp_bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        projected: Tensor = self.down(self.activation(self.up(x)))
        return projected


MLPS: dict[str, Callable[[ModelConfig], nn.Module]] = {"gated": GatedMLP, "plain": PlainMLP}
