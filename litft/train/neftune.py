"""NEFTune: noise on the embeddings while training. Source: arXiv 2310.05914."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from litft.data.batches import MicroBatch
from litft.methods.new_tokens import EMBEDDING


@contextmanager
def noisy_embeddings(model: nn.Module, batch: MicroBatch, alpha: float) -> Iterator[None]:
    """Adds noise to the embeddings of one micro-batch; validation and sampling, which are no part of it, see none.

    Args:
        model: a GPT, its method applied.
        batch: the micro-batch that is computed within.
        alpha: noise is uniform up to alpha / sqrt(L C) on both sides, L the tokens of the row itself, however rows are
            padded or packed; 0 for none.
    """
    if not alpha:
        yield
        return

    def add_noise(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
        bound = alpha / (row_lengths(batch).to(embedded.device) * embedded.shape[-1]).sqrt()
        noise = torch.rand(embedded.shape, device=embedded.device).mul_(2).sub_(1).mul_(bound)
        return embedded + noise.to(embedded.dtype)

    handle = model.get_submodule(EMBEDDING).register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()


def row_lengths(batch: MicroBatch) -> Tensor:
    """Gives the tokens of the row that each position belongs to: (1, T, 1) packed, (B, 1, 1) padded, float32."""
    if batch.documents is None:
        return torch.tensor(batch.lengths, dtype=torch.float32)[:, None, None]
    lengths = torch.tensor([tokens for tokens, _ in batch.documents])  # padding counts as a row
    return lengths.repeat_interleave(lengths).float()[None, :, None]
