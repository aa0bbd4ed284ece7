"""Small prepared folders of questions and answers, scores for them, and what a mix of them says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_rows import write_lines

from litft.config.filters import FiltersConfig
from litft.config.mix import MixConfig
from litft.config.prepare import PrepareFileConfig
from litft.data.mix import mix
from litft.data.prepare import prepare
from litft.data.store import PreparedData, save_prepared
from litft.data.texts import TextReader
from litft.text.tokenizer import Tokenizer

Pair = tuple[str, str]


def make_folder(root: Path, name: str, rows: list[Pair], held_out: float = 0.0, **options: Any) -> Path:
    """Prepares questions and answers for the model in `root/model`, in the order in which they are given."""
    lines = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in rows]
    path = write_lines(root / f"{name}.jsonl", *lines)
    given = {"checkpoint_dir": root / "model", "data_file": path, "destination_path": root / name}
    given |= {"prompt_style": "alpaca", "test_split_fraction": held_out, "overwrite": True}
    prepare("messages", PrepareFileConfig(**{**given, **options}))
    return root / name


def give_scores(folder: Path, scores: list[float], kind: str = "judge") -> None:
    """Writes a number beside each training row."""
    data = PreparedData.load(folder / "train.pt")
    parts = {name: getattr(data, name).clone() for name in ("input_ids", "target_mask", "offsets", "source")}
    meta = {**data.meta, "score": {"kind": kind}}
    save_prepared(folder / "train.pt", **parts, meta=meta, score=torch.tensor(scores))


def pairs_in(root: Path, path: Path) -> list[Pair]:
    """Gives the question and the answer of each row."""
    data = PreparedData.load(path)
    reader = TextReader(data, Tokenizer(root / "model"))
    return [(text.asked, text.answered) for text in map(reader.read, range(len(data)))]


def mixed(root: Path, out: Path, *names: str, filters: dict[str, Any] | None = None, **options: Any) -> list[str]:
    """Mixes folders by their short names, and gives the messages."""
    for key in ("weights", "inverse_to", "max_rows", "repeats"):
        if key in options:
            options[key] = {str(root / name): value for name, value in options[key].items()}
    given: dict[str, Any] = {"data_dirs": tuple(str(root / name) for name in names), "destination_path": out}
    given |= {"overwrite": True, "checkpoint_dir": root / "model", "filters": FiltersConfig(**(filters or {}))}
    messages: list[str] = []
    mix(MixConfig(**{**given, **options}), messages.append)
    return messages


def removed_in(out: Path) -> list[dict[str, Any]]:
    """Gives what was left out; nothing where there is no such file."""
    path = out / "removed.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
