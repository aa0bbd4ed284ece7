"""`litft evaluate` and `litft judge` in a user's folder: a finished run beside its base, and sentences for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Refused

from litft.cli import main

EVALUATE = ["evaluate", "--checkpoint_dir", "out/lora/csv/final"]
JUDGE = ["judge", "--a", "out/lora/csv/final", "--b", "out/adapter/csv/final", "--data_dir", "data/csv"]
NOBODY = ["--judge", "http://127.0.0.1:1/v1", "--model", "m", "--retries", "0"]


def test_a_run_beside_its_base(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data_dir", "data/csv", "--beside", "acme/tiny", "--generate", "2", "--max_new_tokens", "4"]
    assert main([*EVALUATE, *words]) == 0
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()[2:4]] == ["out/lora/csv/final", "acme/tiny"]
    values = json.loads((project / "out/evaluate/lora-csv-final/csv-test.json").read_text())
    run, base = values["models"]
    summary = json.loads((project / "out/lora/csv/summary.json").read_text())
    assert run["loss"] == pytest.approx(summary["val_loss"], rel=1e-6)
    assert run["accuracy"] == pytest.approx(summary["val_accuracy"])
    assert run["loss"] != base["loss"] and run["answers"]["answers"] == 2


def test_mistakes_of_evaluate(project: Path, refused: Refused) -> None:
    refused(EVALUATE, "Give --data_dir (prepared rows) or --tasks")
    refused([*EVALUATE, "--data_dir", "data/cvs"], "data/cvs")
    refused([*EVALUATE, "--data_dir", "data/csv", "--beside", "acme/tinny"], "acme/tinny", "acme/tiny")
    refused([*EVALUATE, "--data_dir", "data/csv", "--generate", "-1"], "generate is -1")
    refused([*EVALUATE, "--data_dir", "data/csv", "--splitt", "test"], "splitt", "split")
    refused([*EVALUATE, "--tasks", "mmlu", "--tasks_dir", "nowhere"])


def test_tasks_need_the_harness(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused([*EVALUATE, "--tasks", "mmlu"], "--tasks needs lm-evaluation-harness", "pip install 'litft[eval]'")


def test_mistakes_of_judge(project: Path, refused: Refused) -> None:
    refused([*JUDGE, "--judge", "http://127.0.0.1:1/v1"], "--model goes with --judge ADDRESS")
    refused([*JUDGE, "--judge", "acme/tinny"], "acme/tinny", "acme/tiny")
    refused([*JUDGE, *NOBODY, "--api_key_env", "NO_SUCH_KEY"], "The environment variable NO_SUCH_KEY")
    refused([*JUDGE, *NOBODY, "--prompt_file", "rows.csv"], "not both")
    refused([*JUDGE[:3], "--b", "rows.jsonl", *NOBODY], "Cannot read rows.jsonl: No such file")


def test_a_judge_that_is_not_there_keeps_the_answers(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*JUDGE[:3], "--b", "acme/tied", *JUDGE[5:], *NOBODY, "--max_new_tokens", "9"]
    assert main([*words, "--out_dir", "out/judged"]) == 2
    assert "gave no reply in 1 attempts" in capsys.readouterr().err
    assert [path.name for path in (project / "out/judged").iterdir()] == ["answers.jsonl"]
