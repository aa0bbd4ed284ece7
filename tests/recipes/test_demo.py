"""The demo as a newcomer runs it: it learns the form of instructions and answers about words it was never asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from litft.cli import main


def test_the_demo_learns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out_dir = tmp_path / "demo"
    assert main(["demo", "--out_dir", str(out_dir)]) == 0
    result = json.loads((out_dir / "demo.json").read_text(encoding="utf-8"))
    assert result["rows"] >= 100
    assert result["exact_match"]["before"] < 0.1
    assert result["exact_match"]["after"] > 0.8
    shown = capfd.readouterr().err
    for command in ("convert from_hf", "prepare alpaca", "finetune lora", "merge", "generate"):
        assert f"$ litft {command} --" in shown


def test_a_folder_that_is_no_demo_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--out_dir", str(tmp_path)]) == 2
    assert "holds no demo.json" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"
