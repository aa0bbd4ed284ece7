"""A project folder as a user has it: checkpoints, a CSV, prepared data and finished runs; a copy for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_hf

from litft.cli import main

FINETUNE = ["--checkpoint_dir", "acme/tiny", "--data_dir", "data/csv"]
SHORT = ["--micro_batch_size", "8", "--eval.max_new_tokens", "2", "--precision", "32-true"]
STEPS = ["--max_steps", "2", "--save_interval", "1", "--global_batch_size", "8"]

Refused = Callable[..., str]


@pytest.fixture(scope="session")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes the folder once, through the command line."""
    folder = tmp_path_factory.mktemp("project")
    models = folder / "checkpoints" / "acme"
    tiny_hf.write_hf_folder(models / "tiny")
    shutil.copytree(models / "tiny", models / "raw")
    tiny_hf.write_hf_folder(models / "sharded", max_shard_size="40KB")
    tiny_hf.write_hf_folder(models / "tied", tie_word_embeddings=True)
    tiny_hf.write_csv(folder / "rows.csv")
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name in ("tiny", "tied"):
            assert main(["convert", "from_hf", "--checkpoint_dir", f"acme/{name}"]) == 0
        assert main(["prepare", "csv", "--checkpoint_dir", "acme/tiny", "--data_file", "rows.csv"]) == 0
        for method in ("lora", "adapter"):
            assert main(["finetune", method, *FINETUNE, *SHORT, *STEPS]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def project(_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in a fresh copy of the folder."""
    folder = tmp_path / "project"
    shutil.copytree(_project, folder)
    monkeypatch.chdir(folder)
    return folder


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Gives what is below a folder, with size and time of every file; the digests kept beside weights aside."""
    found = [(path, path.stat()) for path in folder.rglob("*") if path.suffix != ".sha256"]
    return {str(path): (0, 0) if path.is_dir() else (stat.st_size, stat.st_mtime_ns) for path, stat in found}


@pytest.fixture
def refused(project: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must be refused, and gives its sentence."""

    def run(words: list[str], *contents: str) -> str:
        before = tree(project)
        code = main(words)
        shown = capsys.readouterr()
        assert code == 2, shown.err
        assert_one_sentence(shown.out, shown.err, *contents)
        assert tree(project) == before, "something was written"
        return shown.err

    return run


def assert_one_sentence(out: str, err: str, *contents: str) -> None:
    assert out == ""
    assert err.startswith("litft: ") and err.count("\n") == 1 and err.rstrip("\n").endswith((".", "?")), err
    assert "Traceback" not in err and "Error:" not in err, err
    for content in contents:
        assert content in err, err
