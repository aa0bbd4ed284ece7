"""`litft export data`: the rows are the same in every form, where they are read again and where they are pushed to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants
from tiny_rows import write_lines
from tiny_text import write_checkpoint

from litft.cli import main
from litft.config.prepare import PrepareFileConfig
from litft.data.prepare import prepare
from litft.data.store import PreparedData, save_prepared

ROWS = [
    {"messages": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": f"{number} Zo\u00eb"}]}
    for number in (2, 3, 5, 7, 11)
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives prepared data under data/, and its model under model/; both are named from the folder above."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "model")
    write_lines(tmp_path / "rows.jsonl", ROWS)
    options = {"checkpoint_dir": Path("model"), "data_file": Path("rows.jsonl"), "destination_path": Path("data")}
    prepare("messages", PrepareFileConfig(**options, test_split_fraction=0.2))
    return tmp_path


def run(*words: str) -> int:
    """Exports to out/ with the tokenizer of the model."""
    return main(["export", "data", "--data_dir", "data", "--out_dir", "out", "--checkpoint_dir", "model", *words])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_go_out_and_come_back(folder: Path) -> None:
    assert run() == 0
    rows = lines(folder / "out" / "train.jsonl")
    assert [set(row) for row in rows] == [{"input_ids", "labels", "source", "text"}] * 4
    assert all("Name a prime." in row["text"] and row["source"] == "messages" for row in rows)
    assert len(lines(folder / "out" / "test.jsonl")) == 1
    again = ["--data_file", "out/train.jsonl", "--destination_path", "again", "--test_split_fraction", "0"]
    assert main(["prepare", "tokenized", "--checkpoint_dir", "model", *again]) == 0
    before, after = (PreparedData.load(folder / name / "train.pt") for name in ("data", "again"))
    assert torch.equal(before.input_ids, after.input_ids) and torch.equal(before.target_mask, after.target_mask)
    assert torch.equal(before.offsets, after.offsets)


def test_datasets_reads_the_same_rows(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    assert run() == 0
    wanted = {name: lines(folder / "out" / f"{name}.jsonl") for name in ("train", "test")}
    assert run("--form", "datasets", "--overwrite", "true") == 0
    read = datasets.load_from_disk(str(folder / "out"))
    assert {name: part.to_list() for name, part in read.items()} == wanted
    assert not list((folder / "out").glob("*.jsonl"))


def test_scores_go_with_the_rows(folder: Path) -> None:
    path = folder / "data" / "train.pt"
    data = PreparedData.load(path)
    parts = {name: getattr(data, name).clone() for name in ("input_ids", "target_mask", "offsets", "source")}
    save_prepared(path, **parts, meta=data.meta, score=torch.tensor([0.5, float("nan"), 2, 3]))
    assert run() == 0
    assert [row["score"] for row in lines(folder / "out" / "train.jsonl")] == [0.5, None, 2, 3]


def test_without_the_tokenizer_texts_are_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model").rename(folder / "gone")
    assert main(["export", "data", "--data_dir", "data", "--out_dir", "out"]) == 0
    assert set(lines(folder / "out" / "train.jsonl")[0]) == {"input_ids", "labels", "source"}
    assert "--checkpoint_dir" in capsys.readouterr().err


def test_a_push_and_what_it_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with HubServer(token="hf_secret", pushed=folder / "hub") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert run("--push", "me/primes") == 2
        shown = capsys.readouterr().err
        assert "me/primes was not pushed" in shown and "HF_TOKEN" in shown and "hf_wrong" not in shown
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        assert run("--push", "me/primes", "--overwrite", "true") == 0 and hub.is_private
    pushed = {path.name: path.read_bytes() for path in (folder / "hub" / "me" / "primes").iterdir()}
    assert pushed == {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_an_artifact(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run("--artifact", "primes/first") == 0
    assert "artifact first of primes, to be synced" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--push", "--artifact"])
def test_names_that_are_none(folder: Path, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(flag, "primes") == 2
    assert 'is "primes"; it must be' in capsys.readouterr().err and not (folder / "out").exists()


def test_a_library_that_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert run("--form", "datasets") == 2
    assert "pip install 'litft[datasets]'" in capsys.readouterr().err and not (folder / "out").exists()
