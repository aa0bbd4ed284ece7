"""A project folder as a user has it: checkpoints, a CSV, prepared data and finished runs; a copy for each test."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import tiny_hf

from litft.cli import main

FINETUNE = ["--checkpoint_dir", "acme/tiny", "--data_dir", "data/csv"]
SHORT = ["--micro_batch_size", "8", "--eval.max_new_tokens", "2", "--precision", "32-true"]
STEPS = ["--max_steps", "2", "--save_interval", "1", "--global_batch_size", "8"]


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
