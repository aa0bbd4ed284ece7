"""Optimizers by name, and an AdamW that does not lose small updates to bfloat16.

Knows parameters and their names, not models or methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from litft.config.run import OptimConfig

NamedParameters = Iterable[tuple[str, torch.nn.Parameter]]


def build_optimizer(parameters: NamedParameters, config: OptimConfig) -> torch.optim.Optimizer:
    """Gives AdamW over the parameters that require a gradient, with decay on matrices only.

    bfloat16 parameters are stepped in float32 and rounded stochastically: in plain bfloat16 most steps of a
    learning rate such as 2e-5 are smaller than half the distance to the next number and would be lost.

    Args:
        parameters: (name, parameter); frozen ones are passed over.
        config: rate, betas, epsilon and decay.
    """
    trained = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for name, p in trained if is_decayed(name, p)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in trained if not is_decayed(name, p)], "weight_decay": 0.0},
    ]
    rounded = any(parameter.dtype == torch.bfloat16 for _, parameter in trained)
    kind: Callable[..., torch.optim.Optimizer] = StochasticAdamW if rounded else torch.optim.AdamW
    return kind(
        [group for group in groups if group["params"]], lr=config.learning_rate, betas=config.betas, eps=config.eps
    )


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Says whether weight decay applies: to matrices, never to norms, biases, gates and scales (one dimension)."""
    return parameter.ndim >= 2 and not name.endswith("bias")


class StochasticAdamW(torch.optim.Optimizer):
    """AdamW with float32 state whose new weights are rounded to their own dtype, bfloat16 ones stochastically.

    Source: AdamW arXiv 1711.05101; stochastic rounding as in arXiv 2010.06192, section 4.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient by one step; a closure is not supported."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, group)

    def _step_one(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """One AdamW step of one parameter."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(parameter, dtype=torch.float32)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=torch.float32)
        state["step"] += 1
        step, (beta1, beta2) = state["step"].item(), group["betas"]
        gradient = parameter.grad.float()  # type: ignore[union-attr]
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2)
        size = (state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
        new = parameter.float() * (1 - group["lr"] * group["weight_decay"])
        new.addcdiv_(state["exp_avg"], size, value=-group["lr"] / (1 - beta1**step))
        parameter.copy_(round_stochastically(new) if parameter.dtype == torch.bfloat16 else new)


def round_stochastically(x: Tensor) -> Tensor:
    """Rounds float32 to bfloat16 up or down, with the chance that makes the mean exact.

    bfloat16 is the upper half of float32: a uniform number added to the lower half carries over with the wanted chance.
    """
    bits = x.view(torch.int32)
    noise = torch.randint_like(bits, 0, 1 << 16)
    return ((bits + noise) & -0x10000).view(torch.float32).to(torch.bfloat16)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every group.

    Raises:
        ValueError: the rate is not a finite number.
    """
    if not math.isfinite(rate):
        raise ValueError(f"learning rate {rate}")
    for group in optimizer.param_groups:
        group["lr"] = rate
