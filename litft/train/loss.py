"""The loss as a sum and a count, with the head computed on target positions only, a chunk at a time.

Dividing once by the target tokens of a whole window makes the gradient independent of micro-batches and padding.
Knows no particular loss: the recipe gives `token_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from litft.data.batches import IGNORE
from litft.errors import TrainingError

# (logits (N, V), targets (N,)) -> loss of each token (N,), in nats
TokenLoss = Callable[[Tensor, Tensor], Tensor]
Head = Callable[[Tensor], Tensor]

CHUNK_TOKENS = 1024


def iter_targets(hidden: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Gives the hidden states that predict a target, with that target, in chunks.

    Args:
        hidden: (B, T, C).
        targets: (B, T) int64, IGNORE where nothing is predicted.

    Yields:
        (N, C) and (N,), N at most CHUNK_TOKENS; nothing where there is no target.
    """
    wanted = targets != IGNORE
    chosen, ids = hidden[wanted], targets[wanted]
    yield from zip(torch.split(chosen, CHUNK_TOKENS), torch.split(ids, CHUNK_TOKENS), strict=True) if len(ids) else ()


def sum_target_loss(head: Head, hidden: Tensor, targets: Tensor, token_loss: TokenLoss) -> Tensor:
    """Gives the summed loss of all targets, a float32 scalar; 0 where there are none.

    Logits of more than one chunk are never held: each chunk's are computed again in the backward pass.

    Args:
        head: hidden states (N, C) to logits (N, V).
        hidden: (B, T, C).
        targets: (B, T) int64, IGNORE where nothing is predicted.
        token_loss: the loss of each token.
    """

    def chunk_loss(chosen: Tensor, ids: Tensor) -> Tensor:
        return checked_loss(token_loss, head(chosen), ids).sum()

    chunks = list(iter_targets(hidden, targets))
    if len(chunks) == 1:
        return chunk_loss(*chunks[0])
    losses = [checkpoint(chunk_loss, chosen, ids, use_reentrant=False) for chosen, ids in chunks]
    return torch.stack(losses).sum() if losses else hidden.float().sum() * 0.0


def checked_loss(token_loss: TokenLoss, logits: Tensor, targets: Tensor) -> Tensor:
    """Gives the loss of each token, (N,) float32.

    Raises:
        TrainingError: the recipe's loss is not one number a token; a mean would be summed and divided again.
    """
    losses = token_loss(logits, targets)
    if losses.shape != targets.shape:
        raise TrainingError(
            f"token_loss gave {list(losses.shape)} for {len(targets)} targets; it must give one number a token, "
            f'[{len(targets)}], such as F.cross_entropy(..., reduction="none").'
        )
    return losses.float()


@torch.no_grad()
def sum_loss_and_correct(head: Head, hidden: Tensor, targets: Tensor, token_loss: TokenLoss) -> tuple[Tensor, Tensor]:
    """Gives the summed loss and how many targets are the likeliest token: float32 and int64 scalars.

    Args:
        head, hidden, targets, token_loss: as in `sum_target_loss`.
    """
    loss = torch.zeros((), device=hidden.device)
    correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
    for chosen, ids in iter_targets(hidden, targets):
        logits = head(chosen)
        loss += checked_loss(token_loss, logits, ids).sum()
        correct += (logits.argmax(dim=-1) == ids).sum()
    return loss, correct
