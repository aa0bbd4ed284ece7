"""A frozen linear layer with an adapter on some of its rows. Knows no model."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.config.run import LoRAConfig
from litft.methods.lora_product import LoRAProduct, Slices

Pair = tuple[Tensor, Tensor]


class LoRALinear(nn.Module):
    """A frozen linear layer and an adapter on some of its rows.

    Attributes:
        base: the frozen layer, (out, in).
        lora_A: (P R, in), for P slices of rank R one below the other, so that one product serves all.
        lora_B: (sum of the slices' rows, R), zero at the start, so that the layer begins as its base.
        first_a, first_b: with PiSSA what A and B began as, which was taken out of the base; else None.
    """

    first_a: Tensor | None
    first_b: Tensor | None

    def __init__(self, base: nn.Linear, slices: Slices, config: LoRAConfig, first: Pair | None = None) -> None:
        super().__init__()
        self.base, self.slices, self.rank = base, slices, config.r
        self.scale = config.scale
        self.dropout = nn.Dropout(config.dropout)
        rows = sum(stop - start for start, stop in slices)
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(len(slices) * config.r, base.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(rows, config.r, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        for leaf, value in zip(("first_a", "first_b"), first or (None, None), strict=True):
            self.register_buffer(leaf, value, persistent=False)
        with torch.no_grad():
            for parameter, value in zip((self.lora_A, self.lora_B) if first else (), first or (), strict=True):
                parameter.copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        a, b = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        plain = torch.compiler.is_compiling() or torch.is_autocast_enabled(x.device.type)
        if type(self.base) is nn.Linear and self.is_frozen() and not plain:
            chance = self.dropout.p if self.training else 0.0
            how = (self.slices, self.rank, self.scale, chance)
            return LoRAProduct.apply(x, self.base.weight, self.base.bias, a, b, how)  # type: ignore[no-any-return, no-untyped-call]
        y: Tensor = self.base(x)
        low = F.linear(self.dropout(x), a) * self.scale  # (..., P R)
        for (start, stop), part, rows in self._parts(low, b):
            y[..., start:stop].add_(F.linear(part, rows))
        return y

    def is_frozen(self) -> bool:
        """Says whether the base stays as it is: a recipe may train it."""
        return not any(parameter.requires_grad for parameter in self.base.parameters())

    def delta(self) -> Tensor:
        """Gives what the adapter adds to the weight as it lies on disk: (out, in) float32."""
        # Not the weight's shape: a quantised base keeps its own packed.
        total = torch.zeros(self.base.out_features, self.base.in_features, device=self.lora_A.device)
        for (start, stop), a, b in self.parts():
            total[start:stop] = self.scale * (b @ a)
        return total

    def merged(self, weight: Tensor) -> Tensor:
        """Gives a weight (out, in), as it lies on disk, with the adapter in it: float32, float64 of a float64 one."""
        return weight + self.delta().to(weight.device)

    def parts(self) -> list[tuple[tuple[int, int], Tensor, Tensor]]:
        """Gives each slice of rows with the A (K, in) and the B (rows, K) of `difference`; delta is scale times B A."""
        a, b = self.difference()
        return [(rows, part.mT, each) for rows, part, each in self._parts(a.mT.float(), b.float())]

    def difference(self) -> Pair:
        """Gives A (P K, in) and B (rows, K) that, beside the weight as it lies on disk, do what the adapter does.

        K is R; with PiSSA 2 R, as what was taken out of the base is subtracted again.
        """
        if self.first_a is None or self.first_b is None:
            return self.lora_A, self.lora_B
        parts = len(self.slices), self.rank, self.base.in_features
        each = [a.to(self.lora_A.device).view(parts) for a in (self.lora_A, self.first_a)]
        b = torch.cat((self.lora_B, -self.first_b.to(self.lora_B.device)), dim=1)
        return torch.cat(each, dim=1).flatten(0, 1), b

    def _parts(self, a: Tensor, b: Tensor) -> list[tuple[tuple[int, int], Tensor, Tensor]]:
        """Pairs each slice with its columns of a (..., P K) and its rows of b (rows, K)."""
        rows = [stop - start for start, stop in self.slices]
        return list(zip(self.slices, torch.split(a, b.shape[1], dim=-1), torch.split(b, rows), strict=True))
