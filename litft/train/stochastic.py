"""AdamW that does not lose small updates to bfloat16: steps in float32, rounded stochastically, a slice at a time.

In plain bfloat16 most steps of a learning rate such as 2e-5 are smaller than half the distance to the next number and
would be lost. Knows parameters, not their names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from litft.errors import ConfigError
from litft.model.quantize import load_bitsandbytes

SLICE = {"cpu": 1 << 18}  # numbers; what is computed in between stays in the processor's cache
LARGEST_SLICE = 1 << 22  # 16 MB of float32: what is held in between, whatever the size of a parameter
MASK = 0xFFFF
SMALLEST_8BIT, BLOCK = 4096, 256  # Source: bitsandbytes 0.50, `min_8bit_size` and the block of its 8-bit optimizers


class OneByOne(torch.optim.Optimizer, ABC):
    """Steps each parameter by itself; a subclass says how."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Moves every parameter that has a gradient by one step; a closure is not supported."""
        index = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                index += 1
                if parameter.grad is not None:
                    self._step_one(parameter, group, index)

    @abstractmethod
    def _step_one(self, parameter: Tensor, group: dict[str, Any], index: int) -> None:
        """One step of one parameter, the `index`-th of all, counted from 1."""


class StochasticAdamW(OneByOne):
    """AdamW with float32 state; parameters of bfloat16 are rounded stochastically, others are stepped as they are.

    Source: AdamW arXiv 1711.05101; stochastic rounding as in arXiv 2010.06192, section 4.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    def _step_one(self, parameter: Tensor, group: dict[str, Any], index: int) -> None:
        """One step of one parameter."""
        state = self.state[parameter]
        if not state:
            state.update({"step": torch.zeros(()), **self._first_state(parameter)})
        state["step"] += 1
        step = int(state["step"])
        flat_state = {key: flat(tensor) for key, tensor in state.items() if key != "step"}
        for part, weights, gradient in iter_wide(parameter, noise_seed(step, index)):
            self._move(part, weights, gradient, flat_state, {**group, "step": step})

    def _first_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """Gives the moments before the first step."""
        return {key: torch.zeros_like(parameter, dtype=torch.float32) for key in ("exp_avg", "exp_avg_sq")}

    def _move(
        self, part: slice, weights: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """Moves one slice in place: weights and gradient (N,) float32, state of the whole parameter."""
        torch._fused_adamw_(
            [weights],
            [gradient],
            [state["exp_avg"][part]],
            [state["exp_avg_sq"][part]],
            [],
            [torch.tensor(float(group["step"]), device=weights.device)],
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )


class StochasticAdamW8bit(StochasticAdamW):
    """The same with both moments in 8 bits, a scale for every 256 of them; small parameters keep float32.

    Source: arXiv 2110.02861; the arithmetic is bitsandbytes'.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float) -> None:
        """As above.

        Raises:
            ConfigError: bitsandbytes is not installed.
        """
        super().__init__(params, lr, betas, eps)
        try:
            self.functional = load_bitsandbytes().functional
        except ImportError as error:
            raise ConfigError(
                "optim.name is adamw8bit, which needs bitsandbytes; pip install 'litft[bitsandbytes]' brings it."
            ) from error
        self.codes = [self.functional.create_dynamic_map(signed=signed) for signed in (True, False)]

    def _first_state(self, parameter: Tensor) -> dict[str, Tensor]:
        """Gives the moments before the first step: bytes, and the scale of each block."""
        if parameter.numel() < SMALLEST_8BIT:
            return super()._first_state(parameter)
        blocks = -(-parameter.numel() // BLOCK)
        moments = {key: torch.zeros_like(parameter, dtype=torch.uint8) for key in ("exp_avg_8bit", "exp_avg_sq_8bit")}
        scales = {key: torch.zeros(blocks, device=parameter.device) for key in ("exp_avg_scale", "exp_avg_sq_scale")}
        return {**moments, **scales}

    def _move(
        self, part: slice, weights: Tensor, gradient: Tensor, state: dict[str, Tensor], group: dict[str, Any]
    ) -> None:
        """As above; a slice begins with a block."""
        if "exp_avg" in state:
            super()._move(part, weights, gradient, state, group)
            return
        self.codes = [code.to(weights.device) for code in self.codes]
        blocks = slice(part.start // BLOCK, -(-part.stop // BLOCK))
        self.functional.optimizer_update_8bit_blockwise(
            "adam",
            gradient,
            weights,
            state["exp_avg_8bit"][part],
            state["exp_avg_sq_8bit"][part],
            *group["betas"],
            beta3=0.0,
            alpha=0.0,
            eps=group["eps"],
            step=group["step"],
            lr=group["lr"],
            qmap1=self.codes[0],
            qmap2=self.codes[1],
            absmax1=state["exp_avg_scale"][blocks],
            absmax2=state["exp_avg_sq_scale"][blocks],
            weight_decay=group["weight_decay"],
        )


def iter_wide(parameter: Tensor, seed: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Gives a parameter and its gradient in float32, slice by slice, and puts back what became of the weights.

    Args:
        parameter: with a gradient; bfloat16 is rounded stochastically, float32 is given as it is.
        seed: of the rounding.

    Yields:
        Where the slice lies in the flat parameter, its weights (N,), to be changed in place, and its gradient (N,).
    """
    weights, gradient = flat(parameter), flat(cast(Tensor, parameter.grad))
    size = min(slice_size(weights), len(weights))
    noises = iter_noise(len(weights), weights.device, seed) if weights.dtype == torch.bfloat16 else None
    buffers = torch.empty(2, size, device=weights.device)  # once: new memory for each slice would take twice the time
    for start in range(0, len(weights), size):
        part = slice(start, min(start + size, len(weights)))
        wide, slope = (_wide(tensor[part], buffer) for tensor, buffer in zip((weights, gradient), buffers, strict=True))
        yield part, wide, slope
        if noises is not None:
            store_rounded(weights[part], wide, next(noises))


def _wide(numbers: Tensor, buffer: Tensor) -> Tensor:
    """Gives numbers in float32: themselves, or a copy in the buffer."""
    return numbers if numbers.dtype == torch.float32 else buffer[: len(numbers)].copy_(numbers)


def slice_size(tensor: Tensor) -> int:
    """Gives how many numbers of a flat tensor are stepped at once on its device; a multiple of any block."""
    return SLICE.get(tensor.device.type, LARGEST_SLICE)


def noise_seed(step: int, index: int) -> int:
    """Gives the seed of one parameter's rounding in one step: the same when resumed, and on every process."""
    return (step * 1_000_003 + index) % (1 << 32)


def iter_noise(count: int, device: torch.device, seed: int) -> Iterator[Tensor]:
    """Gives 16 random bits for each number of a flat tensor, slice by slice; any two of them are independent.

    One slice is drawn, and every other adds a random number of its own to it, modulo 2^16: pairs stay independent,
    which is what mean and variance of any sum need, at a tenth of the time that drawing all would take.

    Args:
        count: numbers.
        device: where they are.
        seed: of the draw.

    Yields:
        (N,) int32, each from 0 to 65,535; the next one overwrites it.
    """
    generator = torch.Generator(device).manual_seed(seed)
    size = min(slice_size(torch.empty(0, device=device)), count)
    drawn = torch.empty(-(-size // 4), dtype=torch.int64, device=device).random_(-(1 << 63), None, generator=generator)
    table = drawn.view(torch.int16)[:size].to(torch.int32)
    shifts = torch.randint(1 << 16, (-(-count // size),), generator=generator, device=device).tolist()
    noise = torch.empty_like(table)
    for number, shift in enumerate(shifts):
        length = min(size, count - number * size)
        yield torch.add(table[:length], shift, out=noise[:length]).bitwise_and_(MASK)


def store_rounded(target: Tensor, wide: Tensor, noise: Tensor) -> None:
    """Rounds float32 to bfloat16 up or down, with the chance that makes the mean exact.

    bfloat16 is the upper half of float32: a uniform number added to the lower half carries over with the wanted chance.

    Args:
        target: (N,) bfloat16, is written.
        wide: (N,) float32, is used up.
        noise: (N,) int32, 16 random bits each.
    """
    wide.view(torch.int32).add_(noise).bitwise_and_(-1 ^ MASK)
    target.copy_(wide)


def flat(tensor: Tensor) -> Tensor:
    """Gives a tensor's numbers in one row, without a copy."""
    return tensor.detach().view(-1)


def round_stochastically(x: Tensor, seed: int) -> Tensor:
    """Gives float32 numbers in bfloat16, rounded up or down by chance so that the mean stays.

    Args:
        x: of any shape.
        seed: of the chance.
    """
    rounded = torch.empty_like(x, dtype=torch.bfloat16)
    source, target, size = x.contiguous().view(-1), rounded.view(-1), slice_size(x)
    for number, noise in enumerate(iter_noise(len(source), x.device, seed)):
        part = slice(number * size, number * size + len(noise))
        store_rounded(target[part], source[part].clone(), noise)
    return rounded
