"""New tasks from seeds: the prompts, the filters and what they count, a killed run, and the rows that come of it."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from hypothesis import given
from hypothesis import strategies as st
from tiny_rows import rows_of, write_lines

from litft.config.curate import GrowConfig
from litft.config.io import load_yaml
from litft.curate.grow import grow
from litft.curate.tasks import Instance, Task, fault_of, list_prompt, read_instances, read_list, task_prompt
from litft.data.reading.rows import Row
from litft.errors import ConfigError, DataError, GenerationError
from litft.text.rouge import nearest, rouge_l, words_of

VERBS = ("Name", "Praise", "Compare", "Sort", "Explain", "Count", "Rhyme", "Spell", "Judge", "Sell")
WORDS = [
    f"{first}{second}"
    for first in ("ba", "do", "ki", "lu", "me", "so")
    for second in ("ran", "lin", "tok", "vum", "zet")
]
SEEDS = [
    {"instruction": f"{verb} the fruits of autumn for number {index}.", "instances": [{"input": "", "output": verb}]}
    for index, verb in enumerate(VERBS)
]
BUSY = (429, {"Retry-After": "0"}, {"error": {"message": "slow down"}})


def seeds_in(folder: Path, count: int = 10) -> Path:
    return write_lines(folder / "seeds.jsonl", *SEEDS[:count])


def config_of(folder: Path, server: ChatServer, **changes: Any) -> GrowConfig:
    given: dict[str, Any] = {"seeds": folder / "seeds.jsonl", "out": folder / "grown.jsonl", "count": 12}
    return GrowConfig(**{**given, "endpoint": server.url, "model": "medlar", "retries": 0, **changes})


def poet(prompt: str) -> str:
    """Invents tasks and cases, the same for the same prompt: some good, some that a filter must drop."""
    chance = random.Random(prompt)
    if prompt.startswith("Come up"):
        good = [" ".join([chance.choice(VERBS), *chance.sample(WORDS, 5)]) for _ in range(2)]
        return "\n".join(
            [f" {good[0]}.", f"10. {SEEDS[0]['instruction']}", f"11. {good[1]}?", "12. Draw a map of Rome."]
        )
    return "Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d" if chance.random() < 0.7 else "Nothing."


def listed(prompt: str) -> list[str]:
    return re.findall(r"(?m)^\d+\. (.+)$", prompt)


def test_tasks_grow_until_there_are_enough(tmp_path: Path) -> None:
    seeds_in(tmp_path)
    told: list[str] = []
    with ChatServer(poet) as server:
        assert grow(config_of(tmp_path, server), told.append) == tmp_path / "grown.jsonl"
    rows = [json.loads(line) for line in (tmp_path / "grown.jsonl").read_text().splitlines()]
    assert len(rows) == 24 and len({row["instruction"] for row in rows}) == 12
    read = rows_of("self_instruct", tmp_path / "grown.jsonl")[1:]
    assert len(read) == 24 and all(isinstance(row, Row) for row in read)
    account = load_yaml(tmp_path / "grown.yaml")
    lists = [body for body in server.bodies if body["messages"][0]["content"].startswith("Come up")]
    assert account["requests"] == len(lists) and account["tasks"] == 12 and account["rows"] == 24
    assert account["dropped"]["names an image, a graph, a file or the like"] == len(lists)
    assert account["dropped"]["too like another"] >= len(lists)
    assert account["dropped"]["no usable instance"] == account["dropped"]["instance: no output"] > 0
    offered = 4 * len(lists)
    kept = 12 + sum(account["dropped"][name] for name in account["dropped"] if not name.startswith("instance"))
    assert offered - 2 <= kept <= offered  # the last reply may hold more than were wanted
    assert {(body["temperature"], body["top_p"]) for body in lists} == {(0.7, 0.5)}
    assert any(message.startswith("dropped: ") for message in told) and "--data_file" in told[-1]


def test_a_request_shows_six_seeds_and_two_grown(tmp_path: Path) -> None:
    seeds_in(tmp_path)
    with ChatServer(poet) as server:
        grow(config_of(tmp_path, server, count=20))
    known = {seed["instruction"] for seed in SEEDS}
    shown = [listed(prompt) for prompt in server.prompts if prompt.startswith("Come up")]
    assert all(len(instructions) == 8 == len(set(instructions)) for instructions in shown)
    assert [len(known & set(shown[index])) for index in (0, -1)] == [8, 6]
    assert any(not known & set(instructions[:1]) for instructions in shown[1:])  # they are shuffled


def test_the_same_seed_gives_the_same_rows(tmp_path: Path) -> None:
    seeds_in(tmp_path)
    outs = [tmp_path / name for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    with ChatServer(poet) as server:
        for out, seed in zip(outs, (1, 1, 2), strict=True):
            grow(config_of(tmp_path, server, out=out, seed=seed))
    first, second, third = (out.read_bytes() for out in outs)
    assert first == second != third


def test_a_run_that_ended_early_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    seeds_in(tmp_path)
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    with ChatServer(poet) as server:
        grow(config_of(tmp_path, server, out=whole))
        asked = len(server.bodies)
    ends = pytest.raises(GenerationError, match="the same command goes on")
    with ChatServer(lambda prompt: poet(prompt) if len(server.bodies) < 8 else BUSY) as server, ends:
        grow(config_of(tmp_path, server, out=cut, requests_at_once=1))
    assert not cut.exists()
    told: list[str] = []
    with ChatServer(poet) as server:
        grow(config_of(tmp_path, server, out=cut), told.append)
        assert len(server.bodies) == asked - 7 and told[0] == "7 replies are there; going on from them."
        before = len(server.bodies)
        grow(config_of(tmp_path, server, out=cut, overwrite=True))
        assert len(server.bodies) == before
        assert cut.read_bytes() == whole.read_bytes()
        grow(config_of(tmp_path, server, out=cut, overwrite=True, count=15))  # more: the first are the same
    assert cut.read_bytes().startswith(whole.read_bytes()) and cut.read_bytes() != whole.read_bytes()


def test_a_model_that_repeats_itself_ends(tmp_path: Path) -> None:
    seeds_in(tmp_path)
    with ChatServer(lambda prompt: "Sing of quinces in the rain." if "Come" in prompt else "Output: La!") as server:
        told: list[str] = []
        grow(config_of(tmp_path, server, patience=3), told.append)
        assert sum(prompt.startswith("Come") for prompt in server.prompts) == 4
        assert any("only 1 were found: the last 3 requests gave no new one" in message for message in told)
        server.answer = lambda prompt: "1. Draw."
        with pytest.raises(DataError, match="3 requests gave no task that can be used: 3 shorter than 4 words"):
            grow(config_of(tmp_path, server, patience=3, out=tmp_path / "none.jsonl", seed=9))
    assert not (tmp_path / "none.jsonl").exists()


def test_what_is_refused(tmp_path: Path) -> None:
    seeds_in(tmp_path, 7)
    with ChatServer(poet) as server:
        with pytest.raises(DataError, match="holds 7 tasks; each request shows 8"):
            grow(config_of(tmp_path, server))
        seeds_in(tmp_path)
        (tmp_path / "grown.jsonl").write_text("mine")
        with pytest.raises(DataError, match="is there already"):
            grow(config_of(tmp_path, server))
        for changes, sentence in (
            ({"checkpoint_dir": tmp_path}, "one of them"),
            ({"endpoint": None, "model": None}, "Give --checkpoint_dir"),
            ({"out": tmp_path / "grown.json"}, r"must end in .jsonl, such as .*grown.jsonl"),
            ({"count": 0}, "count is 0"),
            ({"top_p": 0.0}, "top_p is 0.0"),
        ):
            with pytest.raises(ConfigError, match=sentence):
                config_of(tmp_path, server, **changes)
        assert server.bodies == []


@pytest.mark.parametrize(
    ("instruction", "fault"),
    [
        ("Name three kinds of plum.", None),
        ("Name three plums", "shorter than 4 words"),
        ("word " * 151, "longer than 150 words"),
        ("Describe the picture in words.", "names an image, a graph, a file or the like"),
        ("Please go to the shop now.", "names an image, a graph, a file or the like"),
        ("Name three kinds of paragraph.", None),
        ("Write a program that sings songs.", "begins with: write a program"),
        ("(a) is it really so?", "begins with punctuation"),
        ("Écris un poème sur Rome.", "begins with a character that is not English"),
    ],
)
def test_the_filters_of_the_paper(instruction: str, fault: str | None) -> None:
    assert fault_of(instruction) == fault


@pytest.mark.parametrize(
    ("reply", "is_whole", "found"),
    [
        (" Sing a song.\n10. Dance\n a dance.", True, ["Sing a song.", "Dance a dance."]),
        ("9. Sing a song.\n\n10) Dance.", True, ["Sing a song.", "Dance."]),
        ("Here are more tasks:\n\n**9.** Sing.\n", True, ["Sing."]),
        ("<think>\n1. no\n</think>9. Sing.", True, ["Sing."]),
        (" Sing a song.\n10. Dance a da", False, ["Sing a song."]),
        ("", True, []),
    ],
)
def test_lists_as_models_write_them(reply: str, is_whole: bool, found: list[str]) -> None:
    dropped: Counter[str] = Counter()
    assert read_list(reply, is_whole, dropped) == found
    assert dropped == ({} if is_whole else {"cut off": 1})


@pytest.mark.parametrize(
    ("reply", "found", "dropped"),
    [
        ("Output: one\ntwo", [("", "one\ntwo")], {}),
        ("Input: None\nOutput: one", [("", "one")], {}),
        ("**Example 1**\n**Input:** a\n**Output:** b", [("a", "b")], {}),
        ("Example 1\nInput: a\nOutput: b\nInput: c\nOutput: d", [("a", "b")], {}),
        (
            "Example 1\nInput: a\nOutput: b\nExample 2\nInput: a\nOutput: c",
            [],
            {"another output for the same input": 2},
        ),
        ("Example 1\nInput: a\nOutput: b\n\nExample 2\nInput: a\nOutput: b", [("a", "b")], {"equal to another": 1}),
        (
            "Example 1\nInput: a\nOutput: a\nExample 2\nInput: b\nOutput:",
            [],
            {"the output is the input": 1, "no output": 1},
        ),
        ("Input: a\nOutput: as follows:", [], {"ends in a colon": 1}),
        ("I cannot.", [], {"no output": 1}),
        (
            "".join(f"Example {number}\nInput: {number}\nOutput: x\n" for number in range(7)),
            [(str(number), "x") for number in range(5)],
            {"beyond the first five": 2},
        ),
    ],
)
def test_cases_as_models_write_them(reply: str, found: list[tuple[str, str]], dropped: dict[str, int]) -> None:
    counts: Counter[str] = Counter()
    assert list(read_instances(reply, True, counts)) == found
    assert +counts == {f"instance: {reason}": count for reason, count in dropped.items()}


def test_a_case_that_was_cut_is_dropped() -> None:
    counts: Counter[str] = Counter()
    assert read_instances("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: lo", False, counts) == (
        ("a", "b"),
    )
    assert +counts == {"instance: cut off": 1}


def test_the_prompts_as_text() -> None:
    assert list_prompt(["Sing a\nsong:", "Dance."]).splitlines()[1:] == ["", "1. Sing a song", "2. Dance.", "3."]
    seeds = [
        Task("Add.", (Instance("1 1", "2"),)),
        Task("Sing.", (Instance("", "La"),)),
        Task("Long.", (Instance("x" * 600, "y"),)),
    ]
    told = task_prompt("Do it.", seeds, random.Random(0))
    assert "Task: Add.\nExample 1\nInput: 1 1\nOutput: 2\n" in told and "Task: Sing.\nOutput: La\n" in told
    assert told.endswith("\n\nTask: Do it.\n") and "Long." not in told


def plain_rouge_l(first: list[str], second: list[str]) -> float:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    length = table[-1][-1]
    if not length:
        return 0.0
    precision, recall = length / len(first), length / len(second)
    return 2 * precision * recall / (precision + recall)


LISTS = st.lists(st.sampled_from("abcde"), max_size=80)


@given(LISTS, LISTS, st.lists(LISTS, max_size=4))
def test_rouge_is_that_of_the_plain_table(first: list[str], second: list[str], others: list[list[str]]) -> None:
    assert rouge_l(first, second) == pytest.approx(plain_rouge_l(first, second))
    assert nearest(first, others) == pytest.approx(max((plain_rouge_l(first, other) for other in others), default=0.0))


def test_words_are_those_of_rouge() -> None:
    assert words_of("Don't SAY 'x-1'!") == ["don", "t", "say", "x", "1"]


def test_tasks_of_one_reply_are_compared_too(tmp_path: Path) -> None:
    seeds_in(tmp_path)
    twins = "Sing of quinces in the rain.\n10. Sing of quinces in the snow.\n11. Praise my old clock at noon."
    with ChatServer(lambda prompt: twins if "Come" in prompt else "Output: La!") as server:
        grow(config_of(tmp_path, server, count=2))
    instructions = [json.loads(line)["instruction"] for line in (tmp_path / "grown.jsonl").read_text().splitlines()]
    assert instructions == ["Sing of quinces in the rain.", "Praise my old clock at noon."]
    assert load_yaml(tmp_path / "grown.yaml")["dropped"] == {"too like another": 1}
