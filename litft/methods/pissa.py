"""PiSSA: adapters that begin as the largest part of the weight itself, which is taken out of the base.

W = U S V^T; scale B A is its first R singular values, and the base keeps the rest. So training moves the directions
that matter most, and a quantised base loses less, as what it rounds is smaller. Source: arXiv 2404.02948.

`final/` holds the difference between the adapter and its beginning: plain LoRA of rank 2 R, for the base as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from litft.checkpoint.tensors import load_weights
from litft.config.run import LoRAConfig
from litft.methods.lora_linear import LoRALinear, Pair
from litft.methods.lora_product import Slices
from litft.terminal.bars import Bar

ROUNDS, SPARE = 4, 8  # of the fast way: rounds, as PiSSA's authors use, and columns beyond those that are wanted


class Principal:
    """Takes the largest part out of each adapted weight while the base is read, before anything is quantised.

    It draws no chance: the same weight gives the same part, so that a resumed run finds its base again.

    Attributes:
        pairs: A (P R, in) and B (rows, R) of each module that was read, float32, by its path.
    """

    def __init__(self, slices: Mapping[str, Slices], config: LoRAConfig, device: torch.device) -> None:
        self.slices, self.config, self.device = slices, config, device
        self.pairs: dict[str, Pair] = {}
        self._bar = Bar("pissa", len(slices), "weights")

    @torch.no_grad()
    def __call__(self, name: str, weight: Tensor) -> Tensor:
        """Gives what a weight is without its largest part, in its dtype; others as they are."""
        path, _, leaf = name.rpartition(".")
        if leaf != "weight" or path not in self.slices:
            return weight
        rest = weight.to(self.device, torch.float32, copy=True)
        found = []
        for start, stop in self.slices[path]:
            a, b = largest_part(rest[start:stop], self.config.r, self.config.init == "pissa_fast")
            rest[start:stop] -= b @ a
            found.append((a, b))
        share = self.config.scale**-0.5
        self.pairs[path] = torch.cat([a for a, _ in found]) * share, torch.cat([b for _, b in found]) * share
        self._bar.update()
        if len(self.pairs) == len(self.slices):
            self._bar.close()
        return rest.to(weight.dtype)


class TakenOut:
    """Takes out of a base what a PiSSA run took out of it, as its result says: a quantised base is then the run's own.

    Attributes:
        weights: what was trained, in pairs of rank K: the first `rank` for the rest of the base, and behind them what
            was taken out, to be subtracted from the base as it lies on disk.
        slices: the rows that are adapted, by the path of their module.
        scale: of the adapters.
        rank: R.
        device: where it is computed.
    """

    def __init__(self, path: Path, slices: Mapping[str, Slices], scale: float, rank: int, device: torch.device) -> None:
        self.weights, self.slices, self.scale, self.rank, self.device = load_weights(path), slices, scale, rank, device

    def __call__(self, name: str, weight: Tensor) -> Tensor:
        """Gives what a weight is without its largest part, in its dtype; others as they are."""
        path, _, leaf = name.rpartition(".")
        if leaf != "weight" or path not in self.slices:
            return weight
        rest = weight.to(self.device, torch.float32, copy=True)
        a, b = (self.weights[f"{path}.lora_{part}"].to(self.device) for part in "AB")
        rows = torch.split(b, [stop - start for start, stop in self.slices[path]])
        for (start, stop), own_a, own_b in zip(self.slices[path], torch.split(a, b.shape[1]), rows, strict=True):
            rest[start:stop] += self.scale * own_b[:, self.rank :] @ own_a[self.rank :]
        return rest.to(weight.dtype)

    def drop(self, model: nn.Module) -> None:
        """Has loaded adapters subtract nothing any more."""
        for layer in model.modules():
            if isinstance(layer, LoRALinear):
                layer.lora_B.data[:, self.rank :] = 0.0


def largest_part(weight: Tensor, rank: int, fast: bool = False) -> Pair:
    """Gives A (R, in) and B (out, R) with B A the best approximation of a weight (out, in), both of like size.

    Args:
        weight: float32.
        rank: R.
        fast: find it nearly, by rounds of products instead of a whole decomposition (arXiv 0909.4061, algorithm 4.4).
    """
    basis = _range(weight, min(rank + SPARE, *weight.shape)) if fast else None
    u, sizes, v = torch.linalg.svd(weight if basis is None else basis.mT @ weight, full_matrices=False)
    u = u if basis is None else basis @ u
    root = sizes[:rank].sqrt()
    return root[:, None] * v[:rank], u[:, :rank] * root


def _range(weight: Tensor, count: int) -> Tensor:
    """Gives an orthonormal basis (out, count) of what a weight (out, in) makes most of."""
    drawn = torch.randn(weight.shape[1], count, generator=torch.Generator().manual_seed(0))  # alike on every device
    basis: Tensor = torch.linalg.qr(weight @ drawn.to(weight.device))[0]
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(weight @ torch.linalg.qr(weight.mT @ basis)[0])[0]
    return basis


def as_differences(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the trained parameters by name as `final/` holds them: PiSSA's as their difference from the beginning.

    Args:
        model: that they are of.
        state: as they stand.
    """
    changed = dict(state)
    for path, layer in model.named_modules():
        if isinstance(layer, LoRALinear) and layer.first_a is not None:
            a, b = layer.difference()
            changed[f"{path}.lora_A"], changed[f"{path}.lora_B"] = a.detach(), b.detach()
    return changed
