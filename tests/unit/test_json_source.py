"""JSON of any shape: the shape is told by the fields, said, and what is unclear or unknown is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_rows import turns_in
from tiny_text import SHARED, write_checkpoint

from litft.config.prepare import PrepareJsonConfig
from litft.data.prepare import prepare
from litft.data.reading.rows import Found, Rejected, Row
from litft.data.sources.json import NAMED, read_json, unused_fields
from litft.errors import DataError

ASKED = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SAID = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]

# For each shape a row of it, all of one turn.
ROWS: dict[str, dict[str, Any]] = {
    "messages": {"messages": ASKED, "prompt": "a", "prompt_id": "x"},
    "sharegpt": {"conversations": SAID, "instruction": "a", "response": "b"},
    "lima": {"conversations": ["a", "b"], "source": "x"},
    "self_instruct": {"instruction": "a", "instances": [{"input": "", "output": "b"}]},
    "magpie": {"instruction": "a", "responses": ["b", "c"], "reward": [2.0, 1.0]},
    "alpaca": {"instruction": "a", "input": "", "output": "b", "text": "a b"},
    "dolly": {"instruction": "a", "context": "", "response": "b", "category": "x"},
    "natural_instructions": {"definition": "a", "inputs": "", "targets": "b", "task_name": "x"},
    "flan": {"inputs": "a", "targets": "b", "task": "x"},
    "p3": {"inputs_pretokenized": "a", "targets_pretokenized": "b", "inputs": [1], "targets": [2]},
    "prompt_completion": {"prompt": "a", "completion": "b<|endoftext|>"},
    "prompt_completion_messages": {"prompt": ASKED[:1], "completion": ASKED[1:]},
    "longform": {"input": "a", "output": "b", "source": "x"},
    "guanaco": {"text": "### Human: a### Assistant: b"},
    "text": {"text": "b", "url": "x"},
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_each_shape_has_its_row_here() -> None:
    assert ROWS.keys() == NAMED.keys()


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("as_list", [False, True])
def test_the_shape_is_told_by_the_fields(tmp_path: Path, name: str, as_list: bool) -> None:
    path = write(tmp_path / "rows.json", [ROWS[name]] * 2) if as_list else write(tmp_path / "a.jsonl", ROWS[name])
    found, *rows = read_json(path)
    assert isinstance(found, Found) and f"the shape {name} (" in found.sentence
    turns = [turns_in(row.conversation) for row in rows if isinstance(row, Row)]
    assert turns == [[("" if name == "text" else "a", "", "b")]] * (2 if as_list else 1)
    named = list(read_json(path, format=name))
    assert isinstance(named[0], Found) and "as --format says" in named[0].sentence and named[1:] == rows


@pytest.mark.parametrize("name", NAMED)
def test_the_shape_is_told_in_parquet(tmp_path: Path, name: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    # The null column is what a parquet file of several datasets has for rows of the others.
    parquet.write_table(arrow.Table.from_pylist([{**ROWS[name], "note": None}] * 3), path)
    found, *rows = read_json(path)
    assert isinstance(found, Found) and f"the shape {name} (" in found.sentence
    assert len([row for row in rows if isinstance(row, Row)]) == 3


def test_a_few_broken_rows_do_not_hide_the_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"oops": 1}, *[ROWS["alpaca"]] * 3)
    found, *rows = read_json(path)
    assert isinstance(found, Found) and "the shape alpaca" in found.sentence
    assert [isinstance(row, Rejected) for row in rows] == [True, False, False, False]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"instruction": "a", "output": "b", "response": "c"},
         ["could be alpaca (instruction, output) and dolly (instruction, response)", "--format"]),
        ({"messages": ASKED, "conversations": SAID}, ["could be messages (messages) and sharegpt (conversations)"]),
        ({"question": "a", "answer": "b"}, ['have "question", "answer", which is no known shape', "the nearest is"]),
        ({"instruction": "a", "answer": "b", "context": ""},
         ['have "instruction", "answer", "context"', "the nearest is"]),
        ({"prompt": "a", "answer": "b"}, ['nearest is prompt_completion, with "prompt", "completion"']),
        ({"conversations": "a"}, ['("conversations" is a list of objects)']),
        ({"input_ids": [1], "labels": [1]}, ["token ids already", "litft prepare tokenized"]),
        ({"message_tree_id": "x", "text": "a", "role": "prompter"}, ["litft prepare oasst1"]),
        ({}, ["have nothing"]),
    ],
)  # fmt: skip
def test_what_is_unclear_or_unknown_is_refused(tmp_path: Path, row: dict[str, Any], words: list[str]) -> None:
    path = write(tmp_path / "a.jsonl", row)
    with pytest.raises(DataError) as caught:
        list(read_json(path))
    assert all(part in str(caught.value) for part in [*words, str(path)])


def test_an_unknown_format_and_other_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS["alpaca"])
    with pytest.raises(DataError, match=r'--format is "alpacca"; .* Did you mean "alpaca"'):
        list(read_json(path, format="alpacca"))
    for suffix, command in (("csv", "csv"), ("tsv", "flan")):
        with pytest.raises(DataError, match=f"litft prepare {command}"):
            list(read_json(write(tmp_path / f"a.{suffix}", "x")))
    assert list(read_json(write(tmp_path / "empty.jsonl"))) == []


def test_unused_fields_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS["dolly"], {**ROWS["dolly"], "rating": 5})
    assert unused_fields(path) == f'Not used of {path}: "category", "rating".'
    assert unused_fields(path, format="dolly") == unused_fields(path)
    assert unused_fields(write(tmp_path / "b.jsonl", ROWS["guanaco"])) is None


def test_the_shape_stands_in_the_manifest(tmp_path: Path) -> None:
    folder, path = write_checkpoint(tmp_path / "tiny"), write(tmp_path / "a.jsonl", ROWS["prompt_completion"])
    given: dict[str, Any] = {"checkpoint_dir": folder, "data_file": path, "destination_path": tmp_path / "out"}
    messages: list[str] = []
    source = prepare("json", PrepareJsonConfig(**given), messages.append).to_dict()["sources"]["json"]
    assert source["found"] == ["The rows are of the shape prompt_completion (prompt, completion)."] == messages[:1]
    assert list(source["notes"].values()) == [1] and source["options"] == {"format": None}


@pytest.mark.parametrize(
    ("file", "shape", "used"),
    [
        ("alpaca_gpt4/alpaca_gpt4_data.json", "alpaca", 800),
        ("dolly/databricks-dolly-15k.jsonl", "dolly", 1000),
        ("lima/train.jsonl", "lima", 515),
        ("self_instruct/seed_tasks.jsonl", "self_instruct", 175),
        ("p3/p3_sample.jsonl", "prompt_completion", 480),
        ("guanaco/train.jsonl", "guanaco", 300),
        ("magpie/example_instructions_5res.json", "magpie", 5),
        ("sharegpt/dummy_conversation.json", "sharegpt", 250),
    ],
)
def test_published_files(file: str, shape: str, used: int) -> None:
    if not (SHARED / file).is_file():
        pytest.skip("shared data is absent")
    found, *rows = read_json(SHARED / file)
    assert isinstance(found, Found) and f"the shape {shape} (" in found.sentence
    assert sum(isinstance(row, Row) for row in rows) == used
