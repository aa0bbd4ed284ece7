"""OpenAssistant's trees: which paths are read, and what becomes of deleted, foreign and stray messages."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_rows import reasons, rows_of, talk, turns_in, write, write_lines, write_parquet
from tiny_text import SHARED, write_checkpoint

from litft.checkpoint.disk import sha256_file
from litft.config.io import load_yaml
from litft.config.prepare import PrepareOasst1Config
from litft.data.prepare import prepare
from litft.data.reading.rows import Rejected, Row
from litft.errors import DataError

DELETED, STRAY = "a deleted message", "a message whose parent is not in the file"


def ask(text: str, *replies: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A question with its replies."""
    return {"text": text, "role": "prompter", "lang": "en", "deleted": False, "replies": list(replies), **fields}


def answer(text: str, *replies: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An answer with its replies."""
    return {**ask(text, *replies), "role": "assistant", **fields}


def tree(prompt: dict[str, Any]) -> dict[str, Any]:
    """One line of a file of trees."""
    return {"message_tree_id": prompt["text"], "tree_state": "ready_for_export", "prompt": prompt}


def flat(prompt: dict[str, Any], parent: str | None = None) -> Iterator[dict[str, Any]]:
    """The same tree as flat messages, named by their texts."""
    fields = {key: value for key, value in prompt.items() if key != "replies"}
    yield {"message_id": prompt["text"], "parent_id": parent, "rank": None, "detoxify": {"toxicity": 0.1}, **fields}
    for reply in prompt["replies"]:
        yield from flat(reply, prompt["text"])


RICH = ask(
    "q",
    answer("unranked", ask("q1", answer("a1"))),
    answer("second", rank=1),
    answer("best", ask("q2"), ask("q3", answer("worse", rank=2), answer("better", ask("open"), rank=0)), rank=0),
)
BEST = [("q", "best", "q3", "better")]
ALL = [("q", "unranked", "q1", "a1"), ("q", "second"), ("q", "best", "q3", "worse"), ("q", "best", "q3", "better")]


@pytest.mark.parametrize(("paths", "expected"), [("best", BEST), ("all", ALL)])
@pytest.mark.parametrize("form", ["trees", "messages", "parquet", "gz"])
def test_paths_of_every_form(tmp_path: Path, form: str, paths: str, expected: list[tuple[str, ...]]) -> None:
    messages = list(flat(RICH))
    if form == "trees":
        path = write_lines(tmp_path / "a.jsonl", tree(RICH))
    elif form == "messages":
        path = write_lines(tmp_path / "a.jsonl", *messages)
    elif form == "parquet":
        path = write_parquet(tmp_path / "a.parquet", *messages)
    else:
        path = write(tmp_path / "a.trees.jsonl.gz", gzip.compress(json.dumps(tree(RICH)).encode()))
    assert rows_of("oasst1", path, paths=paths) == [talk(1, *texts) for texts in expected]


def test_the_best_path_is_the_default(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", tree(RICH), tree(ask("x", answer("y"))))
    assert rows_of("oasst1", path) == [talk(1, *BEST[0]), talk(2, "x", "y")]


def test_messages_in_any_order_make_the_same_trees(tmp_path: Path) -> None:
    messages = [*flat(RICH), *flat(ask("x", answer("y")))]
    path = write_lines(tmp_path / "a.jsonl", *reversed(messages))
    assert rows_of("oasst1", path) == [talk(2, "x", "y"), talk(len(messages), *BEST[0])]


def test_what_was_deleted_goes_with_its_replies(tmp_path: Path) -> None:
    prompt = ask("q", answer("gone", ask("q1", answer("a1", deleted=True)), deleted=True, rank=0), answer("b", rank=1))
    gone = ask("gone too", answer("a"), deleted=True)
    trees = write_lines(tmp_path / "trees.jsonl", tree(prompt), tree(gone))
    assert rows_of("oasst1", trees) == [Rejected(1, DELETED, False), talk(1, "q", "b"), Rejected(2, DELETED, False)]
    messages = write_lines(tmp_path / "messages.jsonl", *flat(prompt), *flat(gone))
    assert rows_of("oasst1", messages) == [Rejected(2, DELETED, False), talk(1, "q", "b"), Rejected(6, DELETED, False)]


def test_languages(tmp_path: Path) -> None:
    german = ask("f", answer("a", lang="de"), lang="de")
    mixed = ask("q", answer("antwort", lang="de", rank=0), answer("b", rank=1))
    path = write_lines(tmp_path / "a.jsonl", tree(german), tree(mixed))
    english = rows_of("oasst1", path, language=("en",))
    assert [row for row in english if isinstance(row, Row)] == [talk(2, "q", "b")]
    told = 'a message whose language is "de", not en'
    assert reasons(english) == [(1, told), (2, told)]
    assert not any(row.is_fault for row in english if isinstance(row, Rejected))
    assert rows_of("oasst1", path, language=("en", "de")) == [talk(1, "f", "a"), talk(2, "q", "antwort")]


def test_a_question_without_an_answer(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", tree(ask("q")), tree(ask("q", answer("a", deleted=True))))
    assert rows_of("oasst1", path) == [
        Rejected(1, "a question without an answer"),
        Rejected(2, DELETED, False),
        Rejected(2, "a question without an answer", False),
    ]


def test_messages_that_belong_to_no_tree(tmp_path: Path) -> None:
    rows = [
        *flat(ask("q", answer("a"))),
        *flat(answer("stray", ask("below", answer("it"))), "elsewhere"),
        *flat(answer("round"), "and"),
        *flat(ask("and"), "round"),
        *flat(ask("q", answer("again"))),
    ]
    assert rows_of("oasst1", write_lines(tmp_path / "a.jsonl", *rows)) == [
        Rejected(8, 'the message_id "q" is there twice'),
        Rejected(3, STRAY, False),
        Rejected(6, "a message whose parents run in a circle"),
        Rejected(7, "a message whose parents run in a circle"),
        talk(1, "q", "a"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a"}, 'no "prompt" (found "text")'),
        (tree({"text": "q"}) | {"prompt": {"text": "q"}}, 'no "role" (found "text")'),
        ({"prompt": {**ask("q"), "replies": ["a"]}}, '"replies" holds str, not messages'),
        ({"prompt": {**ask("q"), "replies": {"a": 1}}}, 'a reply: no "role" (found "a")'),
        ({"prompt": {**ask("q"), "replies": 3}}, '"replies" holds int, not messages'),
        ({"prompt": ask("q", {"role": "assistant"})}, 'a reply: no "text" (found "role")'),
        (tree(ask("q", answer(""))), "message 2 (assistant) is empty"),
        (tree(ask("q", {**answer("a"), "text": None})), "message 2 (assistant) is null, not text"),
        (tree(ask("q", {**answer("a"), "role": "critic"})),
         'message 2 has the role "critic"; expected one of user, assistant, system, tool'),
        (tree(ask("q", answer("a", answer("b")))), "two messages of the assistant in a row (the second is message 3)"),
        (tree(answer("a", ask("q", answer("b")))), "message 1 (assistant) stands where a question (user) is expected"),
        ({"message_id": None, "text": "a", "role": "prompter"}, '"message_id" is null, not text'),
        ({"message_id": "x", "text": "a"}, 'no "role" (found "message_id", "text")'),
    ],
)  # fmt: skip
def test_rejected_rows(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    rows = rows_of("oasst1", write_lines(tmp_path / "a.jsonl", tree(ask("q", answer("a"))), row))
    assert talk(1, "q", "a") in rows and reasons(rows) == [(2, reason)]
    assert all(row.is_fault for row in rows if isinstance(row, Rejected))


def test_depth_is_no_limit(tmp_path: Path) -> None:
    def named(number: int) -> dict[str, Any]:
        role = "assistant" if number % 2 else "prompter"
        parent = str(number - 1) if number else None
        return {"message_id": str(number), "parent_id": parent, "text": str(number), "role": role}

    path = write_lines(tmp_path / "a.jsonl", *map(named, range(5000)))
    (row,) = rows_of("oasst1", path)
    assert isinstance(row, Row) and len(turns_in(row.conversation)) == 2500


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"not gzip", "is no gzip file"), (gzip.compress(b'{"a": 1}\n' * 50, mtime=0)[:-12], "is no whole gzip file")],
)
def test_a_damaged_gzip_file(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path / "a.jsonl.gz", content)
    with pytest.raises(DataError) as caught:
        rows_of("oasst1", path)
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_what_is_left_out_is_counted_and_no_fault(tmp_path: Path) -> None:
    rows = [tree(ask(f"q{index}", answer("a"), lang="en" if index % 2 else "de")) for index in range(8)]
    path = write_lines(tmp_path / "a.jsonl", *rows, tree(ask("x", answer("gone", deleted=True), answer("b"))))
    config = PrepareOasst1Config(
        checkpoint_dir=write_checkpoint(tmp_path / "tiny"),
        data_file=path,
        destination_path=tmp_path / "prepared",
        language=("en",),
        paths="all",
    )
    messages: list[str] = []
    prepare("oasst1", config, messages.append)
    source = load_yaml(tmp_path / "prepared" / "manifest.yaml")["sources"]["oasst1"]
    assert (source["rows_read"], source["rows_rejected"]) == (10, 9 - 4)
    assert source["options"] == {"paths": "all", "language": ["en"]}
    assert source["files"] == [{"file": "a.jsonl", "sha256": sha256_file(path)}]
    told = 'a message whose language is "de", not en'
    assert source["rejected_reasons"] == {told: 4, DELETED: 1}
    assert f"left out 4 times: {told}" in messages and f"left out 1 times: {DELETED}" in messages


def test_only_other_languages_leave_nothing(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", tree(ask("q", answer("a"))))
    config = PrepareOasst1Config(checkpoint_dir=write_checkpoint(tmp_path / "t"), data_file=path, language=("eng",))
    with pytest.raises(DataError, match=r'1 of 1 rows of .* \(line 1: a message whose language is "en", not eng\)'):
        prepare("oasst1", config)


def published(name: str) -> Path:
    """Gives a real file, or skips the test."""
    path = SHARED / "oasst1" / name
    if not path.is_file():
        pytest.skip("shared data is absent")
    return path


def paths_below(message: dict[str, Any]) -> Iterator[list[str]]:
    """Gives every path to a last answer, in the plainest way."""
    below = [path for reply in message["replies"] for path in paths_below(reply)]
    if below:
        yield from ([message["text"], *path] for path in below)
    elif message["role"] == "assistant":
        yield [message["text"]]


def test_published_trees() -> None:
    path = published("trees.jsonl")
    trees = [json.loads(line)["prompt"] for line in path.read_text(encoding="utf-8").splitlines()]
    expected = [talk(line, *texts) for line, prompt in enumerate(trees, start=1) for texts in paths_below(prompt)]
    assert rows_of("oasst1", path, paths="all") == expected and len(expected) == 321
    best = rows_of("oasst1", path)
    assert reasons(best) == [] and [row.line for row in best] == list(range(1, 61))
    assert all(row in expected for row in best)
    for row, prompt in zip(best, trees, strict=True):
        assert isinstance(row, Row)
        ranked = [reply["text"] for reply in prompt["replies"] if reply.get("rank") == 0]
        assert turns_in(row.conversation)[0].response in (ranked or [prompt["replies"][0]["text"]])


def test_published_messages() -> None:
    rows = rows_of("oasst1", published("messages.jsonl"), language=("en",))
    told = [reason for _, reason in reasons(rows)]
    assert (told.count(DELETED), told.count(STRAY), len(told)) == (10, 2, 12)
    assert sum(isinstance(row, Row) for row in rows) == 74


@pytest.mark.parametrize("name", ["trees.jsonl", "messages.jsonl"])
def test_published_files_prepare(tmp_path: Path, name: str) -> None:
    config = PrepareOasst1Config(
        checkpoint_dir=write_checkpoint(tmp_path / "tiny", block_size=4096),
        data_file=published(name),
        destination_path=tmp_path / "prepared",
        max_seq_length=4096,
    )
    counts = prepare("oasst1", config).ledgers["oasst1"].counts()
    assert counts["rows_kept_train"] > 40 and counts["rows_kept_test"] > 4
