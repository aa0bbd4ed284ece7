"""W x + b + scale B A dropout(x) with W and b frozen, and its gradient, in as few passes over the activations as go.

Knows no modules.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Slices = list[tuple[int, int]]


class LoRAProduct(torch.autograd.Function):
    """x (..., in), W (out, in), bias (out) or None, A (P R, in), B (rows, R) -> (..., out).

    `how` is (slices of rows of W, R, scale, chance of dropout). Kept are the dropped-out x and one byte a number of it
    that says what was dropped; without dropout only x. W needs neither its input nor a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        how: tuple[Slices, int, float, float],
    ) -> Tensor:
        """Adds each slice's share to its rows, in place."""
        slices, rank, scale, chance = how
        flat = x.flatten(0, -2)  # (N, in)
        y = F.linear(flat, weight, bias)
        kept = keep_mask(flat, chance) if chance else None
        dropped = flat if kept is None else flat * kept
        scale = scale / (1 - chance)
        low = F.linear(dropped, a).mul_(scale)  # (N, P R)
        for (start, stop), part, rows in zip(slices, torch.split(low, rank, dim=-1), _rows(b, slices), strict=True):
            y[:, start:stop].addmm_(part, rows.mT)
        ctx.save_for_backward(dropped, kept, weight, a, b, low)
        ctx.how = slices, rank, scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        """Gives the gradients by x, A and B."""
        dropped, kept, weight, a, b, low = ctx.saved_tensors
        slices, rank, scale = ctx.how
        g = gradients[0].flatten(0, -2)  # (N, out)
        parts = [g[:, start:stop] for start, stop in slices]
        of_b = torch.cat([part.mT @ each for part, each in zip(parts, torch.split(low, rank, dim=-1), strict=True)])
        of_low = torch.cat([part @ rows for part, rows in zip(parts, _rows(b, slices), strict=True)], -1).mul_(scale)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = of_low @ a
            if kept is not None:
                of_x.mul_(kept)
            of_x = of_x.addmm_(g, weight).view(*gradients[0].shape[:-1], -1)
        return of_x, None, None, of_low.mT @ dropped, of_b, None


def keep_mask(x: Tensor, chance: float) -> Tensor:
    """Gives a bool for each number of x, False with this chance, to one part in 65,536, from torch's generator.

    On a CPU four of them share one random integer: that is eight times as fast as a Bernoulli number each.
    """
    if x.device.type != "cpu":
        return torch.rand(x.shape, device=x.device) >= chance
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    numbers = bits.view(torch.int16)[: x.numel()].view(x.shape)  # -32,768 to 32,767
    return numbers >= round(chance * 2**16) - 2**15


def _rows(b: Tensor, slices: Slices) -> tuple[Tensor, ...]:
    """Gives the rows of B that belong to each slice."""
    return torch.split(b, [stop - start for start, stop in slices])
