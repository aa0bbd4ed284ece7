"""What every test gets: one thread (tiny tensors gain nothing from two) and a folder of its own to stand in."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, too

import hypothesis
import pytest
import torch

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)
# The same examples on every machine, however slow it is: a red suite must be the change's fault.
hypothesis.settings.register_profile("litft", deadline=None, derandomize=True)
hypothesis.settings.load_profile("litft")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths such as checkpoints/ and out/ never meet the checkout's."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
