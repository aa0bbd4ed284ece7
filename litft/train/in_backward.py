"""`optim.in_backward`: each parameter is stepped as soon as its gradient is there, and the gradient let go.

So the gradients of a model never exist together. Works with any optimizer that passes over parameters without one.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class SteppingInBackward:
    """Steps parameters within the backward pass, until a gradient comes that is not finite."""

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
        """Takes over.

        Args:
            optimizer: its rate must be set before the backward pass.
            parameters: those that it moves; each gets its whole gradient in one backward pass.
        """
        self.optimizer, self.norms, self.is_finite = optimizer, list[Tensor](), True
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._step)  # type: ignore[no-untyped-call]

    def _step(self, parameter: Tensor) -> None:
        """Steps the one parameter that has a gradient."""
        assert parameter.grad is not None
        self.norms.append(torch.linalg.vector_norm(parameter.grad, dtype=torch.float32))
        self.is_finite = self.is_finite and bool(torch.isfinite(self.norms[-1]))  # host-device sync
        if self.is_finite:
            self.optimizer.step()
        parameter.grad = None

    def take_norm(self) -> Tensor:
        """Gives the norm of all gradients since it was last asked for, a float32 scalar."""
        norms, self.norms, self.is_finite = self.norms, [], True
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return norm
