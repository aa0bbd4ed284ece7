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


# Counting lines takes up to as long as the work in Python itself. These take long, and nearly all that they reach,
# others reach too; what only they reach counts as not reached, so the share that `make test` tells is a lower bound.
UNCOUNTED = (
    "contracts/test_bad_data.py",
    "contracts/test_house.py",
    "contracts/test_poison_*.py",
    "contracts/test_tutorials.py",
    "parity/*",
    "recipes/test_end_to_end.py",
    "unit/test_chat_template.py",
    "unit/test_compiled.py",
    "unit/test_config_hub.py",
    "unit/test_demo_data.py",
    "unit/test_distributed.py",
    "unit/test_draft.py",
    "unit/test_engine.py",
    "unit/test_every_source.py",
    "unit/test_export_*.py",
    "unit/test_freezing.py",
    "unit/test_golden_ids.py",
    "unit/test_lora_variants.py",
    "unit/test_mix_filters.py",
    "unit/test_mixture.py",
    "unit/test_packing.py",
    "unit/test_parse.py",
    "unit/test_peft_variants.py",
    "unit/test_planning.py",
    "unit/test_preparation_properties.py",
    "unit/test_prepare.py",
    "unit/test_quantized_runs.py",
    "unit/test_records.py",
    "unit/test_saving.py",
    "unit/test_serve_challenge.py",
    "unit/test_serve_openai.py",
    "unit/test_shared.py",
    "unit/test_stopping.py",
    "unit/test_stream.py",
    "unit/test_training.py",
    "unit/test_training_options.py",
    "unit/test_words.py",
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
