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


# Counting lines doubles the time of work in Python. What these do is counted in the others' tests alone, so a line that
# only these reach counts as not reached: the share that `make test` tells is a lower bound.
UNCOUNTED = (
    "parity/*",
    "contracts/test_house.py",
    "contracts/test_poison_*.py",
    "contracts/test_tutorials.py",
    "unit/test_compiled.py",
    "unit/test_config_hub.py",
    "unit/test_demo_data.py",
    "unit/test_distributed.py",
    "unit/test_draft.py",
    "unit/test_export_*.py",
    "unit/test_lora_variants.py",
    "unit/test_mix_filters.py",
    "unit/test_mixture.py",
    "unit/test_peft_variants.py",
    "unit/test_planning.py",
    "unit/test_preparation_properties.py",
    "unit/test_training.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves some files out of what pytest-cov counts."""
    for item in items:
        if any(item.path.match(f"tests/{name}") for name in UNCOUNTED):
            item.add_marker("no_cover")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths such as checkpoints/ and out/ never meet the checkout's."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
