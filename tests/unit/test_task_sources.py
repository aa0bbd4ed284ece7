"""Self-Instruct, Natural-Instructions, P3 and FLAN: rows, what is left out, and the sentence for each fault."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_rows import Turn, one_turn, turns_in
from tiny_text import SHARED, write_checkpoint

from litft.config.parse import parse_config
from litft.config.prepare import PrepareConfig, PrepareFlanConfig, PrepareTasksConfig
from litft.data.prepare import prepare
from litft.data.reading.rows import Found, Rejected, Row
from litft.data.sources import SOURCES
from litft.data.sources.natural_instructions import NOT_DRAWN, SEVERAL, choose_tasks
from litft.data.sources.p3 import END_NOTE
from litft.errors import ConfigError, DataError

TASK = {
    "Definition": ["Say the plural of the word."],
    "Positive Examples": [
        {"input": "cat", "output": "cats", "explanation": "an s"},
        {"input": "ox", "output": "oxen", "explanation": "an old form"},
    ],
    "Negative Examples": ["-", {"input": "dog", "output": "dogen", "explanation": "no such form"}],
    "Instances": [
        {"id": "1", "input": "fox", "output": ["foxes"]},
        {"id": "2", "input": "octopus ", "output": ["octopuses", "octopi"]},
        {"id": "3", "input": "sheep", "output": []},
    ],
}


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def task_file(path: Path, **changes: Any) -> Path:
    return write(path, json.dumps({**TASK, **changes}, indent=2))


def rows_of(name: str, path: Path, **options: Any) -> list[Row | Rejected]:
    return [row for row in SOURCES[name].read(path, **options) if isinstance(row, Row | Rejected)]


def turns_of(name: str, path: Path, **options: Any) -> list[Turn]:
    return [turns_in(row.conversation)[0] for row in rows_of(name, path, **options) if isinstance(row, Row)]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("self_instruct",
         '{"instruction": "a", "instances": [{"input": "b", "output": "c"}, {"input": "", "output": "d"}]}',
         [one_turn(1, "a", "b", "c"), one_turn(1, "a", "", "d")]),
        ("self_instruct", '{"instruction": "a", "input": "b", "output": "c", "status": "ok"}\n',
         [one_turn(1, "a", "b", "c")]),
        ("p3", '{"inputs": [3], "inputs_pretokenized": "a?\\n", "targets": [4], "targets_pretokenized": "\\nb"}',
         [one_turn(1, "a?\n", "", "b")]),
        ("p3", '{"prompt": "a?\\n", "completion": "b<|endoftext|>"}\n{"prompt": "c", "completion": "d<|endoftext|>e"}',
         [one_turn(1, "a?\n", "", "b", notes=(END_NOTE,)), one_turn(2, "c", "", "d<|endoftext|>e")]),
        ("flan", '[{"inputs": "a", "targets": "b", "task": "t"}]', [one_turn(1, "a", "", "b")]),
    ],
)  # fmt: skip
def test_rows(tmp_path: Path, name: str, content: str, expected: list[Row]) -> None:
    assert rows_of(name, write(tmp_path / "file.jsonl", content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "line", "reason"),
    [
        ("self_instruct", '{"instruction": "a", "instances": []}', 1, '"instances" is an empty list'),
        ("self_instruct", '\n{"instruction": "a", "instances": ["b"]}', 2, "instance 1 is str, not an object"),
        ("self_instruct", '{"instances": [{"input": "", "output": "b"}]}', 1, 'instance 1: no "instruction"'),
        ("self_instruct", '{"instruction": "a", "instances": [{"input": "b"}]}', 1, 'instance 1: no "output" (found'),
        ("self_instruct", '{"instruction": "a", "instances": [{"input": "b", "output": " "}]}', 1, '"output" is empty'),
        ("self_instruct", '{"prompt": "a"}', 1, 'no "output" (found "prompt")'),
        ("p3", '{"inputs_pretokenized": "a"}', 1, 'no "targets_pretokenized" (found "inputs_pretokenized")'),
        ("p3", '{"inputs_pretokenized": "a", "targets_pretokenized": 1}', 1, '"targets_pretokenized" is int, not text'),
        ("p3", '{"prompt": "a", "completion": "<|endoftext|>"}', 1, '"completion" is empty'),
        ("flan", '{"inputs": "a"}', 1, 'no "targets" (found "inputs")'),
    ],
)  # fmt: skip
def test_rejected_rows(tmp_path: Path, name: str, content: str, line: int, reason: str) -> None:
    (row,) = rows_of(name, write(tmp_path / "file.jsonl", content))
    assert isinstance(row, Rejected) and row.is_fault
    assert row.line == line and reason in row.reason


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("self_instruct", '{"instruction": "a", "input": "", "output": "b", "status": "too similar"}', "too similar"),
        ("p3", '{"inputs_pretokenized": "a", "targets_pretokenized": "b", "is_correct": false}', "is_correct is false"),
    ],
)
def test_rows_that_their_own_file_refuses_are_no_faults(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (row,) = rows_of(name, write(tmp_path / "file.jsonl", content))
    assert isinstance(row, Rejected) and not row.is_fault and reason in row.reason


def test_who_wrote_a_file_of_self_instruct(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny")
    seeds = write(tmp_path / "seeds.jsonl", '{"instruction": "a", "instances": [{"input": "", "output": "b"}]}')
    generated = write(tmp_path / "generated.jsonl", '{"instruction": "a", "input": "", "output": "b"}')
    given: dict[str, Any] = {"checkpoint_dir": folder, "destination_path": tmp_path / "out", "overwrite": True}
    for path, origin in ((seeds, "human"), (generated, "model")):
        messages: list[str] = []
        manifest = prepare("self_instruct", PrepareConfig(**given, data_file=path), messages.append).to_dict()
        source = manifest["sources"]["self_instruct"]
        assert source["origin"] == origin and source["found"] == messages[:1]
    prepare("self_instruct", PrepareConfig(**given, data_file=seeds, origin="human"))
    with pytest.raises(DataError, match=r"a model wrote the answers of .*generated\.jsonl"):
        prepare("self_instruct", PrepareConfig(**given, data_file=generated, origin="human"))


@pytest.mark.parametrize(("name", "who"), [("alpaca", "a model wrote"), ("csv", "nothing says who wrote")])
def test_origin_human_is_asked_before_anything_is_read(tmp_path: Path, name: str, who: str) -> None:
    config = PrepareConfig(checkpoint_dir=tmp_path, data_file=tmp_path / "none", origin="human")
    with pytest.raises(DataError, match=who) as caught:
        prepare(name, config)
    assert f"the dataset {name}" in str(caught.value) and "litft prepare --list" in str(caught.value)


def test_flan_chains_of_thought(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "Which?\\nA or B\tA\tFirst this.\\nThen that.\r\nHow many?\t3.\t1 + 2\n")
    chains = [turn.response for turn in turns_of("flan", path)]
    assert chains == [
        "First this.\nThen that.\nTherefore, the answer is A.",
        "1 + 2\nTherefore, the answer is 3.",
    ]
    assert turns_of("flan", path)[0].instruction == "Which?\nA or B"
    assert [turn.response for turn in turns_of("flan", path, answers="answer")] == ["A", "3."]
    said = [[row.sentence for row in SOURCES["flan"].read(path, answers=way) if isinstance(row, Found)] for way in
            ("chain_of_thought", "answer")]  # fmt: skip
    assert "the chain of thought and then the answer" in said[0][0] and "the answer alone" in said[1][0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a\tb\n", "2 cells between tabs; expected 3: question, answer, chain_of_thought"),
        ("a\n", "1 cell between tabs"),
        ("\ta\tb\n", '"question" is empty'),
        ("a\t\tb\n", '"answer" is empty'),
        ("a\tb\t\n", '"chain_of_thought" is empty'),
    ],
)
def test_flan_lines_that_cannot_be_used(tmp_path: Path, content: str, reason: str) -> None:
    (row,) = rows_of("flan", write(tmp_path / "a.tsv", content))
    assert isinstance(row, Rejected) and row.line == 1 and row.reason.startswith(reason)


def test_a_task_without_examples_is_instruction_and_input(tmp_path: Path) -> None:
    path = task_file(tmp_path / "task1_plural.json")
    rows = rows_of("natural_instructions", path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(lines[row.line].strip().rstrip(",").join("{}"))["id"] for row in rows] == ["1", "2", "3"]
    definition = "Say the plural of the word."
    assert rows[0] == one_turn(rows[0].line, definition, "fox", "foxes")
    assert rows[1] == one_turn(rows[1].line, definition, "octopus", "octopuses", notes=(SEVERAL,))
    assert rows[2] == Rejected(rows[2].line, '"output" is an empty list, not a text or a list of texts')


def test_examples_stand_before_the_instance(tmp_path: Path) -> None:
    turn = turns_of("natural_instructions", task_file(tmp_path / "task1.json"), examples=(1, 2))[0]
    assert turn == Turn(
        "Definition: Say the plural of the word.\n\n"
        "Positive Example 1 -\nInput: cat\nOutput: cats\n\n"
        "Negative Example 1 -\nInput: dog\nOutput: dogen\n\n"
        "Now complete the following example -\nInput: fox\nOutput:",
        "",
        "foxes",
    )


def test_rows_are_drawn_by_the_seed(tmp_path: Path) -> None:
    instances = [{"input": str(number), "output": [f"n{number}"]} for number in range(40)]
    path = task_file(tmp_path / "task1.json", Instances=instances)
    drawn = [[turn.input for turn in turns_of("natural_instructions", path, rows_per_task=5, seed=seed)] for seed in
             (1, 1, 2)]  # fmt: skip
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 5
    assert drawn[0] == sorted(drawn[0], key=int)
    left = [row for row in rows_of("natural_instructions", path, rows_per_task=5) if isinstance(row, Rejected)]
    assert len(left) == 35 and {(row.reason, row.is_fault) for row in left} == {(NOT_DRAWN, False)}
    assert len(turns_of("natural_instructions", path, rows_per_task=99)) == 40


def test_tasks_are_chosen_by_name() -> None:
    paths = [Path(f"tasks/{name}.json") for name in ("task001_plural", "task002_capital", "task010_plural")]
    assert choose_tasks(paths) == paths
    assert choose_tasks(paths, tasks=("task002_capital", "task01*"), rows_per_task=3) == paths[1:]
    with pytest.raises(DataError, match=r'none of the 3 tasks of tasks\. Did you mean "task002_capital"'):
        choose_tasks(paths, tasks=("task001*", "task002_capitel"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"Definition": None}, 'is no task: "Definition" is null, not a list with a text'),
        ({"Definition": []}, "is no task"),
        ({"Definition": [3]}, '"Definition" is int, not text'),
        ({"Instances": {}}, "is no task"),
        ({"Positive Examples": [{"input": "a"}]}, '"output" of Positive Example 1 is null, not text'),
    ],
)
def test_files_that_are_no_task(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = task_file(tmp_path / "task1.json", **changes)
    with pytest.raises(DataError) as caught:
        rows_of("natural_instructions", path, examples=(2, 0))
    assert words in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [('{\n"a": 1,\n}', "line 3 is not valid JSON"), ("[1]", "expected one JSON object"), ("", "is empty")],
)
def test_a_task_file_that_is_no_object(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        rows_of("natural_instructions", write(tmp_path / "task1.json", content))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ("a", 'the instance is str, not an object with "input" and "output"'),
        ({"output": ["a"]}, 'no "input" (found "output")'),
        ({"input": None, "output": ["a"]}, '"input" is null, not text'),
        ({"input": "a"}, 'no "output" (found "input")'),
        ({"input": "a", "output": [""]}, '"output" is empty'),
    ],
)
def test_instances_that_cannot_be_used(tmp_path: Path, instance: Any, reason: str) -> None:
    (row,) = rows_of("natural_instructions", task_file(tmp_path / "task1.json", Instances=[instance]))
    assert isinstance(row, Rejected) and row.reason == reason


def test_a_folder_of_tasks_is_prepared(tmp_path: Path) -> None:
    folder, tasks = write_checkpoint(tmp_path / "tiny"), tmp_path / "tasks"
    tasks.mkdir()
    for name in ("task1_a", "task2_b", "task3_b"):
        task_file(tasks / f"{name}.json", Instances=[{"input": name, "output": ["yes"]}] * 2)
    words = ["--checkpoint_dir", str(folder), "--data_file", str(tasks), "--destination_path", str(tmp_path / "out")]
    words += ["--tasks", "*_b", "--rows_per_task", "1", "--examples", "1,0"]
    manifest = prepare("natural_instructions", parse_config(PrepareTasksConfig, words, "litft", "")).to_dict()
    source = manifest["sources"]["natural_instructions"]
    assert [part["file"] for part in source["files"]] == ["task2_b.json", "task3_b.json"]
    assert (source["rows_read"], source["rows_rejected"], source["rows_kept_train"]) == (4, 2, 1)
    assert source["options"] == {"tasks": ["*_b"], "rows_per_task": 1, "examples": [1, 0], "seed": 42}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--rows_per_task", "0"], "rows_per_task is 0; it must be at least 1."),
        (["--examples", "2,-1"], "examples is 2,-1; no count can be negative."),
        (["--examples", "2"], '--examples is "2"; it must be a list such as [2, 2].'),
        (["--examples", "a,b"], '--examples is "a,b"; it must be a list such as [2, 2].'),
    ],
)
def test_flags_of_tasks(words: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(PrepareTasksConfig, ["--checkpoint_dir", "a", "--data_file", "b", *words], "litft", "")
    assert str(caught.value) == sentence


def test_flags_of_flan() -> None:
    with pytest.raises(ConfigError, match="it must be chain_of_thought or answer"):
        parse_config(PrepareFlanConfig, ["--checkpoint_dir", "a", "--data_file", "b", "--answers", "c"], "litft", "")


@pytest.mark.parametrize(
    ("name", "file", "used", "notes"),
    [
        ("self_instruct", "self_instruct/seed_tasks.jsonl", 175, {}),
        ("self_instruct", "self_instruct/generated_tasks.jsonl", 177, {}),
        ("p3", "p3/p3_sample.jsonl", 480, {END_NOTE: 480}),
        ("flan", "flan/gsm8k_train.tsv", 300, {}),
        ("flan", "flan/ecqa_train.tsv", 300, {}),
        ("natural_instructions", "natural_instructions/tasks/task1146_country_capital.json", 231, None),
        ("natural_instructions", "natural_instructions/tasks/task393_plausible_result_generation.json", 100, None),
    ],
)
def test_published_files(name: str, file: str, used: int, notes: dict[str, int] | None) -> None:
    if not (SHARED / file).is_file():
        pytest.skip("shared data is absent")
    rows = [row for row in rows_of(name, SHARED / file) if isinstance(row, Row)]
    assert len(rows) == used
    counted = Counter(note for row in rows for note in row.notes)
    assert counted == notes if notes is not None else set(counted) <= {SEVERAL}
    assert not any("<|endoftext|>" in turn.response for row in rows for turn in turns_in(row.conversation))
