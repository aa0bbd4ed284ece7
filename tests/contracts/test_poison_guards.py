"""The list of guards stays true: each stands in its file, once, and its test is there.

That each test fails without its guard is shown by tests/poison/remove_guards.py; benchmarks/results/poison.md has it.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from poison.guards import GUARDS, Guard

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "poison.md"


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_stands_where_the_list_says(guard: Guard) -> None:
    assert (ROOT / guard.file).read_text(encoding="utf-8").count(guard.text) == 1
    assert guard.text != guard.without
    path, _, name = guard.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / "tests" / path).read_text(encoding="utf-8")


def test_the_result_has_every_guard_and_none_that_nobody_missed() -> None:
    rows = re.findall(
        r"^\| (.+?) \| `litft/.*?` \| .* \| passes \| (.+?) \|$", RESULT.read_text(encoding="utf-8"), re.M
    )
    assert [name for name, _ in rows] == [guard.name for guard in GUARDS]
    assert not [name for name, told in rows if told == "passes" or "not run" in told]
