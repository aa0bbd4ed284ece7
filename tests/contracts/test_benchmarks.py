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
    assert (BENCHMARKS / f"{file.stem.partition('-')[0]}.py").is_file()  # finetune-h200.json is of finetune.py too


def test_a_comparison_becomes_a_table(tmp_path: Path) -> None:
    litft = {"tokens_per_second": 900.4, "peak_rss_mib": 1201.0, "positions": 12087, "utilisation": 0.437}
    litgpt = {"tokens_per_second": 300.0, "peak_rss_mib": 2600.0, "positions": 18516, "utilisation": 0.15}
    found = {"method": "lora", "ways": {"litft": litft, "litgpt": litgpt}}
    found["litft_to"] = {"litgpt": {"tokens_per_second": 3.0, "rss": 0.46}}
    file = tmp_path / "finetune.json"
    file.write_text(json.dumps({"machine": {}, "rounds": 3, "llama-134m": found}))
    command = [sys.executable, str(BENCHMARKS / "finetune.py"), "--table", str(file)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "| litft | 900 |  | 1,201 |  | 12,087 | 44% |" in said
    assert "| litgpt | 300 | 3.0 | 2,600 | 0.46 | 18,516 | 15% |" in said


def test_generation_is_measured(tmp_path: Path) -> None:
    words = ["--tiny", "--rounds", "1", "--prompt_tokens", "8", "--tokens", "4", "--threads", "1", "--ways", "^litft$"]
    command = [sys.executable, str(BENCHMARKS / "generate.py"), *words, "--out", str(tmp_path / "generate.json")]
    subprocess.run(command, capture_output=True, check=True)
    found = json.loads((tmp_path / "generate.json").read_text())
    assert found["bytes"] - found["bytes_per_token"] == 2 * 512 * 64  # of the input embedding one row is read
    (run,) = found["ways"].values()
    assert min(run[name] for name in ("decode_tokens_per_second", "prefill_tokens_per_second", "peak_rss_mib")) > 0
