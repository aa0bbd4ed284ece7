"""Any of torch's optimizers on each parameter by itself: so two kinds can serve one model, and bfloat16 loses nothing.

A bfloat16 parameter is stepped as a float32 copy that lives for that moment alone, and rounded stochastically. Knows
parameters, not their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from litft.train.stochastic import OneByOne, noise_seed, round_stochastically

Maker = Callable[..., torch.optim.Optimizer]


class ByParameter(OneByOne):
    """Steps each parameter with an optimizer made for it, whose state is kept here."""

    def __init__(self, groups: list[dict[str, Any]], maker: Callable[[dict[str, Any]], Maker]) -> None:
        """Takes the parameters.

        Args:
            groups: with `params` and `weight_decay`.
            maker: gives, for a group, what makes an optimizer of a list of parameters, `lr` and `weight_decay`.
        """
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.maker = maker

    def _step_one(self, parameter: Tensor, group: dict[str, Any], index: int) -> None:
        """One step of one parameter; the rounding counts its steps itself, as not every optimizer does."""
        state, is_wide = self.state[parameter], parameter.dtype == torch.float32
        wide = parameter if is_wide else nn.Parameter(parameter.float())
        wide.grad = parameter.grad if is_wide else parameter.grad.float()  # type: ignore[union-attr]
        optimizer = self.maker(group)([wide], lr=group["lr"], weight_decay=group["weight_decay"])
        optimizer.state[wide] = state
        optimizer.step()
        if not is_wide:
            state["rounded"] = state.get("rounded", torch.zeros(())) + 1
            parameter.copy_(round_stochastically(wide.detach(), noise_seed(int(state["rounded"]), index)))
