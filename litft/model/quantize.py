"""Frozen linear layers kept in 4 or 8 bits a weight, and which layers of a model become such.

Their weights are quantised one by one while a checkpoint is loaded (`load.py`). All computation is in the dtype of what
comes in: a weight is turned back for the moment of its product, forward and backward. Knows no files and no methods.

The layers are our own and not bitsandbytes' modules, which lay weights out anew for an evaluation on some CPUs and
compute int8 differently in training and in evaluation. The numbers are bitsandbytes'.
"""

from __future__ import annotations

import logging
import sys
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.config.run import Quantize
from litft.errors import ConfigError
from litft.model.gpt import GPT

BLOCK, NESTED_BLOCK = 64, 256  # weights that share a scale, and scales that share one of theirs; arXiv 2305.14314
FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # what bitsandbytes quantises
PIECE = 2**17  # weights that are quantised at once: what is computed between stays in a CPU's own memory


class QuantizedLinear(nn.Linear):
    """A frozen linear layer in fewer bits; an nn.Linear still, for methods that look for one.

    Attributes:
        weight: whole numbers, once `quantize` was called; until then the shape of the layer replaced, without memory.
        bias: (out,) as it was, if any.
    """

    def __init__(self, base: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias

    @abstractmethod
    def quantize(self, weight: Tensor) -> None:
        """Takes a weight (out, in); best as it stands in its file, since rounding twice loses more."""

    @abstractmethod
    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Gives the weight (out, in) that this layer computes with."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the dtype of x or of autocast."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def product(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), without bias."""
        y: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        return y


class _Product(torch.autograd.Function):
    """x W^T; the backward pass turns the weight back once more, so that no whole one is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        """(..., in) -> (..., out)."""
        ctx.layer = layer
        return F.linear(x, layer.dequantize(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """(..., out) -> (..., in)."""
        return gradient @ ctx.layer.dequantize(gradient.dtype), None


class Linear4bit(QuantizedLinear):
    """Each block of 64 weights as its largest and one of 16 levels for each, two in a byte.

    Source: arXiv 2305.14314 for nf4 and for scales that are quantised in turn; bitsandbytes for fp4.

    Attributes:
        scale: one a block; float32, or `nested` 8 bits in blocks of their own.
        table: the levels.
        scale_scale, scale_table, scale_mean: the same for nested scales, and what was taken off them first.
    """

    scale: Tensor
    table: Tensor
    scale_scale: Tensor | None
    scale_table: Tensor | None
    scale_mean: Tensor | None

    def __init__(self, base: nn.Linear, levels: str, nested: bool) -> None:
        super().__init__(base)
        self.levels, self.nested = levels, nested
        for name in ("scale", "table", "scale_scale", "scale_table", "scale_mean"):
            self.register_buffer(name, None, persistent=False)  # buffers, so that they follow to another device

    def quantize(self, weight: Tensor) -> None:
        """Takes a weight (out, in)."""
        functional = load_bitsandbytes().functional
        weight = weight if weight.dtype in FLOATS else weight.float()
        self.table = functional.get_4bit_type(self.levels, device=weight.device)
        if weight.device.type == "cpu" and weight.numel() % BLOCK == 0:
            packed, self.scale = in_levels(weight, self.table)
        else:
            packed, self.scale = torch.ops.bitsandbytes.quantize_4bit(weight, BLOCK, self.levels, torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        if self.nested:
            self.scale_mean = self.scale.mean()
            self.scale, state = functional.quantize_blockwise(self.scale - self.scale_mean, blocksize=NESTED_BLOCK)
            self.scale_scale, self.scale_table = state.absmax, state.code

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Gives the weight (out, in) that this layer computes with."""
        # Asked for in rows of one block: bitsandbytes 0.50 takes wrong scales for some rows of other lengths, on CPUs
        # with AVX-512.
        size = self.out_features * self.in_features
        row = BLOCK if size % BLOCK == 0 else size
        state = self.state(torch.Size((size // row, row)), dtype)
        weight: Tensor = load_bitsandbytes().functional.dequantize_4bit(self.weight, state)
        return weight.view(self.out_features, self.in_features)

    def scales(self) -> Tensor:
        """Gives the scale of each block (blocks,) in float32."""
        if not self.nested:
            return self.scale
        state = load_bitsandbytes().functional
        nested = state.QuantState(self.scale_scale, code=self.scale_table, blocksize=NESTED_BLOCK, dtype=torch.float32)
        scales: Tensor = state.dequantize_blockwise(self.scale, nested) + self.scale_mean
        return scales

    def product(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), without bias; a GPU has kernels that need no whole weight for few tokens."""
        return super().product(x) if x.device.type == "cpu" else self.fused_product(x)

    def fused_product(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), by bitsandbytes' own product."""
        state = self.state(torch.Size((self.out_features, self.in_features)), x.dtype)
        y: Tensor = load_bitsandbytes().matmul_4bit(x, self.weight, state)
        return y

    def state(self, shape: torch.Size, dtype: torch.dtype) -> Any:
        """Gives what bitsandbytes' functions need to know, for a result of this shape and dtype."""
        kind = load_bitsandbytes().functional.QuantState
        scales = None
        if self.nested:
            scales = kind(self.scale_scale, code=self.scale_table, blocksize=NESTED_BLOCK, dtype=torch.float32)
        return kind(
            self.scale,
            shape=shape,
            code=self.table,
            blocksize=BLOCK,
            quant_type=self.levels,
            dtype=dtype,
            offset=self.scale_mean,
            state2=scales,
        )


class Linear8bit(QuantizedLinear):
    """Each row of weights as its largest and whole numbers from -127 to 127. Source: arXiv 2208.07339, section 2.

    Activations are not quantised, as they are in that paper: training, evaluation and generation compute one thing.

    Attributes:
        scale: (out,) float32.
    """

    scale: Tensor

    def __init__(self, base: nn.Linear) -> None:
        super().__init__(base)
        self.register_buffer("scale", None, persistent=False)

    def quantize(self, weight: Tensor) -> None:
        """Takes a weight (out, in)."""
        numbers, scales = torch.empty_like(weight, dtype=torch.int8), []
        rows = max(piece_of(weight) // self.in_features, 1)
        for part, into in zip(torch.split(weight, rows), torch.split(numbers, rows), strict=True):
            part = part.float()
            largest = part.abs().amax(1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
            into.copy_(part.mul(127 / largest).round_())
            scales.append(largest.squeeze(1) / 127)
        self.weight, self.scale = nn.Parameter(numbers, requires_grad=False), torch.cat(scales)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Gives the weight (out, in) that this layer computes with."""
        # In float32: a product of two dtypes takes twenty times as long on a CPU.
        return self.weight.float().mul_(self.scale[:, None]).to(dtype)


def piece_of(weight: Tensor) -> int:
    """Gives how many numbers are quantised at once; all of a tensor that has a shape and no data (train/memory.py)."""
    return PIECE if type(weight) in (Tensor, nn.Parameter) else weight.numel()


def in_levels(weight: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Quantises as bitsandbytes 0.50 does on a CPU, to the same bits in a tenth of its time.

    Args:
        weight: of a whole number of blocks.
        table: (16,) the levels.

    Returns:
        (numbers / 2, 1) uint8, the first of two in the upper half of a byte; (blocks,) float32, the largest of each.
    """
    levels, order = table.sort()
    bounds, steps = ((levels[:-1] + levels[1:]) / 2).tolist(), order.diff().tolist()
    packed, scales = [], []
    for part in torch.split(weight.reshape(-1, BLOCK), piece_of(weight) // BLOCK):
        blocks = part.float()
        largest = blocks.abs().amax(1, keepdim=True)
        blocks = (blocks * (1.0 / largest.clamp(min=1e-38))).clamp_(-1, 1)
        numbers = torch.full_like(blocks, int(order[0]), dtype=torch.int8)
        for bound, step in zip(bounds, steps, strict=True):
            numbers.add_((blocks > bound).view(torch.int8), alpha=step)
        first, second = torch.split(numbers.view(torch.uint8).view(-1, 2), 1, dim=1)
        packed.append((first << 4) | second)
        scales.append(largest.squeeze(1))
    return torch.cat(packed), torch.cat(scales)


LAYERS: dict[str, Callable[[nn.Linear], QuantizedLinear]] = {
    "bnb.nf4": partial(Linear4bit, levels="nf4", nested=False),
    "bnb.nf4-dq": partial(Linear4bit, levels="nf4", nested=True),
    "bnb.fp4": partial(Linear4bit, levels="fp4", nested=False),
    "bnb.fp4-dq": partial(Linear4bit, levels="fp4", nested=True),
    "bnb.int8": Linear8bit,
}


def apply_quantize(model: GPT, quantize: str) -> None:
    """Puts quantised layers, still empty, where the blocks have linear ones; routers of experts stay as they are.

    Args:
        model: without memory (`build_empty`).
        quantize: a form such as `bnb.nf4`.
    """
    blocks = model.get_submodule("transformer.h")
    linears = [(path, module) for path, module in blocks.named_modules() if isinstance(module, nn.Linear)]
    for path, module in linears:
        owner, _, leaf = path.rpartition(".")
        if leaf != "router":
            setattr(blocks.get_submodule(owner), leaf, LAYERS[quantize](module))


def check_quantize(quantize: str) -> None:
    """Refuses a form that is not known or cannot be computed here, before a weight is read.

    Raises:
        ConfigError: the form is unknown, or bitsandbytes is not installed.
    """
    if quantize not in get_args(Quantize):
        raise ConfigError(f'quantize is "{quantize}"; it must be one of {", ".join(get_args(Quantize))}.')
    if quantize not in ("none", "bnb.int8"):
        try:
            load_bitsandbytes()
        except ImportError as error:
            raise ConfigError(
                f"quantize is {quantize}, which needs bitsandbytes; pip install 'litft[bitsandbytes]' brings it."
            ) from error


def load_bitsandbytes() -> Any:
    """Imports bitsandbytes, which takes seconds the first time.

    Raises:
        ImportError: it is not installed.
    """
    if "bitsandbytes" not in sys.modules:
        # It would warn of a kernel that it could fetch from the hub, for a layout of weights that is not used here.
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes
