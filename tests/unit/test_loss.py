"""The loss on target positions: chunks, sums, counts, and what a position without a target contributes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litft.data.batches import IGNORE
from litft.errors import TrainingError
from litft.train import loss as loss_module
from litft.train.loss import iter_targets, sum_loss_and_correct, sum_target_loss


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
def test_chunked_equals_plain_in_value_and_gradient(
    problem: tuple[nn.Linear, Tensor, Tensor], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, hidden, targets = problem
    plain = F.cross_entropy(head(hidden).flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")
    wanted = torch.autograd.grad(plain, [hidden, *head.parameters()])
    monkeypatch.setattr(loss_module, "CHUNK_TOKENS", chunk)
    chunked = sum_target_loss(head, hidden, targets, token_loss)
    got = torch.autograd.grad(chunked, [hidden, *head.parameters()])
    assert chunked.item() == pytest.approx(plain.item(), rel=1e-6)
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_the_head_sees_target_positions_only_and_never_more_than_a_chunk(
    problem: tuple[nn.Linear, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    head, hidden, targets = problem
    monkeypatch.setattr(loss_module, "CHUNK_TOKENS", 4)
    seen: list[int] = []

    def counting_head(chosen: Tensor) -> Tensor:
        seen.append(len(chosen))
        return head(chosen)

    with torch.no_grad():
        sum_target_loss(counting_head, hidden, targets, token_loss)
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
            measure(*problem, reduced)


def test_a_micro_batch_without_targets_adds_nothing(problem: tuple[nn.Linear, Tensor, Tensor]) -> None:
    head, hidden, targets = problem
    loss = sum_target_loss(head, hidden, torch.full_like(targets, IGNORE), token_loss)
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()
    assert list(iter_targets(hidden, torch.full_like(targets, IGNORE))) == []


def test_validation_counts_right_answers(problem: tuple[nn.Linear, Tensor, Tensor]) -> None:
    head, hidden, targets = problem
    wanted = targets != IGNORE
    likeliest = head(hidden).argmax(-1)
    targets[0, 5] = likeliest[0, 5]
    loss, correct = sum_loss_and_correct(head, hidden, targets, token_loss)
    assert correct.item() == int((likeliest == targets)[wanted].sum())
    assert loss.item() == pytest.approx(sum_target_loss(head, hidden, targets, token_loss).item(), rel=1e-6)
