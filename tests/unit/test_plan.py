"""The arithmetic of runs, for any sizes: every example once an epoch, the rate's table, the bounds."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litft.config.optim import OptimConfig
from litft.config.plan import TrainPlan, build_plan
from litft.config.train import EvalConfig, TrainConfig, parse_duration
from litft.errors import ConfigError


@st.composite
def plans(draw: st.DrawFn) -> TrainPlan:
    """Any plan of up to 300 rows."""
    micro = draw(st.integers(1, 8))
    train = TrainConfig(
        micro_batch_size=micro,
        global_batch_size=micro * draw(st.integers(1, 8)),
        epochs=draw(st.integers(1, 4)),
        max_iters=draw(st.none() | st.integers(1, 400)),
        max_steps=draw(st.none() | st.integers(1, 100)),
        save_interval=draw(st.floats(0.01, 0.99) | st.integers(1, 50)),
    )
    optim = OptimConfig(
        learning_rate=1e-3,
        min_learning_rate=draw(st.sampled_from([0.0, 1e-5])),
        lr_warmup_steps=draw(st.floats(0, 0.99) | st.integers(1, 50)),
        schedule=draw(st.sampled_from(["cosine", "linear"])),
    )
    return build_plan(
        draw(st.integers(1, 300)), train, optim, EvalConfig(interval=draw(st.floats(0.01, 1.0) | st.integers(1, 9)))
    )


@given(plans())
def test_windows_cover_each_epoch_in_order_and_end_at_the_bound(plan: TrainPlan) -> None:
    windows = [plan.window(step) for step in range(plan.steps)]
    sizes = [window.stop - window.start for window in windows]
    assert all(0 < size <= plan.global_batch_size for size in sizes)
    assert sum(sizes) == plan.examples
    position = [(window.epoch, row) for window in windows for row in range(window.start, window.stop)]
    assert position == [divmod(index, plan.n_examples) for index in range(plan.examples)]


@given(plans())
def test_the_rate_starts_above_zero_never_exceeds_its_height_and_ends_at_its_minimum(plan: TrainPlan) -> None:
    rates = [plan.learning_rate(step) for step in range(plan.steps)]
    assert rates[0] > 0
    assert max(rates) <= plan.optim.learning_rate
    if plan.steps > 1:
        assert rates[-1] == pytest.approx(plan.optim.min_learning_rate, abs=1e-12)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@given(plans())
def test_the_last_step_validates_and_does_not_save_a_step_beside_final(plan: TrainPlan) -> None:
    assert plan.validates_after(plan.steps - 1)
    assert not plan.saves_after(plan.steps - 1)


def test_the_published_table_of_a_short_run() -> None:
    """Warmup over two steps, then half a cosine over three: 1/2, 1, then (1 + cos(pi t/3)) / 2 at t = 1, 2, 3."""
    optim = OptimConfig(learning_rate=1.0, lr_warmup_steps=2)
    plan = build_plan(5, TrainConfig(global_batch_size=1), optim, EvalConfig())
    assert [plan.learning_rate(step) for step in range(5)] == pytest.approx([0.5, 1.0, 0.75, 0.25, 0.0])


def test_without_warmup_the_first_step_has_the_highest_rate() -> None:
    optim = OptimConfig(learning_rate=1.0, lr_warmup_steps=0, schedule="linear")
    plan = build_plan(5, TrainConfig(global_batch_size=1), optim, EvalConfig())
    assert [plan.learning_rate(step) for step in range(5)] == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_lit_gpts_faulty_cosine_does_not_come_back() -> None:
    """50,000 iterations in 1,562.5 steps of 32: upstream's rate reached zero at step 490 and rose again."""
    train = TrainConfig(global_batch_size=32, max_iters=50_000, epochs=None)
    plan = build_plan(52_000, train, OptimConfig(lr_warmup_steps=100), EvalConfig())
    assert plan.steps == 1563
    assert plan.examples == 50_000
    rates = [plan.learning_rate(step) for step in range(100, plan.steps)]
    assert all(a > b for a, b in pairwise(rates))
    assert rates[490 - 100] > 0.8 * 3e-4


def test_a_thousand_iterations_are_a_pass_over_a_thousand_rows() -> None:
    plan = build_plan(1000, TrainConfig(max_iters=1000), OptimConfig(), EvalConfig())
    assert plan.examples == 1000
    assert plan.steps == math.ceil(1000 / 16)


def test_intervals_are_steps_fractions_or_epochs() -> None:
    train = TrainConfig(global_batch_size=10, epochs=5, save_interval=7)
    assert build_plan(100, train, OptimConfig(), EvalConfig(interval="epoch")).eval_every == 10
    assert build_plan(100, train, OptimConfig(), EvalConfig(interval=0.5)).eval_every == 25
    assert build_plan(100, train, OptimConfig(), EvalConfig(interval=1)).eval_every == 1
    assert build_plan(100, train, OptimConfig(), EvalConfig()).save_every == 7


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24:00:00", 86400), ("24h", 86400), ("90m", 5400), ("1.5h", 5400), ("30", 30), ("2d", 172800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "1w", "24:00", "-5", "1h30m", "24:61:00"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.max_time"):
        parse_duration(text)
