"""Preparing rows with scores, in other orders of options, in other words; what came of one row stays together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_text import write_checkpoint

from litft.cli import main
from litft.config.io import load_yaml
from litft.config.prepare import PrepareConfig, PrepareCsvConfig, PrepareFileConfig
from litft.data.kept import split_rows
from litft.data.prepare import prepare
from litft.data.reading.scores import read_scores
from litft.data.store import PreparedData
from litft.data.texts import TextReader
from litft.errors import ConfigError, DataError
from litft.text.tokenizer import Tokenizer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Gives a model's folder; what is prepared goes beside it."""
    return write_checkpoint(tmp_path / "model")


def run(model: Path, dataset: str, rows: Path, kind: Callable[..., Any] = PrepareConfig, **options: Any) -> Path:
    """Prepares a file; gives the folder."""
    destination = model.parent / "prepared"
    given = {"checkpoint_dir": model, "data_file": rows, "destination_path": destination, "prompt_style": "plain"}
    prepare(dataset, kind(**{**given, **options}))
    return destination


def write(model: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    path = model.parent / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def told(model: Path, path: Path) -> list[tuple[str, str]]:
    """Gives question and answer of each row."""
    data = PreparedData.load(path)
    reader = TextReader(data, Tokenizer(model))
    return [(text.asked, text.answered) for text in map(reader.read, range(len(data)))]


ROWS = [
    {"instruction": f"question {number}", "output": f"answer {number}", "quality": number / 4} for number in range(9)
]


def test_scores_of_a_field(model: Path) -> None:
    rows = [*ROWS, {"instruction": "none", "output": "none", "quality": None}]
    folder = run(model, "alpaca", write(model, rows), score_field="quality")
    manifest = load_yaml(folder / "manifest.yaml")
    assert manifest["score"] == {"kind": "column quality"}
    assert manifest["sources"]["alpaca"]["notes"] == {"the score field holds no number": 1}
    found = {}
    for name in ("train.pt", "test.pt"):
        scores = PreparedData.load(folder / name).score
        assert scores is not None
        found |= dict(zip([answer for _, answer in told(model, folder / name)], scores.tolist(), strict=True))
    assert found.pop("none") != found.get("answer 0") and len(found) == 9
    assert all(score == int(answer.split()[1]) / 4 for answer, score in found.items())


@pytest.mark.parametrize("form", ["list on one line", "list", "csv"])
def test_scores_are_found_by_their_place(model: Path, form: str) -> None:
    path = model.parent / ("rows.csv" if form == "csv" else "rows.json")
    if form == "csv":
        cells = [f'{row["instruction"]},"{row["output"]}",{row["quality"]}' for row in ROWS]
        path.write_text("\n".join(["instruction,output,quality", *cells]), encoding="utf-8")
        folder = run(model, "csv", path, PrepareCsvConfig, score_field="quality", test_split_fraction=0)
    else:
        path.write_text(json.dumps(ROWS, indent=None if "line" in form else 1), encoding="utf-8")
        folder = run(model, "alpaca", path, score_field="quality", test_split_fraction=0)
    scores = PreparedData.load(folder / "train.pt").score
    assert scores is not None and scores.tolist() == [row["quality"] for row in ROWS]


def test_a_field_without_numbers(model: Path) -> None:
    bad = ("high", None, True, "nan", [])
    path = write(model, [{**row, "quality": value} for row, value in zip(ROWS, bad, strict=False)])
    with pytest.raises(DataError, match=r"no row of .* has a number there; found"):
        read_scores(path, "quality")
    path = write(model, [{"text": "a"}])
    with pytest.raises(DataError, match="rows of text have no fields"):
        run(model, "text", path, PrepareFileConfig, score_field="quality")


def choice(number: int) -> dict[str, str]:
    trees = "\n".join(f"{letter}. tree {number}{letter}" for letter in "ABC")
    return {"instruction": f"Which?\n{trees}", "output": "ABC"[number % 3]}


def test_options_in_other_orders(model: Path) -> None:
    rows = [*map(choice, range(12)), {"instruction": "Hi", "output": "Hello"}]
    folder = run(model, "alpaca", write(model, rows), option_orders=2, test_split_fraction=0.3)
    ledger = load_yaml(folder / "manifest.yaml")["sources"]["alpaca"]
    assert (ledger["rows_read"], ledger["rows_added"]) == (13, 24)
    kept = {name: told(model, folder / f"{name}.pt") for name in ("train", "test")}
    assert sum(map(len, kept.values())) == 37
    for asked, answer in kept["train"] + kept["test"]:
        if "tree" in asked:
            number = int("".join(filter(str.isdigit, asked.splitlines()[1])))
            assert f"{answer}. tree {number}{'ABC'[number % 3]}" in asked
    numbers = {
        name: {"".join(filter(str.isdigit, asked.splitlines()[1])) for asked, _ in rows if "tree" in asked}
        for name, rows in kept.items()
    }
    assert numbers["train"] and numbers["test"] and not numbers["train"] & numbers["test"]


def test_parts_of_one_conversation_are_held_out_together(model: Path) -> None:
    said = [(turn, role) for turn in range(4) for role in ("user", "assistant")]
    talks = [[{"role": role, "content": f"{number} {turn} {role}"} for turn, role in said] for number in range(20)]
    path = write(model, [{"messages": messages} for messages in talks])
    options = {"too_long": "split_turns", "max_seq_length": 60, "test_split_fraction": 0.3}
    folder = run(model, "messages", path, PrepareFileConfig, **options)
    parts = {name: [asked.split()[0] for asked, _ in told(model, folder / f"{name}.pt")] for name in ("train", "test")}
    assert len(parts["train"]) > len(set(parts["train"])) and len(parts["test"]) > 1
    assert not set(parts["train"]) & set(parts["test"])


def test_rows_of_one_draw_stay_together() -> None:
    draws = torch.tensor([5, 5, 5, 7, 7, 9]).repeat_interleave(2)
    for seed in range(20):
        train, test = split_rows(draws, 0.3, seed)
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(12)) and len(train) and len(test)
        assert not set(draws[train].tolist()) & set(draws[test].tolist())
    train, test = split_rows(torch.full((4,), 3), 0.5, 0)
    assert len(train) == 4 and not len(test)


def test_shards_of_changed_rows_are_the_whole(model: Path) -> None:
    path = write(model, [{**choice(number), "quality": number} for number in range(15)])
    options: dict[str, Any] = {"option_orders": 1, "score_field": "quality", "test_split_fraction": 0.3}
    run(model, "alpaca", path, destination_path=model.parent / "whole", **options)
    for number in (1, 2):
        run(model, "alpaca", path, destination_path=model.parent / f"part{number}", shard=f"{number}/2", **options)
    names = ",".join(str(model.parent / f"part{number}") for number in (1, 2))
    assert main(["prepare", "join", "--data_dirs", names, "--destination_path", str(model.parent / "joined")]) == 0
    for name in ("train.pt", "test.pt"):
        pairs = []
        for folder in ("whole", "joined"):
            scores = PreparedData.load(model.parent / folder / name).score
            assert scores is not None
            pairs.append(sorted(zip(told(model, model.parent / folder / name), scores.tolist(), strict=True)))
        assert pairs[0] == pairs[1] and pairs[0]


def test_other_words(model: Path) -> None:
    frames = model.parent / "frames.txt"
    frames.write_text("Please: {instruction}\nNow {instruction}\n", encoding="utf-8")
    folder = run(model, "alpaca", write(model, ROWS), paraphrases=frames, test_split_fraction=0)
    asked = [question for question, _ in told(model, folder / "train.pt")]
    assert {question.split()[0] for question in asked} == {"Please:", "Now"}
    assert [question.split(" ", 1)[1] for question in asked] == [row["instruction"] for row in ROWS]
    assert load_yaml(folder / "manifest.yaml")["paraphrases"] == ["Please: {instruction}", "Now {instruction}"]


def test_fewer_copies_than_none(model: Path) -> None:
    with pytest.raises(ConfigError, match="option_orders is -1"):
        run(model, "alpaca", write(model, ROWS), option_orders=-1)


def test_the_score_field_is_used(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write(model, [{**row, "other": 1} for row in ROWS])
    given = ["--checkpoint_dir", str(model), "--data_file", str(rows), "--destination_path", str(model.parent / "data")]
    assert main(["prepare", "json", *given, "--score_field", "quality"]) == 0
    assert f'Not used of {rows}: "other".' in capsys.readouterr().err


def test_rows_that_were_cut_are_told_among_those_encoded(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = model.parent / "tasks"
    tasks.mkdir()
    instances = [{"id": f"t-{number}", "input": f"{number} " * 120, "output": ["yes"]} for number in range(50)]
    task = {"Definition": ["Say yes."], "Instances": instances}
    (tasks / "task1_yes.json").write_text(json.dumps(task), encoding="utf-8")
    given = [
        "--checkpoint_dir",
        str(model),
        "--data_file",
        str(tasks),
        "--destination_path",
        str(model.parent / "data"),
    ]
    assert (
        main(
            [
                "prepare",
                "natural_instructions",
                *given,
                "--rows_per_task",
                "4",
                "--max_seq_length",
                "200",
                "--prompt_style",
                "plain",
            ]
        )
        == 0
    )
    assert "WARNING: 4 of 4 rows (100%) are longer than 200 tokens and were cut" in capsys.readouterr().err


def test_an_export_comes_back_without_what_was_held_out(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(model, "alpaca", write(model, ROWS), test_split_fraction=0.3)
    out, again = str(model.parent / "out"), str(model.parent / "again")
    assert main(["export", "data", "--data_dir", str(folder), "--out_dir", out]) == 0
    given = ["--data_file", out, "--destination_path", again, "--test_split_fraction", "0"]
    assert main(["prepare", "tokenized", "--checkpoint_dir", str(model), *given]) == 0
    assert told(model, Path(again) / "train.pt") == told(model, folder / "train.pt")
