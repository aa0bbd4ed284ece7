"""The loss on target positions: chunks, sums, counts, and what a position without a target contributes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.data.batches import IGNORE
from litft.errors import TrainingError
from litft.train.loss import cross_entropy, iter_targets, sum_loss_and_correct, sum_target_loss


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def problem() -> tuple[nn.Linear, Tensor, Tensor]:
    """A head of 11 tokens, hidden states (3, 7, 5) and ragged targets."""
    torch.manual_seed(0)
    head, hidden = nn.Linear(5, 11), torch.randn(3, 7, 5, requires_grad=True)
    targets = torch.randint(0, 11, (3, 7))
    targets[0, :4], targets[1, 5:], targets[2, ::2] = IGNORE, IGNORE, IGNORE
    return head, hidden, targets


@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
def test_chunked_equals_plain_in_value_and_gradient(problem: tuple[nn.Linear, Tensor, Tensor], chunk: int) -> None:
    head, hidden, targets = problem
    plain = F.cross_entropy(head(hidden).flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    wanted = torch.autograd.grad(plain, [hidden, *head.parameters()])
    chunked, each = sum_target_loss(head, hidden, targets, token_loss, chunk)
    got = torch.autograd.grad(chunked, [hidden, *head.parameters()])
    assert each.sum().item() == pytest.approx(plain.item(), rel=1e-6)
    assert chunked.item() == pytest.approx(plain.item(), rel=1e-6)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 5, 1000])
def test_the_gradient_of_a_frozen_head_is_taken_while_its_logits_are_there(
    problem: tuple[nn.Linear, Tensor, Tensor], chunk: int
) -> None:
    head, hidden, targets = problem
    head.requires_grad_(False)
    plain = F.cross_entropy(head(hidden).flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="none")
    (wanted,) = torch.autograd.grad(plain.sum() * 0.3, hidden)
    calls: list[int] = []

    def counting_head(chosen: Tensor) -> Tensor:
        calls.append(len(chosen))
        return head(chosen)

    total, each = sum_target_loss(counting_head, hidden, targets, token_loss, chunk, head_is_trained=False)
    (got,) = torch.autograd.grad(total * 0.3, hidden)
    assert torch.allclose(got, wanted, atol=1e-6) and not each.requires_grad
    assert torch.allclose(each, plain[plain != 0], atol=1e-6)
    assert sum(calls) == len(each) and max(calls) <= chunk  # never computed twice


@pytest.mark.parametrize("head_is_trained", [True, False])
def test_the_head_sees_target_positions_only_and_never_more_than_a_chunk(
    problem: tuple[nn.Linear, Tensor, Tensor], head_is_trained: bool
) -> None:
    head, hidden, targets = problem
    seen: list[int] = []

    def counting_head(chosen: Tensor) -> Tensor:
        seen.append(len(chosen))
        return head(chosen)

    with torch.no_grad():
        sum_target_loss(counting_head, hidden, targets, token_loss, 4, head_is_trained)
    assert max(seen) <= 4
    assert sum(seen) == int((targets != IGNORE).sum())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_that_is_not_one_number_a_token_is_refused(
    problem: tuple[nn.Linear, Tensor, Tensor], reduction: str
) -> None:
    def reduced(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, reduction=reduction)

    for measure in (sum_target_loss, sum_loss_and_correct):
        with pytest.raises(TrainingError, match=r"token_loss gave \[\] for 11 targets"):
            measure(*problem, reduced, 64)


def test_a_micro_batch_without_targets_adds_nothing(problem: tuple[nn.Linear, Tensor, Tensor]) -> None:
    head, hidden, targets = problem
    loss, each = sum_target_loss(head, hidden, torch.full_like(targets, IGNORE), token_loss, 4)
    assert not len(each)
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()
    assert list(iter_targets(hidden, torch.full_like(targets, IGNORE), 4)) == []


def test_validation_counts_right_answers(problem: tuple[nn.Linear, Tensor, Tensor]) -> None:
    head, hidden, targets = problem
    wanted = targets != IGNORE
    likeliest = head(hidden).argmax(-1)
    targets[0, 5] = likeliest[0, 5]
    loss, correct = sum_loss_and_correct(head, hidden, targets, token_loss, 4)
    assert correct.item() == int((likeliest == targets)[wanted].sum())
    assert loss.item() == pytest.approx(sum_target_loss(head, hidden, targets, token_loss, 4).total.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_recipes_loss_is_torchs_cross_entropy_with_its_gradient(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(7, 50, generator=generator)).to(dtype).requires_grad_()
    targets, weights = torch.randint(0, 50, (7,), generator=generator), torch.rand(7, generator=generator)
    ours, theirs = cross_entropy(logits, targets), token_loss(logits, targets)
    assert ours.dtype == torch.float32 and torch.allclose(ours, theirs, rtol=1e-6)
    one, two = (torch.autograd.grad((each * weights).sum(), logits)[0] for each in (ours, theirs))
    assert one.dtype == dtype and torch.allclose(
        one.float(), two.float(), rtol=1e-6 if dtype == torch.float32 else 2e-2
    )
    assert not cross_entropy(logits.detach(), targets).requires_grad
