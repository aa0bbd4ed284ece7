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
from litft.model.fused import rms_normalize, silu_gate

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) in float32, cast back, then times the weight.

    Source: `LlamaRMSNorm` of Hugging Face; the cast before the product is Llama's order.
    """

    initial = 1.0

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), self.initial))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C); a weight that is trained in float32 is cast to the activations."""
        return rms_normalize(x, self.eps, self.weight, False, True)


class RMSNormFloat32(RMSNorm):
    """The same, cast back after the product. Source: `Olmo2RMSNorm` of Hugging Face."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return rms_normalize(x, self.eps, self.weight, False, False)


class RMSNormPlusOne(RMSNorm):
    """The same with 1 + weight in place of the weight. Source: `GemmaRMSNorm` of Hugging Face."""

    initial = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return rms_normalize(x, self.eps, self.weight, True, False)


class LayerNorm(nn.LayerNorm):
    """torch's layer norm, built like `RMSNorm`."""

    def __init__(self, size: int, eps: float, bias: bool = True) -> None:
        super().__init__(size, eps=eps, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C); weights that are trained in float32 are cast to the activations."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), bias, self.eps)


class PlainLayerNorm(nn.Module):
    """Layer norm without weight and bias, in float32. Source: `OlmoLayerNorm` of Hugging Face."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return F.layer_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "rmsnorm": RMSNorm,
    "rmsnorm_float32": RMSNormFloat32,
    "rmsnorm_plus_one": RMSNormPlusOne,
    "layernorm": LayerNorm,
    "layernorm_no_bias": partial(LayerNorm, bias=False),
    "layernorm_plain": PlainLayerNorm,
}


def build_norm(config: ModelConfig) -> nn.Module:
    """Gives the norm of this model, over C = n_embd."""
    return NORMS[config.norm](config.n_embd, config.norm_eps)


class NormEachHead(nn.Module):
    """Layer norm over D with a weight for each head, no bias, in float32.

    Source: `StableLmLayerNormPerHead` of Hugging Face.
    """

    def __init__(self, n_head: int, head_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_head, head_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, T, D) -> (B, H, T, D)."""
        normed = F.layer_norm(x.float(), x.shape[-1:], eps=self.eps)
        return (normed * self.weight.float()[:, None]).to(x.dtype)


class NormAllHeads(RMSNormFloat32):
    """One norm over all heads side by side. Source: `Olmo2Attention` of Hugging Face."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, T, D) -> (B, H, T, D)."""
        normed = super().forward(x.transpose(1, 2).flatten(2))  # (B, T, H D)
        return normed.view(*normed.shape[:2], x.shape[1], x.shape[3]).transpose(1, 2)


QK_NORMS: dict[str | None, Callable[[ModelConfig, int], nn.Module]] = {
    None: lambda config, heads: nn.Identity(),
    "head": lambda config, heads: NORMS[config.norm](config.head_size, config.norm_eps),
    "each_head": lambda config, heads: NormEachHead(heads, config.head_size, config.norm_eps),
    "all_heads": lambda config, heads: NormAllHeads(heads * config.head_size, config.norm_eps),
}


def build_qk_norm(config: ModelConfig, heads: int) -> nn.Module:
    """Gives the norm of queries or keys of so many heads, (B, heads, T, D) -> the same."""
    return QK_NORMS[config.qk_norm](config, heads)


class GatedMLP(nn.Module):
    """down(act(gate x) * up x), such as Llama's SwiGLU. Source: arXiv 2002.05202."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.n_embd, config.intermediate_size, bias=config.mlp_bias)
        self.up = nn.Linear(config.n_embd, config.intermediate_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, config.n_embd, bias=config.mlp_bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        gate, up = self.gate(x), self.up(x)
        is_silu = self.activation is F.silu
        inner = silu_gate(gate, up) if is_silu else self.activation(gate) * up
        gated: Tensor = self.down(inner)
        return gated


class PlainMLP(nn.Module):
    """down(act(up x)), as in GPT-NeoX and Falcon."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.n_embd, config.intermediate_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, config.n_embd, bias=config.mlp_bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        projected: Tensor = self.down(self.activation(self.up(x)))
        return projected


MLPS: dict[str, Callable[[ModelConfig], nn.Module]] = {"gated": GatedMLP, "plain": PlainMLP}


class MixtureOfExperts(nn.Module):
    """A router chooses a few MLPs for each token and adds their outputs, weighted.

    The router's softmax is over all experts, in float32.
    Source: `MixtralTopKRouter` and `Qwen3MoeTopKRouter` of Hugging Face; arXiv 2401.04088.
    """

    never_compiled = "forward"  # which experts are met, and by how many tokens, is another in each batch

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.router = nn.Linear(config.n_embd, config.n_expert, bias=False)
        self.experts = nn.ModuleList(MLPS[config.mlp](config) for _ in range(config.n_expert))
        self.chosen, self.normalize = config.n_expert_per_token, config.normalize_expert_weights

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        flat = x.flatten(0, -2)  # (N, C), N = B T
        weights, experts = self.router(flat).float().softmax(-1).topk(self.chosen)  # both (N, K)
        if self.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(flat)
        for expert in experts.unique().tolist():  # host-device sync
            token, place = (experts == expert).nonzero(as_tuple=True)
            share = weights[token, place, None].to(x.dtype)
            out = out.index_add(0, token, self.experts[expert](flat[token]) * share)
        return out.view_as(x)


def build_mlp(config: ModelConfig) -> nn.Module:
    """Gives the MLP of a block, or the experts in its place."""
    return MixtureOfExperts(config) if config.n_expert else MLPS[config.mlp](config)
