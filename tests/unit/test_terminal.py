"""What is said while a run goes on where there is no terminal."""

from __future__ import annotations

import pytest

from litft.train import terminal
from litft.train.terminal import StepBar


def test_a_line_comes_only_after_a_while_and_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    said: list[str] = []
    bar = StepBar(10, 20, said.append)
    for step, seconds in ((11, 5.0), (12, 40.0), (13, 50.0), (14, 80.0)):
        now[0] = seconds
        bar.show(step, 1.5, 1e-3, 1234.0)
    bar.close()
    assert said == [
        "step 12/20: training loss 1.5000, 1,234 tokens/s, about 3 min left",
        "step 14/20: training loss 1.5000, 1,234 tokens/s, about 2 min left",
    ]


def test_what_is_left_is_what_time_leaves_where_time_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    said: list[str] = []
    bar = StepBar(0, 1000, said.append)
    for step, seconds, left in ((1, 40.0, 200.0), (2, 80.0, 61.0), (3, 120.0, 1e9)):
        now[0] = seconds
        bar.show(step, 1.5, 1e-3, 1234.0, left)
    bar.close()
    assert [line.rpartition("about ")[2] for line in said] == ["3 min left", "61 s left", "665 min left"]
