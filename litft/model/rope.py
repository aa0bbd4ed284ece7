"""Rotary positions: the angles by which queries and keys are turned, for every way of stretching a context.

Knows nothing of attention or of modules: frequencies are never cast, saved or left on the meta device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from litft.config.model import ModelConfig, RopeScaling
from litft.model.fused import turn


class Rope:
    """Rotary angles. Half rotation: the first half of the rotated numbers pairs with the second, in every family.

    Source: arXiv 2104.09864; the pairing is GPT-NeoX's, which Hugging Face uses for all of these families.
    """

    def __init__(self, size: int, base: float, scaling: RopeScaling | None) -> None:
        self.base, self.scaling = base, scaling
        self.exponents = torch.arange(0, size, 2, dtype=torch.float32, device="cpu") / size  # (R/2,)
        self.magnitude = scaling.magnitude if scaling else 1.0
        self._kept: tuple[tuple[torch.device, int], Tensor] | None = None  # copied to a GPU once, not at each forward

    def angles(self, positions: Tensor, texts: Sequence[tuple[int, int]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Gives cos and sin for these positions, computed in float32.

        Args:
            positions: (T,) int64, of one text after the other.
            texts: of each, how many of these tokens are its, and its length as far as it is to grow; only longrope and
                dynamic ask for the second.
            dtype: of the activations.

        Returns:
            Two tensors (T, R), R = rotary_size, both halves equal.
        """
        if self.depends_on_reach:
            parts = torch.split(positions, [tokens for tokens, _ in texts])
            frequencies = [self._frequencies_on(positions.device, reach) for _, reach in texts]
            pairs = zip(parts, frequencies, strict=True)
            half = torch.cat([part.float()[:, None] * each for part, each in pairs])  # (T, R/2)
        else:
            half = positions.float()[:, None] * self._frequencies_on(positions.device, 0)
        full = torch.cat((half, half), dim=-1)  # (T, R)
        return (full.cos() * self.magnitude).to(dtype), (full.sin() * self.magnitude).to(dtype)

    @property
    def depends_on_reach(self) -> bool:
        """Whether the frequencies depend on how long a text is."""
        return self.scaling is not None and self.scaling.kind in ("longrope", "dynamic")

    def turns_alike(self, reach: int, other: int) -> bool:
        """Whether texts that grow to these lengths are turned by the same angles."""
        return not self.depends_on_reach or torch.equal(self.frequencies(reach), self.frequencies(other))

    def _frequencies_on(self, device: torch.device, reach: int) -> Tensor:
        """Gives the frequencies on a device; those of the last text again where nothing changed."""
        key = (device, reach)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.frequencies(reach).to(device)
        return self._kept[1]

    def frequencies(self, reach: int) -> Tensor:
        """Gives the frequencies (R/2,) for a text of `reach` tokens."""
        if self.scaling is None:
            return 1.0 / self.base**self.exponents
        return SCALINGS[self.scaling.kind](self.base, self.exponents, self.scaling, reach)


def _linear(base: float, exponents: Tensor, scaling: RopeScaling, reach: int) -> Tensor:
    """Divides all."""
    return 1.0 / base**exponents / scaling.factor


def _llama3(base: float, exponents: Tensor, scaling: RopeScaling, reach: int) -> Tensor:
    """Divides long waves, keeps short ones. Source: Meta's Llama 3.1 reference code."""
    frequencies = 1.0 / base**exponents
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = scaling.original_block_size * frequencies / (2 * math.pi)
    keep = ((turns - low) / (high - low)).clamp(0, 1)  # 0: long waves, 1: short waves
    return (1 - keep) * frequencies / scaling.factor + keep * frequencies


def _yarn(base: float, exponents: Tensor, scaling: RopeScaling, reach: int) -> Tensor:
    """Divides slow frequencies, keeps fast ones. Source: `_compute_yarn_parameters` of Hugging Face."""
    frequencies, size = 1.0 / base**exponents, 2 * len(exponents)

    def place_of(turns: float) -> float:
        """Gives the index of the frequency that makes so many turns over the original length."""
        return size * math.log(scaling.original_block_size / (turns * 2 * math.pi)) / (2 * math.log(base))

    first, last = place_of(scaling.beta_fast), place_of(scaling.beta_slow)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    width = last - first or 0.001
    divide = ((torch.arange(size // 2, dtype=torch.float32) - first) / width).clamp(0, 1)
    return frequencies * (1 - divide) + frequencies / scaling.factor * divide


def _longrope(base: float, exponents: Tensor, scaling: RopeScaling, reach: int) -> Tensor:
    """Divides each by its own factor. Source: `_compute_longrope_parameters` of Hugging Face, arXiv 2402.13753."""
    factors = scaling.long_factors if reach > scaling.original_block_size else scaling.short_factors
    return 1.0 / (torch.tensor(factors, dtype=torch.float32) * base**exponents)


def _dynamic(base: float, exponents: Tensor, scaling: RopeScaling, reach: int) -> Tensor:
    """Raises the base. Source: `_compute_dynamic_ntk_parameters` of Hugging Face."""
    size, length = 2 * len(exponents), max(reach, scaling.original_block_size)
    stretch = scaling.factor * length / scaling.original_block_size - (scaling.factor - 1)
    raised: float = base * stretch ** (size / (size - 2))
    return 1.0 / raised**exponents


SCALINGS: dict[str, Callable[[float, Tensor, RopeScaling, int], Tensor]] = {
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "dynamic": _dynamic,
}


def build_rope(config: ModelConfig, is_local: bool) -> Rope:
    """Gives the rotation of the blocks with (`is_local`) or without a sliding window."""
    if is_local and config.rope_local_base is not None:
        return Rope(config.rotary_size, config.rope_local_base, None)
    return Rope(config.rotary_size, config.rope_base, config.rope_scaling)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the first R numbers of each head; the rest pass.

    Args:
        x: (B, H, T, D).
        cos, sin: (T, R), or (B, 1, T, R) where each row has its own.

    Returns:
        (B, H, T, D).
    """
    size = cos.shape[-1]
    if size == 0:
        return x
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)  # under autocast q and k are narrower than the embedding
    return turn(x, cos, sin)
