"""DoRA: LoRA turns the rows of a weight, and how large each row is, is trained apart.

y = m / |W + scale B A| (W + scale B A) x, by rows, with m float32 and |W| at the start. The norm passes no gradient.
Dropout falls on what A reads, as in LoRA; PEFT's falls on what W reads too.
Source: arXiv 2402.09353, section 4.3 for the norm.
"""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.config.run import LoRAConfig
from litft.methods.lora_linear import LoRALinear, Pair
from litft.methods.lora_product import Slices
from litft.model.quantize import QuantizedLinear

SMALLEST = 1e-30  # of a squared norm: a row of zeros, as a padded head has, stays one


class DoRALinear(LoRALinear):
    """LoRA on some rows of a frozen linear layer, and their sizes.

    Attributes:
        lora_magnitude: (sum of the slices' rows,), the norms that the rows have.
        reads_weight: the base's weight is read, and not only multiplied by.
        squares: the squared norms of the rows of a frozen base, once they were asked for.
    """

    reads_weight = True
    squares: Tensor | None

    def __init__(self, base: nn.Linear, slices: Slices, config: LoRAConfig, first: Pair | None = None) -> None:
        super().__init__(base, slices, config, first)
        self.register_buffer("squares", None, persistent=False)
        self._known: tuple[list[Tensor], list[int], Tensor] | None = None
        self.lora_magnitude = nn.Parameter(self.row_norms(torch.float32))
        self.squares = None  # the base may be given its weights, or its device, later

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out); the bias is not scaled."""
        y = super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            sizes = self.factors(y.dtype)
        scaled = y * sizes  # in float32: bfloat16 would not tell factors near 1 apart
        if self.base.bias is not None:
            scaled = scaled + self.base.bias * (1 - sizes)
        return scaled.to(y.dtype)

    def factors(self, dtype: torch.dtype) -> Tensor:
        """Gives what each row is multiplied by: (out,) float32, 1 where there is no adapter."""
        ratios = self.lora_magnitude / self._norms(dtype)
        factors = ratios.new_ones(self.base.out_features)
        for (start, stop), part in self._by_slice(ratios):
            factors[start:stop] = part
        return factors

    def merged(self, weight: Tensor) -> Tensor:
        """Gives a weight (out, in), as it lies on disk, with the adapter in it: float32, float64 of a float64 one."""
        total = super().merged(weight)
        for (start, stop), sizes in self.magnitudes():
            norms = torch.linalg.vector_norm(total[start:stop], dim=1).clamp(min=SMALLEST**0.5)
            total[start:stop] *= (sizes.to(norms.device) / norms)[:, None]
        return total

    def _norms(self, dtype: torch.dtype) -> Tensor:
        """Gives `row_norms`; where nothing is trained they are computed once, and again when A, B or W are others."""
        if self.training or torch.compiler.is_compiling():  # which knows no versions of tensors
            self._known = None
            return self.row_norms(dtype)
        seen: list[Tensor] = [self.lora_A, self.lora_B, self.base.weight]
        versions = [tensor._version for tensor in seen]
        if self._known is not None:
            tensors, numbers, norms = self._known
            if numbers == versions and all(map(operator.is_, tensors, seen)):
                return norms
        norms = self.row_norms(dtype)
        self._known = seen, versions, norms
        return norms

    @torch.no_grad()
    def row_norms(self, dtype: torch.dtype) -> Tensor:
        """Gives |w + scale b A| of each adapted row w of the base and b of B: (rows,) float32.

        The sum is not built: its square is |w|² + 2 scale <w, b A> + scale² |b A|².

        Args:
            dtype: that a quantised base is computed in.
        """
        base = self.base
        weight = base.dequantize(dtype) if isinstance(base, QuantizedLinear) else base.weight
        a, b = self.lora_A.float(), self.lora_B.float()
        seen = F.linear(a.to(weight.dtype), weight).float()  # (P R, out)
        changes = []
        for (where, part, rows), (_, of_base, _) in zip(self._parts(a.mT, b), self._parts(seen.mT, b), strict=True):
            both = 2 * self.scale * of_base[slice(*where)] + self.scale**2 * (rows @ (part.mT @ part))  # (rows, R)
            changes.append((both * rows).sum(1))
        return (self._squared_rows(weight) + torch.cat(changes)).clamp(min=SMALLEST).sqrt()

    def _squared_rows(self, weight: Tensor) -> Tensor:
        """Gives |w|² of each adapted row: (rows,) float32."""
        if self.squares is not None:
            return self.squares
        norms = [torch.linalg.vector_norm(weight[slice(*rows)], dim=1, dtype=torch.float32) for rows in self.slices]
        squares = torch.cat(norms).square()
        self.squares = squares if self.is_frozen() else None
        return squares

    def magnitudes(self) -> list[tuple[tuple[int, int], Tensor]]:
        """Gives each slice of rows with their magnitudes."""
        return self._by_slice(self.lora_magnitude)

    def _by_slice(self, values: Tensor) -> list[tuple[tuple[int, int], Tensor]]:
        """Pairs each slice of rows with its part of values (rows,)."""
        rows = [stop - start for start, stop in self.slices]
        return list(zip(self.slices, torch.split(values, rows), strict=True))
