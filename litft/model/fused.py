"""Small functions with their gradients written out: each keeps only what its backward pass needs, as it came.

Autograd, left to itself, keeps float32 copies of every norm's input and output, and each product's two factors: half of
all activations of a block. Knows no modules.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class RMSNormalize(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps), computed in float32: (..., C) -> (..., C) float32 or the dtype of x.

    Keeps x as it came and one number a row.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, weight: Tensor, plus_one: bool, cast_first: bool) -> Tensor:
        """Normalises.

        Args:
            ctx: autograd's.
            x: (..., C).
            eps: added to the mean square.
            weight: (C,), multiplied at the end.
            plus_one: whether 1 is added to the weight first.
            cast_first: whether the product with the weight is in the dtype of x, else in float32.
        """
        normed, factor = _normalized(x, eps, weight, plus_one, cast_first)
        ctx.save_for_backward(x, factor, weight)
        ctx.plus_one, ctx.cast_first = plus_one, cast_first
        return normed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None, None, None]:
        """Source: d/dx of x r(x), r = (mean(x²) + eps)^-1/2: r (g - n mean(g n)), n = x r."""
        x, factor, weight = ctx.saved_tensors
        gradient = gradients[0]
        normed = x.float() * factor
        of_x = of_weight = None
        if ctx.needs_input_grad[2]:
            kept = normed.to(x.dtype) if ctx.cast_first else normed
            of_weight = (gradient.float() * kept).flatten(0, -2).sum(0).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            scale = weight.float() + 1 if ctx.plus_one else weight.float()
            g = gradient.float() * scale
            mean = (g * normed).mean(-1, keepdim=True)
            of_x = g.sub_(normed.mul_(mean)).mul_(factor).to(x.dtype)
        return of_x, None, of_weight, None, None


class SiluGate(torch.autograd.Function):
    """silu(gate) * up; keeps the two and computes silu again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        """Two of any one shape -> the same."""
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Gives the gradients by both."""
        gate, up = ctx.saved_tensors
        gradient = gradients[0]
        of_gate = torch.ops.aten.silu_backward(gradient * up, gate)
        return of_gate, F.silu(gate).mul_(gradient)


class Rotate(torch.autograd.Function):
    """Turns the first R numbers of each head: (B, H, T, D) with cos and sin (T, R) or (B, 1, T, R) -> (B, H, T, D).

    Keeps only the angles: the gradient is turned back.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turns."""
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Turns back."""
        cos, sin = ctx.saved_tensors
        return _rotated(gradients[0], cos, sin, -1.0), None, None


def rms_normalize(x: Tensor, eps: float, weight: Tensor, plus_one: bool, cast_first: bool) -> Tensor:
    """Gives what `RMSNormalize` does; to a compiler plain, as torch 2.11 traces functions with a backward wrongly."""
    if not torch.compiler.is_compiling():
        if not torch.is_grad_enabled():  # what is generated token by token would wait for autograd's own work
            return _normalized(x, eps, weight, plus_one, cast_first)[0]
        return RMSNormalize.apply(x, eps, weight, plus_one, cast_first)  # type: ignore[no-any-return, no-untyped-call]
    wide = x.float()
    normed = wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    if cast_first:
        return normed.to(x.dtype) * weight.to(x.dtype)
    return (normed * (weight.float() + 1 if plus_one else weight.float())).to(x.dtype)


def silu_gate(gate: Tensor, up: Tensor) -> Tensor:
    """Gives silu(gate) * up by `SiluGate`; to a compiler plain."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return F.silu(gate) * up
    return SiluGate.apply(gate, up)  # type: ignore[no-any-return, no-untyped-call]


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Gives what `Rotate` does; to a compiler plain, which fuses it and writes its gradient itself."""
    if torch.compiler.is_compiling():
        return plain_rotate(x, cos, sin)
    if not torch.is_grad_enabled():
        return _rotated(x, cos, sin, 1.0)
    return Rotate.apply(x, cos, sin)  # type: ignore[no-any-return, no-untyped-call]


def plain_rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Does what `Rotate` does, for a compiler: with autograd's gradient, and each tensor new."""
    size, half = cos.shape[-1], cos.shape[-1] // 2
    first, second, rest = x[..., :half], x[..., half:size], x[..., size:]
    turned = torch.cat((-second, first), dim=-1)
    return torch.cat((x[..., :size] * cos + turned * sin, rest), dim=-1)


def _normalized(x: Tensor, eps: float, weight: Tensor, plus_one: bool, cast_first: bool) -> tuple[Tensor, Tensor]:
    """Gives what `RMSNormalize.forward` does, and the factor of each row."""
    wide = x.float()
    factor = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    normed = wide * factor
    if cast_first:
        return normed.to(x.dtype).mul_(weight.to(x.dtype)), factor
    scale = weight.float() + 1 if plus_one else weight.float()
    return normed.mul_(scale).to(x.dtype), factor


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin), a and b the halves of what is rotated; backwards with sign -1."""
    half = cos.shape[-1] // 2
    out = torch.empty_like(x)
    first, second = x[..., :half], x[..., half : 2 * half]
    left, right = cos[..., :half], sin[..., :half]  # both halves are equal
    torch.mul(first, left, out=out[..., :half]).addcmul_(second, right, value=-sign)
    torch.mul(second, left, out=out[..., half : 2 * half]).addcmul_(first, right, value=sign)
    if 2 * half < x.shape[-1]:
        out[..., 2 * half :] = x[..., 2 * half :]
    return out
