"""LLaMA-Adapter: learned prompts in attention (v1), and with them a scale and a bias on every linear layer (v2).

Source: v1 arXiv 2303.16199, v2 arXiv 2304.15010; the gate is one number a head, without tanh, as in Lit-GPT.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from litft.config.run import AdapterConfig
from litft.errors import ConfigError
from litft.methods.base import settings_of, swap_module
from litft.model.attention import AttentionContext, CausalSelfAttention
from litft.model.gpt import GPT


class AdapterAttention(CausalSelfAttention):
    """Attention that also looks at learned vectors, through its own frozen k and v, with a softmax of its own.

    The gate is zero at the start, so that the layer begins as its base. The prompt's keys and values are computed at
    every forward: a cache of them that survived a step would hide the prompt from its gradient.
    """

    def __init__(self, base: CausalSelfAttention, prompt_length: int) -> None:
        nn.Module.__init__(self)
        self.config, self.layer, self.qkv, self.proj = base.config, base.layer, base.qkv, base.proj
        self.norm_q, self.norm_k = base.norm_q, base.norm_k
        device = next(base.parameters()).device
        self.adapter_prompt = nn.Parameter(torch.randn(prompt_length, self.config.n_embd, device=device))
        self.adapter_gate = nn.Parameter(torch.zeros(self.config.n_head, device=device))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
        """Adds the gated attention to the prompt: q (B, H, T, D) -> (B, H, T, D)."""
        y = super().attend(q, k, v, context)
        prompt = self.adapter_prompt.to(q.dtype).expand(q.shape[0], -1, -1)  # (B, P, C)
        _, prompt_k, prompt_v = self.project(prompt)  # (B, G, P, D), not rotated
        extra = self.kernel(q, prompt_k, prompt_v, mask=None, causal=False)
        return y + self.adapter_gate.to(q.dtype)[:, None, None] * extra


class AdapterLinear(nn.Module):
    """scale * (W x + bias), with W frozen; begins as its base."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        device = base.weight.device
        self.adapter_scale = nn.Parameter(torch.ones(base.out_features, device=device))
        self.adapter_bias = nn.Parameter(torch.zeros(base.out_features, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        y: Tensor = self.base(x)
        return self.adapter_scale.to(y.dtype) * (y + self.adapter_bias.to(y.dtype))


class Adapter:
    """LLaMA-Adapter v1: a learned prompt and a gate in each block from `start_layer` on."""

    name = "adapter"
    weights_file = "adapter.safetensors"

    def __init__(self, config: AdapterConfig) -> None:
        self.config = config

    def apply(self, model: GPT) -> None:
        """Swaps the attention of the upper blocks.

        Raises:
            ConfigError: there is no block from `start_layer` on.
        """
        if self.config.start_layer >= model.config.n_layer:
            raise ConfigError(
                f"adapter.start_layer is {self.config.start_layer}, but {model.config.name} has "
                f"{model.config.n_layer} blocks, counted from 0."
            )
        for layer in range(self.config.start_layer, model.config.n_layer):
            path = f"transformer.h.{layer}.attn"
            base = cast(CausalSelfAttention, model.get_submodule(path))
            swap_module(model, path, AdapterAttention(base, self.config.prompt_length))

    def is_trainable(self, name: str) -> bool:
        """True for prompts and gates."""
        return ".adapter_" in name

    def settings(self) -> dict[str, Any]:
        """Gives the prompt's length and the first block."""
        return settings_of(self.config)


class AdapterV2(Adapter):
    """LLaMA-Adapter v2: v1, a scale and bias on every linear layer, and the norms."""

    name = "adapter_v2"

    def apply(self, model: GPT) -> None:
        """Swaps attention as v1 does and every linear layer; the norms become float32 with the rest that is trained."""
        super().apply(model)
        linears = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.Linear)]
        for path, module in linears:
            swap_module(model, path, AdapterLinear(module))
        for name, parameter in model.named_parameters():
            if self.is_trainable(name):
                parameter.data = parameter.data.float()

    def is_trainable(self, name: str) -> bool:
        """True for prompts, gates, scales, biases and norms."""
        return ".adapter_" in name or ".norm_" in name or ".ln_f." in name
