"""What litft is built on: bounds on both sides, versions that lie within them, licences that ask for nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def requirements() -> list[Requirement]:
    """Gives what pyproject.toml asks of users; the tools of the tests may be of any version."""
    text = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[0]
    asked, _, tools = text.partition("\ndev = [")
    named = {canonicalize_name(Requirement(line).name) for line in _lines(asked)}
    return [*map(Requirement, _lines(asked)), *(r for r in map(Requirement, _lines(tools)) if r.name.lower() in named)]


def _lines(text: str) -> list[str]:
    return re.findall(r'^    "([^"]+)",', text, re.MULTILINE)


def constraints() -> dict[str, str]:
    """Gives the versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_each_has_a_lowest_and_a_highest_version_that_were_tested() -> None:
    assert len(requirements()) > 30
    for wanted in requirements():
        operators = {specifier.operator for specifier in wanted.specifier}
        assert operators - {"!="} == {">=", "<"}, wanted


def test_what_is_asked_for_twice_is_asked_for_alike() -> None:
    bounds: dict[str, str] = {}
    for wanted in requirements():
        assert bounds.setdefault(wanted.name, str(wanted.specifier)) == str(wanted.specifier), wanted


def test_the_constraints_lie_within_the_bounds_and_anybody_can_have_them() -> None:
    fixed = constraints()
    for wanted in requirements():
        if wanted.name not in ("sqlalchemy", "alembic"):  # of a store that only users have
            assert fixed[canonicalize_name(wanted.name)] in wanted.specifier, wanted
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in fixed.values())  # no +cpu
    text = (ROOT / "constraints.txt").read_text()
    assert text.startswith("# Made by `make constraints`") and "://" not in text


def test_no_licence_is_unknown_or_asks_for_ones_own_code() -> None:
    words = [sys.executable, str(ROOT / "supply" / "licences.py")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MIT" in done.stdout and "torch" in done.stdout


def test_the_threat_model_names_what_is_not_trusted_and_where_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    for word in ("private vulnerability report", "checkpoints", "templates", "datasets", "config files", "clients"):
        assert word in text
    targets = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target
