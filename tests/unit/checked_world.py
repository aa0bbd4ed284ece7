"""A tiny model with rows of texts for `litft check`, and recipes and data that are wrong in one way each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_run import make_world, write_manifest
from torch import Tensor

from litft.config.prepare import PrepareConfig
from litft.config.run import AdapterConfig, AdapterRun, FullRun, LoRAConfig, LoRARun, RunConfig
from litft.data.prepare import prepare
from litft.data.store import PreparedData, save_prepared
from litft.train.code import recipes_dir

# What each recipe's loss is, in the place of cross-entropy.
LOSSES = {
    "mean": "cross_entropy(logits, targets) / len(targets)",  # of as many tokens as happen to be computed at once
    "place": "cross_entropy(logits, targets) * torch.linspace(0.5, 1.5, len(targets))",  # of where tokens happen to be
    "counted": "cross_entropy(logits, targets) * next(calls)",  # of what is in no checkpoint
}


def make_checked_world(folder: Path, layers: int = 2) -> Path:
    """Makes `model/`, and `talk/` of sixteen questions with answers."""
    make_world(folder, block_size=256, n_layer=layers)
    rows = [
        {
            "instruction": f"Say {number} twice.",
            "input": "" if number % 3 else "Be kind.",
            "output": f"{number} {number}",
        }
        for number in range(16)
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    config = PrepareConfig(
        checkpoint_dir=folder / "model",
        data_file=folder / "rows.json",
        destination_path=folder / "talk",
        test_split_fraction=0.2,
        prompt_style="nous-hermes",
        max_seq_length=256,
    )
    prepare("alpaca", config)
    return folder


def make_run(method: str, world: Path, data: str = "talk", **settings: Any) -> RunConfig:
    """Gives the config of a run on a world."""
    places: dict[str, Any] = {"checkpoint_dir": world / "model", "data_dir": world / data, "precision": "32-true"}
    if method == "full":
        return FullRun(**places, **settings)
    if method == "lora":
        return LoRARun(**places, **{"lora": LoRAConfig(r=2, dropout=0.1), **settings})
    return AdapterRun(**places, **{"adapter": AdapterConfig(prompt_length=2, start_layer=1), **settings})


def write_recipe(folder: Path, name: str, method: str = "lora") -> Path:
    """Writes a recipe with one of `LOSSES`."""
    text = (recipes_dir() / f"{method}.py").read_text(encoding="utf-8")
    text = text.replace("return cross_entropy(logits, targets)", f"return {LOSSES[name]}")
    text = text.replace("from typing import Any\n", "import itertools\nfrom typing import Any\n\nimport torch\n")
    path = folder / f"{name}.py"
    path.write_text(text.replace("def token_loss", "calls = itertools.count(1)\n\n\ndef token_loss"), encoding="utf-8")
    return path


Change = Callable[[Tensor, dict[str, Any]], tuple[Tensor, dict[str, Any]]]


def change_rows(world: Path, name: str, change: Change) -> Path:
    """Copies `talk/` with rows that are changed.

    Args:
        world: where it lies.
        name: of the copy.
        change: ids of one row and the file's meta -> those of the copy; a row may be longer or shorter by its end.
    """
    folder = world / name
    shutil.copytree(world / "talk", folder)
    for file in ("train.pt", "test.pt"):
        data = PreparedData.load(folder / file)
        rows = [data.row(number) for number in range(len(data))]
        meta = change(rows[0][0], data.meta)[1]
        ids = [change(row, data.meta)[0] for row, _ in rows]
        masks = [
            torch.cat((mask, mask.new_ones(len(new))))[: len(new)] for new, (_, mask) in zip(ids, rows, strict=True)
        ]
        save_prepared(
            folder / file,
            input_ids=torch.cat(ids),
            target_mask=torch.cat(masks),
            offsets=torch.tensor([0, *map(len, ids)]).cumsum(0),
            source=data.source.clone(),
            meta=meta,
        )
    write_manifest(folder)
    return folder
