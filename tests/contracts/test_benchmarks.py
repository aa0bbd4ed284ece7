"""Benchmarks start and say what they need; what is kept of them names the hardware, and no host or folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FILES, RESULTS = sorted(BENCHMARKS.glob("*.py")), sorted((BENCHMARKS / "results").glob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_benchmark_explains_itself(file: Path) -> None:
    done = subprocess.run([sys.executable, str(file), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout
    assert f"`{file.name}`" in (BENCHMARKS / "README.md").read_text()


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.stem)
def test_a_result_names_the_hardware_alone(file: Path) -> None:
    result = json.loads(file.read_text())
    assert {"cpu", "cores", "ram_gb", "torch"} <= result["machine"].keys()
    assert "/home" not in file.read_text() and "/tmp" not in file.read_text() and "/root" not in file.read_text()
    assert (BENCHMARKS / f"{file.stem}.py").is_file()
