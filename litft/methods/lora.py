"""LoRA: y = W x + (alpha / r) B A x, with W frozen. Source: arXiv 2106.09685; initial values as in its reference code.

The fused q, k, v weight is [q; k; v], so an adapter on q and v is two slices of rows: no padding, no index tables.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.config.model import ModelConfig
from litft.config.run import LoRAConfig
from litft.errors import ConfigError
from litft.methods.base import settings_of, swap_module
from litft.methods.lora_product import LoRAProduct
from litft.model.gpt import GPT


class LoRALinear(nn.Module):
    """A frozen linear layer and an adapter on some of its rows.

    Attributes:
        base: the frozen layer, (out, in).
        lora_A: (P R, in), for P slices of rank R one below the other, so that one product serves all.
        lora_B: (sum of the slices' rows, R), zero at the start, so that the layer begins as its base.
    """

    def __init__(self, base: nn.Linear, slices: list[tuple[int, int]], config: LoRAConfig) -> None:
        super().__init__()
        self.base, self.slices, self.rank = base, slices, config.r
        self.scale = config.alpha / config.r
        self.dropout = nn.Dropout(config.dropout)
        rows = sum(stop - start for start, stop in slices)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(len(slices) * config.r, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(rows, config.r, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        a, b = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        if self._is_plain() and not torch.is_autocast_enabled(x.device.type):
            chance = self.dropout.p if self.training else 0.0
            how = (self.slices, self.rank, self.scale, chance)
            return LoRAProduct.apply(x, self.base.weight, self.base.bias, a, b, how)  # type: ignore[no-any-return, no-untyped-call]
        y: Tensor = self.base(x)
        low = F.linear(self.dropout(x), a) * self.scale  # (..., P R)
        for (start, stop), part, rows in self._parts(low, b):
            y[..., start:stop].add_(F.linear(part, rows))
        return y

    def _is_plain(self) -> bool:
        """Says whether the base is a frozen matrix as it is: not quantised, no new rows, not trained by a recipe."""
        base = self.base
        return type(base) is nn.Linear and not any(parameter.requires_grad for parameter in base.parameters())

    def delta(self) -> Tensor:
        """Gives what merging adds to the base weight: (out, in) float32."""
        # Not the weight's shape: a quantised base keeps its own packed.
        total = torch.zeros(self.base.out_features, self.base.in_features, device=self.lora_A.device)
        for (start, stop), a, b in self.parts():
            total[start:stop] = self.scale * (b @ a)
        return total

    def parts(self) -> list[tuple[tuple[int, int], Tensor, Tensor]]:
        """Gives each slice of rows with its A (R, in) and its B (rows, R), float32; delta is scale times B A."""
        return [(rows, a.mT, b) for rows, a, b in self._parts(self.lora_A.mT.float(), self.lora_B.float())]

    def _parts(self, a: Tensor, b: Tensor) -> list[tuple[tuple[int, int], Tensor, Tensor]]:
        """Pairs each slice with its columns of a (..., P R) and its rows of b."""
        rows = [stop - start for start, stop in self.slices]
        return list(zip(self.slices, torch.split(a, self.rank, dim=-1), torch.split(b, rows), strict=True))


class LoRA:
    """Adapters on chosen weights; nothing else is trained."""

    name = "lora"
    weights_file = "lora.safetensors"

    def __init__(self, config: LoRAConfig) -> None:
        self.config = config

    def apply(self, model: GPT) -> None:
        """Swaps the targeted linear layers.

        Raises:
            ConfigError: the head is a target but is tied to the embedding, which an adapter would change too on merge.
        """
        if "head" in self.config.targets and model.config.tie_embeddings:
            raise ConfigError(
                f'lora.targets has "head", but the head of {model.config.name} is its embedding; leave head out.'
            )
        for path, slices in target_slices(model.config, self.config.targets).items():
            base = cast(nn.Linear, model.get_submodule(path))
            swap_module(model, path, LoRALinear(base, slices, self.config))

    def is_trainable(self, name: str) -> bool:
        """True for the adapters' parameters."""
        return name.endswith((".lora_A", ".lora_B"))

    def settings(self) -> dict[str, Any]:
        """Gives rank, alpha, dropout and targets."""
        return settings_of(self.config)


def target_slices(config: ModelConfig, targets: tuple[str, ...]) -> dict[str, list[tuple[int, int]]]:
    """Gives the modules to adapt and which of their rows.

    Args:
        config: the model's sizes.
        targets: among q, k, v, proj, mlp, head.

    Returns:
        Module path to (first row, row after the last), in the order of the rows.
    """
    ends = [sum(config.qkv_sizes[: i + 1]) for i in range(3)]
    rows = dict(zip("qkv", zip([0, *ends[:2]], ends, strict=True), strict=True))
    qkv = [rows[part] for part in "qkv" if part in targets]
    found: dict[str, list[tuple[int, int]]] = {}
    for layer in range(config.n_layer):
        block = f"transformer.h.{layer}"
        if qkv:
            found[f"{block}.attn.qkv"] = qkv
        if "proj" in targets:
            found[f"{block}.attn.proj"] = [(0, config.n_embd)]
        if "mlp" in targets:
            found |= {f"{block}.{path}": [(0, size)] for path, size in _mlp_rows(config).items()}
    if "head" in targets:
        found["lm_head"] = [(0, config.padded_vocab_size)]
    return found


def _mlp_rows(config: ModelConfig) -> dict[str, int]:
    """Gives the rows of each linear layer of a block's MLP, or of all its experts; a router is left as it is."""
    sizes = {"up": config.intermediate_size, "down": config.n_embd}
    if config.mlp == "gated":
        sizes["gate"] = config.intermediate_size
    names = [f"mlp.experts.{expert}" for expert in range(config.n_expert)] or ["mlp"]
    return {f"{name}.{part}": size for name in names for part, size in sizes.items()}
