"""Each dataset of conversations: the rows of its schema, what is rejected, and the published files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_rows import reasons, rows_of, talk, turns_in, write, write_lines, write_parquet
from tiny_text import SHARED, write_checkpoint

from litft.config.prepare import PrepareConfig
from litft.data.prepare import prepare
from litft.data.reading.rows import Rejected, Row
from litft.data.reading.turns import OPEN_QUESTION
from litft.data.sources.sharegpt import LEADING_ANSWER
from litft.errors import DataError


def said(*pairs: tuple[str, object]) -> dict[str, Any]:
    """A row of ShareGPT's form."""
    return {"id": "1", "conversations": [{"from": role, "value": text} for role, text in pairs]}


def chat(*pairs: tuple[str, object]) -> dict[str, Any]:
    """A row of OpenAI's form."""
    return {"messages": [{"role": role, "content": text} for role, text in pairs]}


HEADED = "### Human: What is\nred?### Assistant: A colour.### Human: And blue?\n### Assistant: ### one too"
BRACKETED = "<s>[INST] What is\nred? [/INST] A colour. </s><s>[INST] And blue? [/INST] Another </s>"
ALPACA = {"instruction": "a", "input": "", "output": "b", "text": "all"}
ONE_TURN = [
    ("alpaca_gpt4", ALPACA),
    ("alpaca_2k", ALPACA),
    ("longform", {"input": "a", "output": "b", "source": "Wiki", "subset": "x"}),
    ("guanaco", {"text": "### Human: a### Assistant: b"}),
    ("sharegpt", said(("human", "a"), ("gpt", "b"))),
    ("magpie", {"instruction": "a", "response": "b", "conversations": None}),
    ("messages", chat(("user", "a"), ("assistant", "b"))),
]


@pytest.mark.parametrize(("name", "row"), ONE_TURN)
def test_the_same_rows_of_every_form(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    lines = write_lines(tmp_path / "a.jsonl", row, row)
    listed = write(tmp_path / "a.json", json.dumps([row, row], indent=0))
    assert rows_of(name, lines) == [talk(1, "a", "b"), talk(2, "a", "b")]
    assert [row.conversation for row in rows_of(name, listed) if isinstance(row, Row)] == [
        talk(1, "a", "b").conversation
    ] * 2


@pytest.mark.parametrize(("name", "row"), ONE_TURN)
def test_the_same_rows_of_parquet(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    path = write_parquet(tmp_path / "a.parquet", row, row, row)
    assert rows_of(name, path) == [talk(line, "a", "b") for line in (1, 2, 3)]


@pytest.mark.parametrize(("name", "row"), ONE_TURN)
def test_faults_of_the_file_stop_at_once(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    good = json.dumps(row) + "\n"
    for content, words in (
        (good + '{"a": ', "line 2 is not valid JSON"),
        (good.encode() + b'{"a": "\xff"}', "line 2 is not UTF-8 (byte 8 of the line is 0xff)"),
        (good + "[1]", "line 2 holds [1]; each row must be a JSON object"),
    ):
        with pytest.raises(DataError) as caught:
            rows_of(name, write(tmp_path / "file", content))
        assert words in str(caught.value) and str(tmp_path / "file") in str(caught.value)
    assert rows_of(name, write(tmp_path / "empty", "")) == []
    with pytest.raises(DataError, match=r"Cannot read .*: Is a directory"):
        rows_of(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("alpaca_gpt4", {**ALPACA, "input": None}, talk(1, "a", "b")),
        ("guanaco", {"text": HEADED}, talk(1, "What is\nred?", "A colour.", "And blue?", "### one too")),
        ("guanaco", {"text": BRACKETED}, talk(1, "What is\nred?", "A colour.", "And blue?", "Another")),
        ("guanaco", {"text": "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\na [/INST] b"},
         talk(1, "a", "b", system="Be kind.")),
        ("guanaco", {"text": "### Human: a### Assistant: b### Human: c"}, talk(1, "a", "b", notes=(OPEN_QUESTION,))),
        ("guanaco", {"text": "### Human: the [INST] mark### Assistant: <s>"}, talk(1, "the [INST] mark", "<s>")),
        ("sharegpt", said(("system", "s"), ("human", "a"), ("gpt", "b"), ("user", "c"), ("chatgpt", "d")),
         talk(1, "a", "b", "c", "d", system="s")),
        ("sharegpt", said(("user", "a"), ("bing", "b"), ("user", "c"), ("bard", "d")), talk(1, "a", "b", "c", "d")),
        ("sharegpt", said(("gpt", "x"), ("human", "a"), ("gpt", "b")), talk(1, "a", "b", notes=(LEADING_ANSWER,))),
        ("sharegpt", said(("system", "s"), ("gpt", ""), ("human", "a"), ("gpt", "b"), ("human", "c")),
         talk(1, "a", "b", system="s", notes=(LEADING_ANSWER, OPEN_QUESTION))),
        ("magpie", {**said(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")), "instruction": "a",
                    "response": "b", "instruction_2": "c", "response_2": "d"}, talk(1, "a", "b", "c", "d")),
        ("magpie", {"instruction": "a", "responses": ["b", "c"]}, talk(1, "a", "b")),
        ("magpie", {"instruction": "a", "responses": ["b", "c", "d"], "rewards": [-3, 2.5, 2.5]}, talk(1, "a", "c")),
        ("magpie", {"instruction": "a", "responses": [None, "c"], "reward": [0, 1]}, talk(1, "a", "c")),
        ("magpie", {"instruction": "a", "response": "b", "responses": None, "reward": 0.5}, talk(1, "a", "b")),
        ("messages", chat(("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
         talk(1, "a", "b", "c", "d", system="s")),
        ("messages", {**chat(("user", "a"), ("assistant", "b")), "prompt": "p"}, talk(1, "a", "b")),
        ("messages", {"prompt": "a", "completion": " b"}, talk(1, "a", " b")),
        ("messages", {"messages": None, "prompt": chat(("system", "s"), ("user", "a"))["messages"],
                      "completion": chat(("assistant", "b"))["messages"]}, talk(1, "a", "b", system="s")),
        ("messages", {"prompt": "a", "completion": chat(("assistant", "b"))["messages"]}, talk(1, "a", "b")),
    ],
)  # fmt: skip
def test_rows(tmp_path: Path, name: str, row: dict[str, Any], expected: Row) -> None:
    assert rows_of(name, write_lines(tmp_path / "a.jsonl", row)) == [expected]


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("alpaca_2k", {"instruction": "a", "input": "b"}, 'no "output" (found "instruction", "input")'),
        ("alpaca_gpt4", {**ALPACA, "output": ""}, '"output" is empty'),
        ("longform", {"input": None, "output": "b"}, '"input" is null, not text'),
        ("longform", {"instruction": "a", "output": "b"}, 'no "input" (found "instruction", "output")'),
        ("longform", {"input": "a", "output": ["b"]}, '"output" is list, not text'),
        ("guanaco", {"messages": []}, 'no "text" (found "messages")'),
        ("guanaco", {"text": None}, '"text" is null, not text'),
        ("guanaco", {"text": "Human: hello"}, '"text" begins with "Human: hello"; expected "### Human:" or "[INST]"'),
        ("guanaco", {"text": "Hi ### Human: a### Assistant: b"},
         '"text" begins with "Hi ### Human: a### Assistant: b"; expected "### Human:" or "[INST]"'),
        ("guanaco", {"text": "<s> a [INST] b [/INST] c"},
         '"text" begins with "<s> a [INST] b [/INST] c"; expected "<s>[INST]"'),
        ("guanaco", {"text": "### Human: a### Assistant: \n"}, "message 2 (assistant) is empty"),
        ("guanaco", {"text": "### Human: a### Assistant: b### Assistant: c"},
         "two messages of the assistant in a row (the second is message 3)"),
        ("guanaco", {"text": "<s>[INST] a [/INST] </s>"}, "message 2 (assistant) is empty"),
        ("guanaco", {"text": "[INST] a [INST] b [/INST] c"},
         "two messages of the user in a row (the second is message 2)"),
        ("sharegpt", {"items": []}, 'no "conversations" (found "items")'),
        ("sharegpt", {"conversations": "a"}, '"conversations" is str, not a list of messages'),
        ("sharegpt", {"conversations": ["a", "b"]},
         'message 1 of "conversations" is str, not an object with "from" and "value"'),
        ("sharegpt", {"conversations": [{"role": "user", "content": "a"}]},
         'message 1 of "conversations" has no "from" (found "role", "content")'),
        ("sharegpt", said(("human", "a"), ("narrator", "b")),
         'message 2 has the role "narrator"; expected one of user, assistant, system, tool'),
        ("sharegpt", said(("human", "a"), ("gpt", "b"), ("gpt", "c")),
         "two messages of the assistant in a row (the second is message 3)"),
        ("sharegpt", said(("gpt", "b")), "no answer (0 messages)"),
        ("sharegpt", said(("human", "a"), ("gpt", None)), "message 2 (assistant) is null, not text"),
        ("magpie", {"instruction": "a"}, 'no "response" (found "instruction")'),
        ("magpie", {"instruction": None, "response": "b"}, '"instruction" is null, not text'),
        ("magpie", {"instruction": "a", "responses": []}, '"responses" is an empty list, not a list of texts'),
        ("magpie", {"instruction": "a", "responses": "b"}, '"responses" is str, not a list of texts'),
        ("magpie", {"instruction": "a", "responses": ["b", ""], "rewards": [0, 1]}, '"responses[1]" is empty'),
        ("magpie", {"instruction": "a", "responses": ["b", "c"], "rewards": [1]},
         '"rewards" has 1 numbers for 2 responses'),
        ("magpie", {"instruction": "a", "responses": ["b", "c"], "reward": [1, None]},
         '"reward" holds null, not numbers alone'),
        ("magpie", said(("human", "a"), ("gpt", "")), "message 2 (assistant) is empty"),
        ("messages", {"text": "a"}, 'no "messages" (found "text")'),
        ("messages", {"prompt": "a"}, 'no "messages" (found "prompt")'),
        ("messages", {"completion": "a"}, 'no "prompt" (found "completion")'),
        ("messages", {"messages": {"role": "user"}}, '"messages" is dict, not a list of messages'),
        ("messages", {"messages": [{"role": "user", "content": "a"}, "b"]},
         'message 2 of "messages" is str, not an object with "role" and "content"'),
        ("messages", chat(("user", "a"), ("tool", "c"), ("assistant", "d")),
         "message 2 (tool) stands behind one of the user"),
        ("messages", {"messages": [{"role": "user", "content": "a"},
                                   {"role": "assistant", "content": "b", "tool_calls": "add"}]},
         '"tool_calls" of message 2 of "messages" is str, not a list of objects'),
        ("messages", {"messages": [{"role": "user", "content": "a"},
                                   {"role": "assistant", "content": "b", "weight": 0.5}]},
         '"weight" of message 2 of "messages" is 0.5; 0 leaves it without loss, 1 is the rule'),
        ("messages", {"messages": [], "tools": "add"}, '"tools" is not a list of objects'),
        ("messages", chat(("human", "a"), ("assistant", "b")),
         'message 1 has the role "human"; expected one of user, assistant, system, tool'),
        ("messages", {"prompt": None, "completion": "b"}, "message 1 (user) is null, not text"),
        ("messages", {"prompt": "a", "completion": ""}, "message 2 (assistant) is empty"),
        ("messages", {"prompt": ["a"], "completion": "b"},
         'message 1 of "prompt" is str, not an object with "role" and "content"'),
    ],
)  # fmt: skip
def test_rejected_rows(tmp_path: Path, name: str, row: dict[str, Any], reason: str) -> None:
    good = next(good for known, good in ONE_TURN if known == name)
    rows = rows_of(name, write_lines(tmp_path / "a.jsonl", good, row, good))
    assert reasons(rows) == [(2, reason)] and len(rows) == 3
    assert all(row.is_fault for row in rows if isinstance(row, Rejected))


@pytest.mark.parametrize(
    ("name", "file", "turns"),
    [
        ("alpaca_gpt4", "alpaca_gpt4/alpaca_gpt4_data.json", {1: 800}),
        ("alpaca_2k", "alpaca_gpt4/alpaca_gpt4_data.json", {1: 800}),
        ("guanaco", "guanaco/train.jsonl", {1: 188, 2: 106, 3: 6}),
        ("sharegpt", "sharegpt/sharegpt.json", {1: 2, 5: 1}),
        ("sharegpt", "sharegpt/dummy_conversation.json", {1: 83, 2: 83, 3: 84}),
        ("magpie", "magpie/example_instructions_5res.json", {1: 5}),
        ("messages", "p3/p3_sample.jsonl", {1: 480}),
    ],
)
def test_published_files(tmp_path: Path, name: str, file: str, turns: dict[int, int]) -> None:
    if not (SHARED / file).is_file():
        pytest.skip("shared data is absent")
    rows = rows_of(name, SHARED / file)
    assert reasons(rows) == []
    assert Counter(len(turns_in(row.conversation)) for row in rows if isinstance(row, Row)) == turns
    config = PrepareConfig(
        checkpoint_dir=write_checkpoint(tmp_path / "tiny", block_size=32768),
        data_file=SHARED / file,
        destination_path=tmp_path / "prepared",
        max_seq_length=32768,
    )
    counts = prepare(name, config).ledgers[name].counts()
    read, duplicate = counts["rows_read"], counts["rows_duplicate"]
    assert read == sum(turns.values()) and duplicate < read / 2
    assert counts["rows_kept_train"] + counts["rows_kept_test"] == read - duplicate


def test_guanaco_leaves_no_mark_in_a_published_text() -> None:
    path = SHARED / "guanaco" / "train.jsonl"
    if not path.is_file():
        pytest.skip("shared data is absent")
    for row in rows_of("guanaco", path):
        assert isinstance(row, Row)
        for turn in turns_in(row.conversation):
            assert not any(mark in turn.instruction + turn.response for mark in ("[INST]", "[/INST]", "<s>", "</s>"))
