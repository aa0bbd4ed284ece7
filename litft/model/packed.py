"""Weights laid out for decoding on a CPU: a product with the few rows of one step takes what reading its weight takes.

Plain products with few rows use half of the memory's rate there; oneDNN's own layout uses most of it. Weights in 4 and
8 bits are multiplied by as they are, not turned back first. Such a layer can be used, not trained.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.model.quantize import BLOCK, Linear4bit, Linear8bit, load_bitsandbytes

FEW_ROWS = 32  # tokens that a step of decoding has at most, about; a long prompt does not wait for another layout
FEW_8BIT_ROWS = 8  # with more, torch's product of 8 bits is slower than one with the numbers turned to bfloat16
LANES = 32  # rows of a weight that bitsandbytes' product takes at once
BASE, ZERO = 256, 128  # of digits, and what stands for 0 in a byte without sign
LEAST = 1e-30  # what a row's largest number is taken for where it is less, so that its step is not 0
# With two a row changes by less than its rounding to bfloat16 did: by a 65,000th of its largest number, which is at
# most sqrt(in) times the root of its mean square. With three it is as exact as in float32.
DIGITS = {torch.bfloat16: 2, torch.float32: 3}


class PackedLinear(nn.Linear):
    """A linear layer that lays its weight out at its first product with few rows, and keeps it so.

    Attributes:
        weight: as it was; once it is laid out, its shape alone, without memory.
        bias: (out,) as it was, if any.
        packed: the weight in oneDNN's layout, once it was needed.
    """

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = nn.Parameter(base.weight.detach(), requires_grad=False), base.bias
        self.packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self.packed is None:
            if x.numel() > FEW_ROWS * self.in_features:
                return F.linear(x, self.weight, self.bias)
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), 1)
            self.weight = nn.Parameter(self.weight.to("meta"), requires_grad=False)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y


class Packed4bit(nn.Module):
    """A linear layer in 4 bits, in the layout of bitsandbytes' product for CPUs.

    Scales are rounded to bfloat16, and so is the input.
    """

    def __init__(self, base: Linear4bit) -> None:
        super().__init__()
        self.shape, self.bias = torch.Size((base.out_features, base.in_features)), base.bias
        self.table = base.table
        self.scale = base.scales().view(self.shape[0], -1).T.to(torch.bfloat16).contiguous()  # (in / 64, out)
        self.weight = nn.Parameter(_interleaved(base.weight.data, self.shape), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        product = torch.ops.bitsandbytes.gemv_4bit
        y: Tensor = product(x.contiguous(), self.weight, self.shape, self.scale, self.table, BLOCK)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Packed8bit(nn.Module):
    """A linear layer in 8 bits, multiplied by whole numbers: inputs are written out in digits first (`in_digits`).

    oneDNN's product of 8 bits is exact and reads weights at the memory's rate. Each digit takes a row of it, which
    costs nothing while rows are few.
    """

    def __init__(self, base: Linear8bit) -> None:
        super().__init__()
        self.bias, self.scale = base.bias, base.scale
        self.packed = torch.ops.onednn.qlinear_prepack(base.weight.data, None)
        self.no_offset = torch.zeros_like(base.scale, dtype=torch.int32)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = x.flatten(0, -2)
        digits, worths = in_digits(rows, DIGITS.get(x.dtype, 3))
        products: Tensor = torch.ops.onednn.qlinear_pointwise(
            digits.flatten(0, 1), 1.0, ZERO, self.packed, self.scale, self.no_offset,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        y = (products.view(*digits.shape[:2], -1) * worths[..., None]).sum(1)  # (N, out)
        y = y.to(x.dtype).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Scaled8bit(nn.Module):
    """The same for CPUs whose product of 8 bits is not exact: the row is scaled after a product of mixed types."""

    def __init__(self, base: Linear8bit) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = base.weight, base.bias, base.scale
        self.ones = torch.ones_like(self.scale, dtype=torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows = x.flatten(0, -2)
        if x.dtype == torch.bfloat16 and len(rows) <= FEW_8BIT_ROWS:
            y = torch._weight_int8pack_mm(rows.contiguous(), self.weight, self.ones)
        else:
            y = F.linear(rows, self.weight.to(x.dtype))  # whole numbers to 127 are exact in 16 bits
        y = (y * self.scale).to(x.dtype).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def in_digits(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Writes the numbers of each row as multiples of a step, in digits from -128 to 127 to the base of 256.

    Args:
        rows: (N, in).
        count: of digits, at most 3. The step is the row's largest number by 127 * 256^(count - 1).

    Returns:
        The digits (N, count, in), the lowest first, as uint8 with 128 added; what each is worth (N, count) in float32.
    """
    zero = sum(ZERO * BASE**place for place in range(count))
    step = rows.abs().amax(-1, keepdim=True).float().clamp_(min=LEAST) / (127 * BASE ** (count - 1))
    numbers = (rows / step).add_(zero).round_().to(torch.int32)
    places = numbers.view(torch.uint8).view(*numbers.shape, 4)[..., :count]  # the lowest byte stands first
    worths = step * torch.tensor([float(BASE**place) for place in range(count)])
    return places.transpose(1, 2).contiguous(), worths


def prepare_for_decoding(model: nn.Module) -> None:
    """Puts layers laid out for decoding where a model on a CPU has linear ones; what is computed stays, up to rounding.

    Weights are replaced one by one. Those that their owner reads (`reads_weight`) stay as they are.

    Args:
        model: that is not trained any more.
    """
    for owner in list(model.modules()):
        if getattr(owner, "reads_weight", False):
            continue
        for name, layer in list(owner.named_children()):
            if type(layer) is nn.Linear and can_pack(layer.weight):
                setattr(owner, name, PackedLinear(layer))
            elif isinstance(layer, Linear4bit) and can_pack_4bit(layer):
                setattr(owner, name, Packed4bit(layer))
            elif isinstance(layer, Linear8bit) and can_pack_8bit(layer):
                setattr(owner, name, Packed8bit(layer))
            elif isinstance(layer, Linear8bit) and can_scale_8bit(layer):
                setattr(owner, name, Scaled8bit(layer))


def can_pack(weight: Tensor) -> bool:
    """Says whether oneDNN has a layout for this weight here."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    has_bf16: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and has_bf16)


def can_pack_4bit(layer: Linear4bit) -> bool:
    """Says whether bitsandbytes has a product for this layer here."""
    if layer.weight.device.type != "cpu" or layer.out_features % LANES or layer.in_features % BLOCK:
        return False
    has_kernel: bool = load_bitsandbytes().functional.has_avx512bf16()
    return has_kernel


def can_pack_8bit(layer: Linear8bit) -> bool:
    """Says whether oneDNN has an exact product for this layer here: without VNNI sums of two products are cut off."""
    if layer.weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return torch.cpu._is_vnni_supported()


def can_scale_8bit(layer: Linear8bit) -> bool:
    """Says whether torch has a product for this layer here: it reads vectors of numbers, past the end of odd rows."""
    is_even = layer.out_features % BLOCK == 0 and layer.in_features % BLOCK == 0
    return layer.weight.device.type == "cpu" and is_even


def _interleaved(weight: Tensor, shape: torch.Size) -> Tensor:
    """Lays bytes of two neighbouring numbers out anew: number k of row r shares its byte with that of row r + 16.

    Args:
        weight: (out * in / 2, 1) uint8, the first of two numbers in the upper half of a byte.
        shape: (out, in).

    Returns:
        (out, in / 2) uint8.

    Source: `_convert_weight_packed_for_cpu` of bitsandbytes 0.50.
    """
    rows = weight.view(shape[0] // LANES, 2, LANES // 2, shape[1] // 2)
    lower, upper = rows[:, 0], rows[:, 1]
    pairs = torch.stack(((upper & 0xF0) | (lower >> 4), (upper << 4) | (lower & 0xF)), dim=-1)
    return pairs.transpose(1, 2).reshape(shape[0], shape[1] // 2)
