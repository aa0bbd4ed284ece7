"""benchmarks/gpu.py as it is, on a CPU: what nobody can try before the day must at least run."""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("ours.device")


def test_a_run_of_a_recipe_is_measured(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(BENCHMARKS / "gpu.py"),
        "--tiny",
        "--part",
        "lora",
        "--out",
        str(tmp_path / "out.json"),
    ]
    subprocess.run(
        [*command, "--ways", "pack=padded"], check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    runs = json.loads((tmp_path / "out.json").read_text())["lora"]
    assert list(runs) == ["lora llama2-7b alpaca pack=padded"]
    (run,) = runs.values()
    assert "ended" not in run, run
    assert run["tokens_per_second"] > 0 and run["utilisation"] > 0 and run["attention"] == "grouped"
    assert run["model_flops"] > 4 * run["tokens"]


def test_what_ends_badly_is_written_down(device: Any) -> None:
    gpu = importlib.import_module("gpu")
    lacks = "import sys; sys.exit('torch.OutOfMemoryError: CUDA out of memory')"
    ends = time.monotonic() + 60
    assert gpu.called([sys.executable, "-c", lacks], ends)["ended"] == "out of memory"
    assert gpu.called([sys.executable, "-c", "import time; time.sleep(9)"], 0.0)["ended"] == "out of time"
    assert gpu.called([sys.executable, "-c", "print('{\"a\": 1}')"], ends)["a"] == 1


def test_the_device_is_asked_whether_it_computes_what_it_should(device: Any) -> None:
    found = device.kernels(torch.device("cpu"), True, math.inf)
    assert max(found["gradient"]["packed, padded"], found["gradient"]["here, on a CPU"]) < 1e-5
    assert found["gradient"]["bfloat16, float32"] < 0.1
    assert found["right"]["llama2-7b float32 varlen"] != "right"  # said, not measured
    assert any("grouped" in name and value > 0 for name, value in found["milliseconds"].items())


def test_decoding_is_measured(device: Any) -> None:
    (_, found) = device.generate(torch.device("cpu"), True, math.inf).values()
    assert found["1 texts, tokens_per_second"] > 0


def test_lengths_are_drawn_as_they_are_written_down(device: Any) -> None:
    rows, gpu = importlib.import_module("ours.rows"), importlib.import_module("gpu")
    prompts, answers = rows.lengths_of(gpu.LENGTHS["alpaca"], 4000, torch.Generator().manual_seed(0))
    assert abs(float(prompts.float().mean()) - 62) < 4 and abs(float(answers.float().mean()) - 68) < 6
    assert int(answers.max()) == 647
