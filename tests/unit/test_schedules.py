"""The shape of each schedule: where it is high, where it comes down, and where it ends."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args, get_type_hints

import pytest

from litft.config.optim import OptimConfig
from litft.config.plan import build_plan
from litft.config.train import EvalConfig, TrainConfig
from litft.errors import ConfigError

SCHEDULES = get_args(get_type_hints(OptimConfig)["schedule"])


def rates(schedule: str, steps: int = 100, **optim: Any) -> list[float]:
    """The rate of each step of a run."""
    config = OptimConfig(**{"learning_rate": 1.0, "schedule": schedule, "lr_warmup_steps": 0, **optim})
    plan = build_plan(steps, TrainConfig(global_batch_size=1), config, EvalConfig())
    return [plan.learning_rate(step) for step in range(plan.steps)]


@pytest.mark.parametrize("steps", [1, 2, 100])
@pytest.mark.parametrize("warmup", [0, 0.1, 10])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_first_step_moves_and_the_last_has_the_minimum(schedule: str, warmup: float, steps: int) -> None:
    found = rates(schedule, steps, lr_warmup_steps=warmup, min_learning_rate=0.01)
    assert 0 < found[0] <= 1
    assert max(found) == 1.0 or steps <= warmup
    assert found[-1] == pytest.approx(1.0 if schedule == "constant" or steps == 1 else 0.01)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_warmup_the_first_step_has_the_highest_rate(schedule: str) -> None:
    assert rates(schedule)[0] == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_rises_over_the_warmup_and_never_after(schedule: str) -> None:
    found = rates(schedule, lr_warmup_steps=10)
    assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert all(after <= before for before, after in pairwise(found[9:]))


def test_the_heights_half_way() -> None:
    assert rates("linear")[50] == pytest.approx(49 / 99)
    assert rates("cosine", 101)[50] == pytest.approx(0.5)
    assert rates("cosine", 101)[25] == pytest.approx(0.8535533906)
    assert set(rates("constant")) == {1.0}


@pytest.mark.parametrize(("fraction", "first_decayed"), [(0.1, 90), (0.25, 75), (1.0, 1)])
def test_wsd_is_constant_and_comes_down_in_its_last_share(fraction: float, first_decayed: int) -> None:
    found = rates("wsd", decay_fraction=fraction, min_learning_rate=0.1)
    assert set(found[:first_decayed]) == {1.0}
    falls = [before - after for before, after in pairwise(found[first_decayed - 1 :])]
    assert falls == pytest.approx([0.9 / (100 - first_decayed)] * (100 - first_decayed))
    assert found[-1] == pytest.approx(0.1)


def test_wsd_ends_where_the_decay_is_told_to_end() -> None:
    found = rates("wsd", decay_steps=50, lr_warmup_steps=10)
    assert set(found[9:45]) == {1.0}
    assert found[45] == pytest.approx(0.8)
    assert set(found[49:]) == {0.0}


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"optim\.decay_fraction is .*; it must be above 0 and at most 1"):
        OptimConfig(decay_fraction=fraction)
