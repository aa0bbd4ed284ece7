"""LoRA: y = W x + (alpha / r) B A x, with W frozen. Source: arXiv 2106.09685; initial values as in its reference code.

The fused q, k, v weight is [q; k; v], so an adapter on q and v is two slices of rows: no padding, no index tables.
Its variants stand beside it: rsLoRA is another scale (config), DoRA another layer (dora.py), PiSSA another beginning
(pissa.py).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from litft.config.model import ModelConfig
from litft.config.run import LoRAConfig
from litft.errors import ConfigError
from litft.methods.base import settings_of, swap_module
from litft.methods.dora import DoRALinear
from litft.methods.lora_linear import LoRALinear
from litft.methods.pissa import Principal, TakenOut
from litft.model.gpt import GPT


class LoRA:
    """Adapters on chosen weights; nothing else is trained."""

    name = "lora"
    weights_file = "lora.safetensors"

    def __init__(self, config: LoRAConfig, pissa_rank: int = 0) -> None:
        """Takes the settings.

        Args:
            config: the run's, or those of a result.
            pissa_rank: of the result of PiSSA: the rank that was trained; what is above it is subtracted.
        """
        self.config, self.pissa_rank = config, pissa_rank
        self.principal: Principal | None = None

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> LoRA:
        """Gives the method of a result from what `settings` gave."""
        values = {**settings, "targets": tuple(settings["targets"])}
        pissa_rank = values.pop("pissa_rank", 0)
        return cls(LoRAConfig(**values), pissa_rank)

    def reader(self, sizes: ModelConfig, device: torch.device) -> Principal | None:
        """Gives what must see the weights of the base as they are read, before `apply`; None unless it is PiSSA.

        Args:
            sizes: of the base.
            device: where it is computed.
        """
        if self.config.init != "random":
            self.principal = Principal(target_slices(sizes, self.config.targets), self.config, device)
        return self.principal

    def taken_out(self, path: Path, sizes: ModelConfig, device: torch.device) -> TakenOut | None:
        """Gives what makes of the base, as it is read, the one beside which a result was trained; None unless by PiSSA.

        Args:
            path: what was trained.
            sizes: of the base.
            device: where it is computed.
        """
        if not self.pissa_rank:
            return None
        return TakenOut(path, target_slices(sizes, self.config.targets), self.config.scale, self.pissa_rank, device)

    def apply(self, model: GPT) -> None:
        """Swaps the targeted linear layers.

        Raises:
            ConfigError: the head is a target but is tied to the embedding, which an adapter would change too on merge;
                or a weight has no part of the rank that PiSSA is to take.
        """
        if "head" in self.config.targets and model.config.tie_embeddings:
            raise ConfigError(
                f'lora.targets has "head", but the head of {model.config.name} is its embedding; leave head out.'
            )
        layer = DoRALinear if self.config.dora else LoRALinear
        first = self.principal.pairs if self.principal else {}
        for path, slices in target_slices(model.config, self.config.targets).items():
            base = cast(nn.Linear, model.get_submodule(path))
            self._check_rank(path, min(base.in_features, *(stop - start for start, stop in slices)))
            swap_module(model, path, layer(base, slices, self.config, first.get(path)))

    def _check_rank(self, path: str, highest: int) -> None:
        """Refuses to take more of a weight than there is.

        Raises:
            ConfigError: naming it.
        """
        if self.config.init != "random" and self.config.r > highest:
            raise ConfigError(
                f"lora.init is {self.config.init} and lora.r {self.config.r}, but a weight in {path} has no more than "
                f"{highest} rows or columns to take; lower lora.r."
            )

    def is_trainable(self, name: str) -> bool:
        """True for the adapters' parameters."""
        return name.endswith((".lora_A", ".lora_B", ".lora_magnitude"))

    def settings(self) -> dict[str, Any]:
        """Gives rank, alpha, dropout and targets; of PiSSA those of the plain LoRA that `final/` holds."""
        if self.config.init == "random":
            return settings_of(self.config)
        wide = dataclasses.replace(self.config, r=2 * self.config.r, init="random")
        wide = dataclasses.replace(wide, alpha=self.config.alpha * self.config.scale / wide.scale)
        return {**settings_of(wide), "pissa_rank": self.config.r}


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
