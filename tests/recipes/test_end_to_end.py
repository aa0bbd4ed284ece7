"""The whole way through the command line: convert, prepare, finetune by each method, use, merge, export."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_hf
import torch
import transformers
from safetensors.torch import load_file

from litft import LLM
from litft.cli import find_command, main
from litft.config import run as run_configs
from litft.config.io import load_yaml
from litft.config.parse import config_to_dict, parse_config

ROOT = Path(__file__).parents[2]
METHODS = ("full", "lora", "adapter", "adapter_v2")
# Programs that compare runs rely on these.
SUMMARY = [
    "iters",
    "steps",
    "epochs",
    "examples",
    "tokens",
    "target_tokens",
    "padding_tokens",
    "train_seconds",
    "tokens_per_second",
    "target_tokens_per_second",
    "peak_memory_bytes",
    "trainable_parameters",
    "first_loss",
    "final_loss",
    "first_val_loss",
    "val_loss",
    "val_accuracy",
    "stopped_by",
]
SHORT = ["--precision", "32-true", "--micro_batch_size", "4", "--global_batch_size", "8", "--epochs", "2"]
SHORT += ["--save_interval", "4", "--eval.interval", "5", "--eval.max_new_tokens", "4", "--eval.prompts", "2"]
RATE = {"full": "1e-3", "lora": "1e-2", "adapter": "3e-2", "adapter_v2": "1e-2"}
LOWEST = 1e-5
VALIDATED = [0, 4, 5, 8, 10]  # every 5 steps, and before each checkpoint
PROMPTS = torch.randint(3, 259, (2, 40), generator=torch.Generator().manual_seed(1))


def words(method: str, out_dir: Path | str) -> list[str]:
    """Gives the flags of a short run."""
    paths = ["--checkpoint_dir", "acme/tiny", "--data_dir", "data/csv", "--out_dir", str(out_dir)]
    return [*paths, *SHORT, "--learning_rate", RATE[method], "--min_learning_rate", str(LOWEST)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted model and prepared data, and a finished run of each method under out/."""
    folder = tmp_path_factory.mktemp("project")
    tiny_hf.write_hf_folder(folder / "checkpoints" / "acme" / "tiny")
    tiny_hf.write_csv(folder / "rows.csv")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["convert", "from_hf", "--checkpoint_dir", "acme/tiny"]) == 0
        assert main(["prepare", "csv", "--checkpoint_dir", "acme/tiny", "--data_file", "rows.csv"]) == 0
        for method in METHODS:
            assert main(["finetune", method, *words(method, f"out/{method}")]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def _stand_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def summary_of(out_dir: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((out_dir / "summary.json").read_text())
    return values


def metrics_of(out_dir: Path) -> list[dict[str, str]]:
    with (out_dir / "logs" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_learns_and_says_what_it_did(method: str) -> None:
    summary = summary_of(Path("out") / method)
    assert not [key for key in SUMMARY if summary.get(key) is None]
    assert summary["val_loss"] < summary["first_val_loss"] and summary["final_loss"] < summary["first_loss"]
    assert (summary["steps"], summary["examples"], summary["epochs"], summary["iters"]) == (10, 72, 2.0, 18)
    assert summary["stopped_by"] == "epochs"
    assert 0 < summary["target_tokens"] < summary["tokens"] and summary["padding_tokens"] >= 0
    assert summary["val_accuracy"] <= 1 and summary["peak_memory_bytes"] > 1e6
    assert summary["val_accuracy"] > 0 or method == "adapter"  # its gate, zero at the start, opens little in 10 steps
    assert (summary["trainable_parameters"] == summary["parameters"]) == (method == "full")


@pytest.mark.parametrize("method", METHODS)
def test_the_metrics_of_a_run(method: str) -> None:
    rows = metrics_of(Path("out") / method)
    steps = [row for row in rows if row["loss"]]
    assert [int(row["step"]) for row in steps] == list(range(1, 11))
    rates = [float(row["learning_rate"]) for row in steps]
    assert max(rates) == pytest.approx(float(RATE[method])) and rates[-1] == pytest.approx(LOWEST)
    assert rates[0] > 0 and rates[-1] == min(rates[1:])
    assert [int(row["step"]) for row in rows if row["val_loss"]] == VALIDATED
    assert all(float(row["grad_norm"]) > 0 for row in steps)
    assert int(rows[-1]["target_tokens"]) == summary_of(Path("out") / method)["target_tokens"]


@pytest.mark.parametrize("method", METHODS)
def test_the_sampled_answers_of_a_run(method: str) -> None:
    samples = [json.loads(line) for line in (Path("out") / method / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [step for step in VALIDATED for _ in range(2)]
    for sample in samples:
        assert "### Instruction:" in sample["prompt"] and isinstance(sample["answer"], str)
        assert sample["expected"].split()[0] in tiny_hf.COLOURS


@pytest.mark.parametrize("method", METHODS)
def test_what_a_run_leaves_behind(method: str) -> None:
    out_dir = Path("out") / method
    weights = {"full": "lit_model", "lora": "lora"}.get(method, "adapter") + ".safetensors"
    names = {path.name for path in (out_dir / "final").iterdir()}
    wanted = {weights, "tokenizer.json", "prompt_style.yaml", "run.yaml", "provenance.json", "model_config.yaml"}
    assert wanted | ({"method.yaml"} if method != "full" else set()) <= names
    assert {path.name for path in out_dir.glob("step-*")} >= {"step-00000004", "step-00000008"}
    assert not list(out_dir.rglob("*.partial")) and not list(out_dir.rglob(".*"))


@pytest.mark.parametrize("method", METHODS)
def test_run_yaml_is_the_config_of_the_run(method: str) -> None:
    path = Path("out") / method / "run.yaml"
    kind = getattr(run_configs, find_command(["finetune", method])[0].config.partition(":")[2])
    given = parse_config(kind, words(method, f"out/{method}"), "litft", "")
    assert parse_config(kind, ["--config", str(path)], "litft", "") == given
    assert config_to_dict(given) == load_yaml(path)


@pytest.mark.parametrize("method", METHODS)
def test_the_result_answers_and_differs_from_its_base(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    llm = LLM.load(f"out/{method}/final")
    base = LLM.load("acme/tiny")
    assert (llm.logits(PROMPTS) - base.logits(PROMPTS)).abs().max() > 1e-3
    assert llm.logits(PROMPTS).dtype == torch.float32
    asked = ["--checkpoint_dir", f"out/{method}/final", "--instruction", "Say red for box 0", "--temperature", "0"]
    capsys.readouterr()
    assert main(["generate", *asked, "--max_new_tokens", "5"]) == 0
    answer = llm.chat([{"role": "user", "content": "Say red for box 0"}], max_new_tokens=5)
    assert capsys.readouterr().out == answer + "\n"


def test_a_run_resumed_is_the_run_that_was_not_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_dir = tmp_path / "out"
    assert main(["finetune", "lora", *words("lora", out_dir)]) == 0
    trained = load_file(out_dir / "final" / "lora.safetensors")
    (out_dir / "summary.json").unlink()
    for name in ("lora.safetensors", "method.yaml"):
        (out_dir / "final" / name).unlink()
    assert main(["finetune", "lora", *words("lora", out_dir), "--resume", "true"]) == 0
    assert f"Resuming from {out_dir}/step-00000008." in capsys.readouterr().err
    assert_same(load_file(out_dir / "final" / "lora.safetensors"), trained)
    assert [row["step"] for row in metrics_of(out_dir) if row["loss"]] == [str(step) for step in range(1, 11)]


def test_merged_is_unmerged_and_transformers_agrees(tmp_path: Path) -> None:
    merged, exported = tmp_path / "merged", tmp_path / "hf"
    assert main(["merge", "--checkpoint_dir", "out/lora/final", "--out_dir", str(merged)]) == 0
    assert main(["convert", "to_hf", "--checkpoint_dir", str(merged), "--out_dir", str(exported)]) == 0
    unmerged = LLM.load("out/lora/final").logits(PROMPTS)
    torch.testing.assert_close(LLM.load(merged).logits(PROMPTS), unmerged, atol=1e-5, rtol=1e-5)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(PROMPTS).logits.float(), unmerged, atol=1e-5, rtol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    assert tokenizer("Say red")["input_ids"] == LLM.load(merged).tokenizer.encode("Say red")


def test_the_recipe_as_a_script_gives_the_same_weights(tmp_path: Path) -> None:
    run_script(ROOT / "finetune" / "lora.py", words("lora", tmp_path / "out"))
    script, command = (
        load_file(folder / "final" / "lora.safetensors") for folder in (tmp_path / "out", Path("out/lora"))
    )
    assert_same(script, command)


def test_an_edited_copy_of_a_recipe_trains_by_its_own_loss(tmp_path: Path) -> None:
    text = (ROOT / "finetune" / "lora.py").read_text(encoding="utf-8")
    plain = "return cross_entropy(logits, targets)"
    assert text.count(plain) == 1
    smoothed = 'return torch.nn.functional.cross_entropy(logits, targets, reduction="none", label_smoothing=0.2)'
    copy = tmp_path / "my_idea.py"
    copy.write_text(
        text.replace(plain, smoothed).replace("from torch import Tensor", "import torch\nfrom torch import Tensor"),
        encoding="utf-8",
    )
    run_script(copy, words("lora", tmp_path / "out"))
    mine, theirs = (load_file(folder / "final" / "lora.safetensors") for folder in (tmp_path / "out", Path("out/lora")))
    assert mine.keys() == theirs.keys()
    assert any(not torch.equal(mine[name], theirs[name]) for name in mine)
    assert summary_of(tmp_path / "out")["first_val_loss"] != summary_of(Path("out/lora"))["first_val_loss"]


def run_script(path: Path, flags: list[str]) -> None:
    """Runs a recipe's file as a person does, on one thread as the tests do."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), *flags], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "held-out loss" in done.stderr


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
