"""A run that time ends: its schedule, validations, checkpoints and end, by a clock of the test's and by a real one."""

from __future__ import annotations

import csv
import json
import random
import time
from collections import Counter
from pathlib import Path

import pytest
import torch.nn.functional as F
from tiny_run import make_config, make_world, methods, open_run, with_step_limit
from torch import Tensor

from litft.config.optim import OptimConfig
from litft.config.plan import TrainPlan, build_plan
from litft.config.train import EvalConfig, TrainConfig
from litft.train.budget import Budget
from litft.train.finish import finish
from litft.train.loop import fit

DAY = 86400.0


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Simulation:
    """What a run does with its time, without a model."""

    def __init__(
        self, step_seconds: tuple[float, float], validation: float, checkpoint: float, **train: object
    ) -> None:
        self.train = TrainConfig(max_time="24h", **{"epochs": 100, **train})  # type: ignore[arg-type]
        self.evaluation, self.clock, self.counts = EvalConfig(), Clock(), Counter[str]()
        self.optim = OptimConfig(min_learning_rate=1e-6)
        self.plan: TrainPlan = build_plan(52_000, self.train, self.optim, self.evaluation)
        self.step_seconds, self.validation, self.checkpoint = step_seconds, validation, checkpoint
        self.rates: list[float] = []
        self.random = random.Random(1)

    def begin(self, before: dict[str, float]) -> Budget:
        """Begins a session."""
        return Budget(self.plan, self.train, self.evaluation, before, self.clock)

    def spend(self, budget: Budget, what: str, seconds: float) -> None:
        """Lets time pass for something."""
        with budget.spending(what):
            self.clock.now += seconds
        self.counts[what] += 1

    def go_on(self, budget: Budget, first: int = 0, until: float = float("inf")) -> int:
        """Takes steps until the budget says that it is over, or is killed at a time; gives how many there were."""
        for step in range(first, self.plan.steps):
            self.rates.append(self.plan.learning_rate(step, budget.begin_step(step)))
            self.spend(budget, "step", self.random.uniform(*self.step_seconds))
            over = budget.is_over()
            if budget.validates or budget.saves or over:
                self.spend(budget, "validation", self.validation)
            if budget.saves or over:
                self.spend(budget, "checkpoint", self.checkpoint)
            if over or self.clock.now > until:
                return step + 1
        return self.plan.steps

    def whole(self) -> float:
        """Runs it all; gives the seconds, with those that `final/` takes."""
        budget = self.begin({"elapsed": 90.0})  # loading
        self.spend(budget, "validation", self.validation)
        self.go_on(budget)
        return budget.elapsed() + self.checkpoint


@pytest.mark.parametrize(("validation", "checkpoint"), [(300.0, 60.0), (2.0, 0.1), (1200.0, 400.0)])
def test_a_day_ends_within_two_percent_of_itself_and_never_late(validation: float, checkpoint: float) -> None:
    run = Simulation((4.0, 9.0), validation, checkpoint)
    took = run.whole()
    assert 0.98 * DAY < took <= DAY
    assert run.rates[-1] == run.optim.min_learning_rate
    assert run.counts["validation"] == 13  # before the run, every tenth of it, at 1/4 and at 3/4
    assert run.counts["checkpoint"] == 4


def test_the_rate_of_a_run_that_time_ends_rises_and_falls_as_that_of_one_whose_steps_end() -> None:
    run = Simulation((5.0, 5.0), 0.0, 0.0)
    run.whole()
    steps = len(run.rates)
    assert steps < run.plan.steps / 2
    train = TrainConfig(max_steps=steps, epochs=None)
    alone = build_plan(52_000, train, run.optim, run.evaluation)
    wanted = [alone.learning_rate(step) for step in range(steps)]
    highest = run.optim.learning_rate
    assert max(abs(a - b) for a, b in zip(run.rates, wanted, strict=True)) < 0.03 * highest
    peak = run.rates.index(max(run.rates))
    assert run.rates[peak:] == sorted(run.rates[peak:], reverse=True)


def test_a_warmup_in_steps_keeps_to_its_steps() -> None:
    optim = OptimConfig(lr_warmup_steps=50)
    plan = build_plan(52_000, TrainConfig(), optim, EvalConfig())
    assert plan.learning_rate(24, time_share=0.3) == optim.learning_rate / 2
    assert plan.learning_rate(24, time_share=1.0) == 0.0


def test_a_limit_that_is_never_met_changes_nothing() -> None:
    run = Simulation((0.1, 0.1), 1.0, 1.0, epochs=1)
    run.whole()
    assert run.rates == [run.plan.learning_rate(step) for step in range(run.plan.steps)]
    by_steps = sum(run.plan.validates_after(step) or run.plan.saves_after(step) for step in range(run.plan.steps))
    assert run.counts["validation"] == 1 + by_steps


def test_steps_end_a_run_that_has_more_time() -> None:
    run = Simulation((0.1, 0.1), 1.0, 1.0, max_steps=10)
    run.whole()
    assert run.counts["step"] == 10


def test_a_resumed_run_keeps_the_time_used_and_what_things_took() -> None:
    run = Simulation((4.0, 9.0), 300.0, 60.0)
    first = run.begin({"elapsed": 90.0})
    run.spend(first, "validation", 300.0)
    done = run.go_on(first, until=run.clock.now + 0.8 * DAY)
    before = first.state()
    run.clock.now += 7 * DAY  # nobody was there
    second = run.begin(before)
    rates = len(run.rates)
    run.go_on(second, first=done)
    assert 0.98 * DAY < second.elapsed() + 60.0 <= DAY
    assert run.rates[rates] == pytest.approx(run.rates[rates - 1], rel=0.01)
    assert run.rates[-1] == run.optim.min_learning_rate


def test_a_real_run_ends_by_time_with_its_rate_at_the_minimum_and_a_final_folder(tmp_path: Path) -> None:
    world = make_world(tmp_path, rows=64)
    began = time.perf_counter()
    config = make_config(
        world, train__max_time="8", train__epochs=100_000, train__save_interval=0.3, eval__interval=0.25
    )
    run = open_run(config, methods()["lora"])
    summary = finish(run, fit(run, token_loss))
    assert 1.5 < time.perf_counter() - began < 60.0
    assert summary["stopped_by"] == "max_time"
    assert (world / "out" / "final" / "lora.safetensors").exists()
    assert json.loads((world / "out" / "summary.json").read_text())["steps"] < run.plan.steps
    with (world / "out" / "logs" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["learning_rate"]) for row in rows if row["learning_rate"]]
    assert rates[-1] == 0.0 < max(rates)
    assert 3 <= sum(1 for row in rows if row["val_loss"]) <= 9


def test_the_time_of_a_run_stands_in_its_checkpoint(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    settings = {"train__max_time": "1h", "train__save_interval": 2}
    fit(with_step_limit(open_run(make_config(world, **settings), methods()["lora"]), 3), token_loss)
    state = (world / "out" / "step-00000002" / "state.yaml").read_text()
    assert "elapsed:" in state
    assert "validation:" in state
    resumed = open_run(make_config(world, resume="auto", **settings), methods()["lora"])
    began = time.perf_counter() - resumed.inputs.started
    progress = fit(resumed, token_loss)
    assert progress.budget["elapsed"] > began
