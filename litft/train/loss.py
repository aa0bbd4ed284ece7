"""The loss as a sum and a count, with the head computed on target positions only, a chunk at a time.

Dividing once by the target tokens of a whole window makes the gradient independent of micro-batches and padding.
Knows no particular loss: the recipe gives `token_loss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from litft.data.batches import IGNORE
from litft.errors import TrainingError

# (logits (N, V), targets (N,)) -> loss of each token (N,), in nats
TokenLoss = Callable[[Tensor, Tensor], Tensor]
Head = Callable[[Tensor], Tensor]

# Float32 logits held at once. Tensors of over 32 MiB the C library maps anew at each use, which costs a CPU ten
# times what is computed on them; a GPU wants larger matrices.
CHUNK_BYTES = {"cpu": 2**24, "cuda": 2**28}


class TargetLoss(NamedTuple):
    """The loss of some positions.

    Attributes:
        total: the sum, a float32 scalar with a gradient.
        each: (N,) float32, of each target, in the order of the positions; without a gradient.
    """

    total: Tensor
    each: Tensor


def chunk_tokens(padded_vocab_size: int, device: torch.device, head_is_trained: bool = False) -> int:
    """Says for how many positions logits are held at once, at least 64.

    The gradient of a trained head is a sum over chunks, rounded to its dtype at each, so there are fewer of them: in
    bfloat16 25 chunks were 0.6% off, 6 chunks 0.4%, and one 0.24%.
    """
    room = CHUNK_BYTES.get(device.type, 2**28) * (4 if head_is_trained else 1)
    return max(room // (4 * padded_vocab_size), 64)


def iter_targets(
    hidden: Tensor, targets: Tensor, chunk: int, places: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gives the hidden states that predict a target, with that target, in chunks.

    Args:
        hidden: (B, T, C).
        targets: (B, T) int64, IGNORE where nothing is predicted.
        chunk: most of them at once.
        places: (N,) int64, which of the B T positions have a target; asked of `targets` where it is not known, for
            which a GPU is waited for.

    Yields:
        (N, C) and (N,), N at most `chunk`; nothing where there is no target.
    """
    chosen, ids = _chosen(hidden, targets, _places(targets) if places is None else places)
    yield from zip(torch.split(chosen, chunk), torch.split(ids, chunk), strict=True) if len(ids) else ()


def _places(targets: Tensor) -> Tensor:
    """Gives which of the positions (B T,) have a target: (N,) int64."""
    return (targets != IGNORE).flatten().nonzero().squeeze(-1)  # host-device sync


def _chosen(hidden: Tensor, targets: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Gives hidden states (N, C) and targets (N,) of these positions."""
    return hidden.flatten(0, 1).index_select(0, places), targets.flatten().index_select(0, places)


def sum_target_loss(
    head: Head,
    hidden: Tensor,
    targets: Tensor,
    token_loss: TokenLoss,
    chunk: int,
    head_is_trained: bool = True,
    places: Tensor | None = None,
) -> TargetLoss:
    """Gives the summed loss of all targets, 0 where there are none.

    Logits of more than one chunk are never held. Of a frozen head each chunk's gradient is taken at once, while its
    logits are there; those of a trained one are computed again in the backward pass.

    Args:
        head: hidden states (N, C) to logits (N, V).
        hidden: (B, T, C).
        targets: (B, T) int64, IGNORE where nothing is predicted.
        token_loss: the loss of each token.
        chunk: positions whose logits are held at once.
        head_is_trained: whether the head has parameters that need a gradient.
        places: as in `iter_targets`.
    """
    places = _places(targets) if places is None else places

    def losses_of(chosen: Tensor, ids: Tensor) -> Tensor:
        return checked_loss(token_loss, head(chosen), ids)

    if not head_is_trained and hidden.requires_grad and torch.is_grad_enabled() and len(places):
        return TargetLoss(*_GradientInForward.apply(*_chosen(hidden, targets, places), losses_of, chunk))  # type: ignore[no-untyped-call]
    chunks = list(iter_targets(hidden, targets, chunk, places))
    if not chunks:
        return TargetLoss(hidden.float().sum() * 0.0, hidden.new_zeros(0, dtype=torch.float32))
    if len(chunks) == 1:
        losses = [losses_of(*chunks[0])]
    else:
        losses = [checkpoint(losses_of, *each, use_reentrant=False) for each in chunks]
    each = torch.cat(losses)
    return TargetLoss(each.sum(), each.detach())


class _GradientInForward(torch.autograd.Function):
    """The losses of chosen positions, (N, C) and (N,) -> their sum and (N,); only the sum has a gradient.

    The gradient by the positions is kept instead of the logits. It holds for the plain sum, so that is what is given.
    """

    @staticmethod
    def forward(
        ctx: Any, chosen: Tensor, ids: Tensor, losses_of: Callable[[Tensor, Tensor], Tensor], chunk: int
    ) -> tuple[Tensor, Tensor]:
        gradient, losses = torch.empty_like(chosen), []
        for start in range(0, len(ids), chunk):
            rows = slice(start, start + chunk)
            part = chosen[rows].detach().requires_grad_()
            with torch.enable_grad():
                each = losses_of(part, ids[rows])
                (gradient[rows],) = torch.autograd.grad(each.sum(), part)
            losses.append(each.detach())
        ctx.save_for_backward(gradient)
        together = torch.cat(losses)
        ctx.mark_non_differentiable(together)
        return together.sum(), together

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype), None, None, None


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Gives what `F.cross_entropy(logits.float(), targets, reduction="none")` does, in less memory and time.

    Args:
        logits: (N, V).
        targets: (N,) int64.

    Returns:
        (N,) float32, in nats; its gradient by the logits is rounded to their dtype once.
    """
    return cast(Tensor, _CrossEntropy.apply(logits, targets))  # type: ignore[no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    """-log p[target]; its gradient, p less 1 at the target, is made where log p stands, before the backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, -1, dtype=torch.float32)
        wanted = targets[:, None]
        losses = -log_p.gather(-1, wanted).squeeze(-1)
        if ctx.needs_input_grad[0]:
            gradient = log_p.exp_().scatter_add_(-1, wanted, log_p.new_full(wanted.shape, -1.0))
            ctx.save_for_backward(gradient.to(logits.dtype))
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].to(gradient.dtype)[:, None], None


def sums_of_rows(each: Tensor, counts: Sequence[int]) -> Tensor:
    """Adds up the losses of each row's targets: (N,) and how many are each row's -> (rows,) float32."""
    owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(each.device)
    return each.new_zeros(len(counts)).index_add_(0, owners, each)


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


def smoothed(token_loss: TokenLoss, share: float) -> TokenLoss:
    """Gives a loss that leaves this share of each target to all tokens alike; the same one where that is 0.

    Of the plain cross-entropy it makes that of torch with `label_smoothing`.

    Args:
        token_loss: the recipe's.
        share: from 0 to below 1.
    """
    if not share:
        return token_loss

    def smoothed_loss(logits: Tensor, targets: Tensor) -> Tensor:
        wide = logits.float()
        even = wide.logsumexp(-1) - wide.mean(-1)  # the mean of -log p over all tokens
        return torch.lerp(checked_loss(token_loss, logits, targets), even, share)

    return smoothed_loss


@torch.no_grad()
def sum_loss_and_correct(
    head: Head, hidden: Tensor, targets: Tensor, token_loss: TokenLoss, chunk: int, places: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gives the summed loss and how many targets are the likeliest token: float32 and int64 scalars.

    Args:
        head, hidden, targets, token_loss, chunk, places: as in `sum_target_loss`.
    """
    loss = torch.zeros((), device=hidden.device)
    correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
    for chosen, ids in iter_targets(hidden, targets, chunk, places):
        logits = head(chosen)
        loss += checked_loss(token_loss, logits, ids).sum()
        correct += (logits.argmax(dim=-1) == ids).sum()
    return loss, correct
