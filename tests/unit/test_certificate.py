"""When two models count as one, and when that is not tried."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from litft.errors import CheckpointError, ConfigError
from litft.export import certificate
from litft.export.certificate import available_bytes, compare, reason_against, require_agreement


def test_comparisons() -> None:
    first = [torch.tensor([[1.0, 2.0, 4.0], [0.0, 3.0, 0.0]])]
    assert compare(first, first).agrees
    second = [first[0] + torch.tensor([0.0, 0.0, 1e-3])]
    found = compare(first, second)
    assert found.agrees and found.max_difference == pytest.approx(1e-3) and found.positions == 2
    assert found.relative_difference == pytest.approx(2.5e-4)
    other = compare(first, [first[0].flip(-1)])
    assert not other.agrees and other.argmax_agreement == 0.5
    with pytest.raises(CheckpointError, match=r"transformers does not compute .*same likeliest token at 50%"):
        require_agreement(other, "transformers", Path("out"))
    sure = torch.tensor([[30.0, 29.9, 0.0]])  # 0.02 is little of 30, but not between neighbours
    apart = compare([sure], [sure + torch.tensor([0.0, 0.02, 0.0])])
    assert apart.relative_difference < 1e-3 and apart.argmax_agreement == 1.0
    assert apart.kl == pytest.approx(5e-5, rel=0.05) and not apart.agrees
    unknown = compare(first, [first[0] * torch.nan])
    assert not unknown.agrees and unknown.max_difference == torch.inf
    with pytest.raises(CheckpointError, match="logits are"):
        compare(first, [first[0][:, :2]])


def test_when_logits_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason_against("tensors", (), 1) == "--certificate tensors"
    assert reason_against("auto", ("transformers",), 1) is None
    assert "no_such_library not installed; pip install 'litft[export]'" in str(
        reason_against("auto", ("no_such_library",), 1)
    )
    with pytest.raises(ConfigError, match="certificate is full, but no_such_library not installed"):
        reason_against("full", ("no_such_library",), 1)
    assert (available_bytes() or 0) > 0
    monkeypatch.setattr(certificate, "available_bytes", lambda: 10**9)
    assert "needs 90 GB of memory and 1 GB are free" in str(reason_against("auto", (), 10**10))
    assert reason_against("full", (), 10**10) is None
