"""Folders of runs to be reported: a real one, and ones written by hand that no quick run would leave."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scored_rows import make_scored_world
from tiny_run import make_config, methods, open_run

from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.loss import cross_entropy

HACK = "<script>window.hacked = 1</script>"


def train_world(folder: Path, **changes: Any) -> Path:
    """Trains a tiny LoRA on rows of two sources, and gives its folder."""
    world = make_scored_world(folder)
    given = {"train__epochs": 3, "train__global_batch_size": 4, "eval__interval": 3, "eval__prompts": 2, **changes}
    config = dataclasses.replace(make_config(world, out_dir=folder / "out" / "lora", **given), data_dir=world / "fruit")
    run = open_run(config, methods()["lora"])
    finish(run, fit(run, cross_entropy))
    return folder / "out" / "lora"


def write_run(folder: Path, lines: Iterable[dict[str, Any]], **files: str) -> Path:
    """Writes a folder as a run would: its settings, a line of metrics for each of `lines`, and other files by name."""
    rows = list(lines)
    (folder / "logs").mkdir(parents=True)
    (folder / "run.yaml").write_text(files.pop("settings", "data_dir: nowhere\nlora: {r: 16}\n"), encoding="utf-8")
    if rows:
        with (folder / "logs" / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def steps(count: int, every: int = 10) -> Iterable[dict[str, Any]]:
    """Gives lines of metrics as this version writes them, as far as a page needs them."""
    for step in range(count + 1):
        line: dict[str, Any] = {"step": step, "tokens": 100 * step, "padding_tokens": step, "seconds": step / 10}
        line |= (
            {"loss": 2 / step, "learning_rate": 1e-3, "grad_norm": 1.0 + step % 3}
            if step
            else dict.fromkeys(("loss", "learning_rate", "grad_norm"), "")
        )
        yield line | {"val_loss": "", "val_accuracy": ""}
        if step % every == 0:
            yield {
                **dict.fromkeys(line, ""),
                "step": step,
                "tokens": 100 * step,
                "val_loss": 3 - step / count,
                "val_accuracy": 0.5,
            }


def samples(*answers: str, expected: str = "pear", prompt: str = "Name a fruit.") -> str:
    """Gives samples.jsonl with an answer for each tenth step."""
    rows = (
        {"step": 10 * number, "row": 0, "prompt": prompt, "answer": answer, "expected": expected}
        for number, answer in enumerate(answers)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def numbers_in(page: str) -> dict[str, Any]:
    """Gives what a page draws."""
    found = re.search(r'<script type="application/json" data-numbers>(.*?)</script>', page, flags=re.DOTALL)
    assert found is not None
    values: dict[str, Any] = json.loads(found[1])
    return values
