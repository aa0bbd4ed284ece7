"""What a forward pass keeps for the backward pass: all, some of it computed again, or all of it in the CPU's memory.

Gradients are the same bit for bit: what is computed again draws the same dropout. Knows no blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Activations:
    """How a model keeps its activations while it is trained.

    Attributes:
        recompute: `none`; `mlp`: the norm and MLP of each block are computed again, about half of the memory for a
            sixth more work; `block`: each block keeps its input alone, for a third more work.
        offload: what is kept waits in the CPU's memory.
    """

    recompute: Literal["none", "mlp", "block"] = "none"
    offload: bool = False

    def of_block(self, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Gives block(*inputs)."""
        return _computed(block, self.recompute == "block", *inputs)

    def of_mlp(self, mlp: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Gives mlp(x)."""
        return _computed(mlp, self.recompute == "mlp", x)

    def waiting(self) -> AbstractContextManager[Any]:
        """Gives the context of a forward pass."""
        if not (self.offload and torch.is_grad_enabled()):
            return nullcontext()
        return torch.autograd.graph.saved_tensors_hooks(_to_cpu, _from_cpu)


def _computed(function: Callable[..., Tensor], again: bool, *inputs: Any) -> Tensor:
    """Calls a function, and once more in the backward pass where it is to keep nothing."""
    if again and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
    return function(*inputs)


def _to_cpu(tensor: Tensor) -> tuple[torch.device, Tensor]:
    """Copies an activation out; parameters, and views of them, stay where they are."""
    owner = tensor if tensor._base is None else tensor._base
    if isinstance(owner, nn.Parameter) or tensor.device.type == "cpu":
        return tensor.device, tensor
    there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return tensor.device, there.copy_(tensor, non_blocking=True)


def _from_cpu(packed: tuple[torch.device, Tensor]) -> Tensor:
    """Gives it back on its device."""
    device, tensor = packed
    return tensor.to(device, non_blocking=True)
