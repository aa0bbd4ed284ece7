"""A row that alone is spoilt is counted, with its line, its field, what was found and what was expected; where no row
can be used, the command is named that reads such rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import assert_one_sentence
from good_rows import GOOD, TASK, said
from tiny_text import write_checkpoint

from litft.cli import main
from litft.config.io import load_yaml
from litft.data.reading.faults import DEEPEST
from litft.data.recognise import nearest_command
from litft.data.sources import SOURCES


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", block_size=2048)


def write(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- rows of which a field is spoilt ---

# Fields of a row that must hold a text, by dataset: the path to each.
TEXTS: dict[str, list[list[str | int]]] = {
    "alpaca": [["instruction"], ["output"]],
    "dolly": [["instruction"], ["response"]],
    "flan": [["inputs"], ["targets"]],
    "guanaco": [["text"]],
    "longform": [["input"], ["output"]],
    "p3": [["inputs_pretokenized"], ["targets_pretokenized"]],
    "text": [["text"]],
    "lima": [["conversations", 0], ["conversations", 1]],
    "messages": [["messages", 0, "content"], ["messages", 1, "content"]],
    "sharegpt": [["conversations", 0, "value"], ["conversations", 1, "value"]],
    "self_instruct": [["instruction"], ["instances", 0, "output"]],
    "oasst1": [["prompt", "text"], ["prompt", "replies", 0, "text"]],
}
# What stands in the place of a text, and what is said of it.
SPOILT: list[tuple[Any, str]] = [
    (None, "is null, not text"),
    ("", "is empty"),
    (" \n", "is empty"),
    ("\u200b \ufeff", "is empty"),
    (3, "is int, not text"),
    (True, "is bool, not text"),
    (["a"], "is list, not text"),
    ({"a": 1}, "is dict, not text"),
    (float("nan"), "is NaN, not text"),
    (float("-inf"), "is Infinity, not text"),
    ("half \ud83d", "holds half a character"),
    ("a\0b", "holds a NUL character"),
]
MISSING = object()


def spoil(row: Any, way: list[str | int], value: Any) -> Any:
    """Gives a copy of a row with another value at a place, or with none."""
    copy = json.loads(json.dumps(row))
    *before, last = way
    inner = copy
    for step in before:
        inner = inner[step]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return copy


def rejected_of(checkpoint: Path, dataset: str, rows: list[Any]) -> list[dict[str, Any]]:
    """Prepares a good row and the others, and gives what the manifest says of those that were rejected."""
    write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in [GOOD[dataset], *rows]))
    flags = ["--data_file", "rows.jsonl", "--max_rejected_fraction", "1", "--test_split_fraction", "0"]
    assert main(["prepare", dataset, "--checkpoint_dir", str(checkpoint), *flags]) == 0
    rejected: list[dict[str, Any]] = load_yaml(Path("data") / dataset / "manifest.yaml")["sources"][dataset]["rejected"]
    return rejected


@pytest.mark.parametrize(
    ("dataset", "way"),
    [pytest.param(dataset, way, id=f"{dataset}-{way}") for dataset, ways in TEXTS.items() for way in ways],
)
def test_a_field_that_is_spoilt(checkpoint: Path, dataset: str, way: list[str | int]) -> None:
    cases = [(spoil(GOOD[dataset], way, value), reason) for value, reason in SPOILT]
    if isinstance(way[-1], str):
        cases.append((spoil(GOOD[dataset], way, MISSING), f'no "{way[-1]}" (found '))
    rejected = rejected_of(checkpoint, dataset, [row for row, _ in cases])
    assert [row["line"] for row in rejected] == list(range(2, len(cases) + 2))
    for row, (_, reason) in zip(rejected, cases, strict=True):
        assert reason in row["reason"], (row, reason)


def called(**fields: Any) -> dict[str, Any]:
    told = said("user", "assistant")
    told["messages"][1].update(fields)
    return told


def nested(depth: int) -> Any:
    value: Any = "a"
    for _ in range(depth):
        value = [value]
    return value


# Rows that hold no conversation, and why.
ROWS: list[tuple[str, Any, str]] = [
    ("messages", said("user", "assistant", "assistant"), "two messages of the assistant in a row (the second is"),
    ("messages", said("user", "user", "assistant"), "two messages of the user in a row"),
    ("messages", said("user", "asistant"), 'message 2 has the role "asistant"; expected one of user, assistant'),
    ("messages", said("user", "\ud800\x1b[31m" + "x" * 10**6), 'message 2 has the role "\\ud800\\u001b[31mxxxx'),
    ("messages", said("user", "\u200bassistant"), 'message 2 has the role "\\u200bassistant"'),
    ("messages", said("assistant", "user"), "message 1 (assistant) stands where a question (user) is expected"),
    ("messages", said("user"), "no answer (1 message)"),
    ("messages", said("user", "system", "assistant"), "message 2 (system) does not stand first"),
    ("messages", {"messages": None}, '"messages" is null, not a list of messages'),
    ("messages", {"messages": {"role": "user"}}, '"messages" is dict, not a list of messages'),
    ("messages", {"messages": ["a"]}, 'message 1 of "messages" is str, not an object with "role" and "content"'),
    ("messages", {"messages": [{"role": None, "content": "a"}]}, '"role" of message 1 of "messages" is null, not text'),
    ("messages", called(tool_calls=[3]), '"tool_calls" of message 2 of "messages" is a list that holds int, not'),
    ("messages", called(tool_calls=[{"a": nested(900)}]), f"is nested more than {DEEPEST} deep"),
    ("messages", called(tool_calls=[{"a": "\ud800"}]), "holds half a character"),
    ("messages", called(name=["a"]), '"name" of message 2 of "messages" is list, not text'),
    ("messages", called(weight=nested(900)), '"weight" of message 2 of "messages" is list; 0 leaves it without loss'),
    ("messages", {**said("user", "assistant"), "tools": [{"a": nested(900)}]}, '"tools" is nested more than'),
    ("sharegpt", {"conversations": [{"from": "human", "value": "a"}, {"from": "critic", "value": "b"}]}, '"critic"'),
    ("sharegpt", {"conversation": []}, 'no "conversations" (found "conversation")'),
    ("lima", {"conversations": ["a", "b", "c"]}, "3 texts, so the last question has no answer"),
    ("lima", {"conversations": []}, '"conversations" is an empty list, not a list of texts'),
    ("lima", {"conversations": None}, '"conversations" is null, not a list of texts'),
    ("guanaco", {"text": "\x1b" + "Hi " * 10**6}, '"text" begins with "\\u001bHi Hi'),
    ("guanaco", {"text": "### Human: a### Human: b### Assistant: c"}, "two messages of the user in a row"),
    ("magpie", {"instruction": "a", "responses": []}, '"responses" is an empty list, not a list of texts'),
    ("magpie", {"instruction": "a", "responses": ["b"], "rewards": [float("nan")]}, '"rewards" holds NaN, not numbers'),
    ("magpie", {"instruction": "a", "responses": ["b"], "rewards": [True]}, '"rewards" holds bool, not numbers'),
    ("magpie", {"instruction": "a", "responses": ["b"], "rewards": [1, 2]}, '"rewards" has 2 numbers for 1 responses'),
    ("magpie", {"instruction": "a", "responses": ["b", "c"], "rewards": "2, 1"}, '"rewards" is str, not a list of num'),
    ("magpie", {"instruction": "a", "responses": ["b", "c"], "reward": 2}, '"reward" has 1 numbers for 2 responses'),
    ("magpie", {"responses": ["b"]}, 'no "instruction" (found "responses")'),
    ("self_instruct", {"instruction": "a", "instances": {}}, '"instances" is dict, not a list of inputs'),
    ("self_instruct", {"instruction": "a", "instances": [None]}, "instance 1 is null, not an object"),
    ("self_instruct", {**GOOD["alpaca"], "status": nested(900)}, "its own filter refused it (status is list)"),
    ("oasst1", {"prompt": "a", "completion": "b"}, '"prompt" is str, not a message with its replies'),
    ("oasst1", {"prompt": {"text": "a", "role": "prompter", "replies": ["b"]}}, '"replies" holds str, not messages'),
    ("oasst1", {"prompt": {"text": "a", "role": 3, "replies": []}}, '"role" is int, not text'),
    ("text", {"text": "abc", "target_spans": nested(900)}, '"target_spans" holds [list], not pairs'),
    ("text", {"text": "abc", "target_spans": [[0, 10**30]]}, "[0, a number of 100 bits], which are no characters"),
    ("tokenized", {"input_ids": [3, 10**30], "labels": [3, 4]}, '"input_ids" is a list that holds a number of 100'),
    ("tokenized", {"input_ids": [3, True], "labels": [3, 1]}, '"input_ids" is a list that holds bool'),
    ("tokenized", {"input_ids": [3, 2**63], "labels": [3, 4]}, '"input_ids" is a list that holds a number of 64 bits'),
    ("tokenized", {"input_ids": nested(900), "labels": [3]}, '"input_ids" is a list of lists'),
    ("tokenized", {"input_ids": [], "labels": []}, '"input_ids" is empty'),
    ("alpaca", {str(number): 1 for number in range(10**4)}, '"7" and 9992 more)'),
]  # fmt: skip


@pytest.mark.parametrize("dataset", dict.fromkeys(name for name, _, _ in ROWS))
def test_a_row_that_cannot_be_used(checkpoint: Path, dataset: str) -> None:
    cases = [(row, reason) for name, row, reason in ROWS if name == dataset]
    rejected = rejected_of(checkpoint, dataset, [row for row, _ in cases])
    assert [row["line"] for row in rejected] == list(range(2, len(cases) + 2))
    for row, (_, reason) in zip(rejected, cases, strict=True):
        assert reason in row["reason"] and len(row["reason"]) < 300, (row, reason)


PLACES: list[tuple[str, str, dict[str, int]]] = [
    ("lines.jsonl", "a row\na row\nspoilt\n", {"line": 3}),
    ("line.json", "[a row, a row, spoilt]", {"line": 1, "row": 3}),
    ("lines.json", "[a row,\n a row, spoilt]", {"line": 2, "row": 3}),
]


@pytest.mark.parametrize(("name", "text", "place"), PLACES, ids=[name for name, _, _ in PLACES])
def test_the_place_of_a_row(
    checkpoint: Path, name: str, text: str, place: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a list on one line the line alone tells nothing."""
    spoilt = {**GOOD["dolly"], "response": 3}
    write(name, text.replace("a row", json.dumps(GOOD["dolly"])).replace("spoilt", json.dumps(spoilt)))
    assert_place(checkpoint, "dolly", name, place, capsys)


def test_the_place_of_a_row_without_a_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [GOOD["dolly"], GOOD["dolly"], {**GOOD["dolly"], "response": None}]
    parquet.write_table(arrow.Table.from_pylist(rows), "rows.parquet")
    assert_place(checkpoint, "dolly", "rows.parquet", {"row": 3}, capsys)
    ids = [{"input_ids": torch.tensor([3, 4])}] * 2
    torch.save([*ids, {"input_ids": torch.tensor([3.5])}], "rows.pt")
    assert_place(checkpoint, "tokenized", "rows.pt", {"row": 3}, capsys)


def assert_place(
    checkpoint: Path, dataset: str, file: str, place: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoint_dir", str(checkpoint), "--data_file", file, "--max_rejected_fraction", "0.5"]
    assert main(["prepare", dataset, *flags]) == 0
    [rejected] = load_yaml(Path("data") / dataset / "manifest.yaml")["sources"][dataset]["rejected"]
    assert rejected.pop("reason") and rejected == place
    told = ", ".join(f"{name} {number}" for name, number in place.items())
    assert f"rejected {told}: " in capsys.readouterr().err


def test_the_header_of_a_joined_csv_file_is_no_row(checkpoint: Path) -> None:
    header = "instruction,output\n"
    write("rows.csv", f"{header}a,b\n{header}c,d\n\ufeff{header}e,f\n")
    flags = ["--checkpoint_dir", str(checkpoint), "--data_file", "rows.csv", "--test_split_fraction", "0"]
    assert main(["prepare", "csv", *flags]) == 0
    source = load_yaml(Path("data/csv/manifest.yaml"))["sources"]["csv"]
    assert source["rows_kept_train"] == 3 and [row["line"] for row in source["rejected"]] == [3, 5]


def test_rows_that_their_own_filter_refused_are_no_faults(checkpoint: Path) -> None:
    """Were they faults, three of four would be too many."""
    row = {**GOOD["alpaca"], "status": "ok"}
    rows = [
        row,
        {**row, "status": "too similar"},
        {**row, "status": "blacklist"},
        {**row, "output": "c", "status": None},
    ]
    write("rows.jsonl", "".join(json.dumps(each) + "\n" for each in rows))
    flags = ["--data_file", "rows.jsonl", "--checkpoint_dir", str(checkpoint), "--test_split_fraction", "0"]
    assert main(["prepare", "self_instruct", *flags]) == 0
    source = load_yaml(Path("data/self_instruct/manifest.yaml"))["sources"]["self_instruct"]
    assert source["rows_kept_train"] == 2
    told = [(each["line"], each["reason"].partition("(")[2]) for each in source["rejected"]]
    assert told == [(2, 'status is "too similar")'), (3, 'status is "blacklist")')]


# --- rows of another dataset ---


def test_each_shape_names_its_command() -> None:
    for given, row in GOOD.items():
        path = write("rows.jsonl", json.dumps(row))
        for dataset in SOURCES.keys() - {"json"}:
            hint = nearest_command(dataset, path)
            if dataset == given or given in hint:
                continue
            # Alpaca has three names; token ids and trees are read by no shape; a text says little.
            assert hint == "" or "alpaca" in (given, dataset) or given.startswith(("alpaca", "json")), (given, hint)
    path = write("rows.jsonl", json.dumps(GOOD["dolly"]))
    told = (
        " The rows look like dolly (instruction, response); did you mean `litft prepare dolly --data_file rows.jsonl`?"
    )
    assert nearest_command("alpaca", path) == told
    assert nearest_command("dolly", path) == ""


@pytest.mark.parametrize(
    ("row", "dataset", "command"),
    [
        (GOOD["sharegpt"], "lima", "sharegpt"),
        (GOOD["lima"], "sharegpt", "lima"),
        (GOOD["messages"], "alpaca", "messages"),
        (GOOD["magpie"], "alpaca", "magpie"),
        (GOOD["guanaco"], "lima", "guanaco"),
        (GOOD["text"], "lima", "text"),
        (GOOD["p3"], "flan", "p3"),
        ({"prompt": "a", "completion": "b"}, "alpaca", "p3"),
        ({"prompt": [{"role": "user"}], "completion": [{"role": "assistant"}]}, "alpaca", "messages"),
        ({"definition": "a", "inputs": "b", "targets": "c"}, "alpaca", "json"),
        (GOOD["tokenized"], "alpaca", "tokenized"),
        ({"message_tree_id": "a", **GOOD["oasst1"]}, "alpaca", "oasst1"),
        (TASK, "alpaca", "natural_instructions"),
    ],
)
def test_rows_of_another_shape(row: dict[str, Any], dataset: str, command: str) -> None:
    assert f"did you mean `litft prepare {command}" in nearest_command(dataset, write("rows.jsonl", json.dumps(row)))


def test_rows_of_no_known_shape() -> None:
    for content in ('{"a": 1}', "", "{", b"\xff"):
        assert nearest_command("alpaca", write("rows.jsonl", content)) == ""
    unclear = {"instruction": "a", "output": "b", "response": "c"}
    hint = nearest_command("lima", write("rows.jsonl", json.dumps(unclear)))
    assert "alpaca (instruction, output) and dolly (instruction, response)" in hint and "json --format alpaca" in hint


def test_the_command_is_named_where_no_row_fits(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("rows.jsonl", json.dumps(GOOD["sharegpt"]))
    assert main(["prepare", "alpaca", "--checkpoint_dir", str(checkpoint), "--data_file", str(path)]) == 2
    shown = capsys.readouterr()
    command = "did you mean `litft prepare sharegpt --data_file rows.jsonl`?"
    assert_one_sentence(shown.out, shown.err, "1 of 1 rows of rows.jsonl", command)
