"""Datasets of several files, parquet and folders: what is read, in which order, and how each file is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from templates import UNSERVED, marked_folder
from tiny_rows import talk, write, write_lines, write_parquet
from tiny_text import write_checkpoint

from litft.checkpoint.disk import sha256_file
from litft.config.io import load_yaml
from litft.config.prepare import PrepareFileConfig
from litft.data.prepare import prepare
from litft.data.reading.hub import file_labels, find_files
from litft.data.reading.local import folder_faults
from litft.data.reading.parquet import iter_parquet_rows, unreadable
from litft.data.sources import SOURCES
from litft.errors import DataError


def pair(question: str, answer: str) -> dict[str, str]:
    """A row of the dataset `messages`."""
    return {"prompt": question, "completion": answer}


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.txt"):
        write_lines(tmp_path / name, pair(name, "x"))
    assert find_files(SOURCES["messages"], tmp_path, None) == [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]


def test_the_first_kind_of_file_that_a_folder_has(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("README.json", "data/train-1.parquet", "data/train-0.parquet"):
        write(tmp_path / name, "{}")
    found = find_files(SOURCES["magpie"], tmp_path, None)
    assert found == [tmp_path / "data" / "train-0.parquet", tmp_path / "data" / "train-1.parquet"]


def test_other_files_of_a_folder_are_named(tmp_path: Path) -> None:
    folder, messages = tmp_path / "chats", []
    folder.mkdir()
    for name in ("a.json", "b.jsonl", "c.txt"):
        write_lines(folder / name, pair(name, "x"), pair(name, "y"))
    write(folder / "dataset_info.json", "{}")
    config = PrepareFileConfig(
        checkpoint_dir=write_checkpoint(tmp_path / "tiny"), data_file=folder, destination_path=tmp_path / "prepared"
    )
    prepare("messages", config, messages.append)
    assert f'WARNING: Not read of {folder}: "b.jsonl"; of this folder only *.json is read.' in messages
    (folder / "a.json").unlink()
    assert find_files(SOURCES["messages"], folder, None) == [folder / "b.jsonl"]
    assert folder_faults(SOURCES["messages"], folder) == []


def test_missing_parts_of_a_folder_are_named(tmp_path: Path) -> None:
    for name in ("a-00000-of-00003-ff.jsonl", "a-00002-of-00003-ff.jsonl", "b-0-of-1.jsonl", "._a.jsonl"):
        write_lines(tmp_path / name, pair(name, "x"))
    assert folder_faults(SOURCES["messages"], tmp_path) == [f"{tmp_path} has 2 of the 3 files a-*-of-00003.jsonl."]
    assert len(find_files(SOURCES["messages"], tmp_path, None)) == 3
    write(tmp_path / "c.jsonl", "")
    with pytest.raises(DataError, match=r"holds c\.jsonl, which is empty"):
        find_files(SOURCES["messages"], tmp_path, None)


def test_prompts_that_no_server_feeds_are_told(tmp_path: Path) -> None:
    messages: list[str] = []
    config = PrepareFileConfig(
        checkpoint_dir=marked_folder(tmp_path / "tiny"),
        data_file=write_lines(tmp_path / "a.jsonl", pair("a", "x"), pair("b", "y")),
        destination_path=tmp_path / "prepared",
        prompt_style=str(write(tmp_path / "chat.jinja", UNSERVED)),
    )
    prepare("messages", config, messages.append)
    [warning] = [message for message in messages if message.startswith("WARNING")]
    assert "before 2 of 2 answers a server feeds another prompt" in warning and "--prompt_style" in warning


def test_folders_that_hold_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no \*\.parquet or \*\.json or \*\.jsonl; it holds no files"):
        find_files(SOURCES["messages"], tmp_path, None)
    write(tmp_path / "a.csv", "")
    with pytest.raises(DataError, match=r"has no .*; it holds a\.csv"):
        find_files(SOURCES["sharegpt"], tmp_path, None)
    with pytest.raises(DataError, match=r"is a folder, not a file; it holds a\.csv"):
        find_files(SOURCES["guanaco"], tmp_path, None)


def test_labels_tell_files_apart() -> None:
    assert file_labels([Path("/x/y/a.json")]) == ["a.json"]
    assert file_labels([Path("/x/y/a.json"), Path("/x/y/b.json")]) == ["a.json", "b.json"]
    assert file_labels([Path("/x/y/a.json"), Path("/x/z/a.json")]) == ["y/a.json", "z/a.json"]


def test_several_files_in_one_preparation(tmp_path: Path) -> None:
    folder, messages = tmp_path / "chats", []
    folder.mkdir()
    first = write_lines(folder / "a.jsonl", *(pair(f"a{index}", "x") for index in range(9)), pair("a0", "x"))
    second = write_lines(folder / "b.jsonl", pair("b", "x"), pair("a1", "x"), {"prompt": "c", "completion": None})
    config = PrepareFileConfig(
        checkpoint_dir=write_checkpoint(tmp_path / "tiny"),
        data_file=folder,
        destination_path=tmp_path / "prepared",
        max_rejected_fraction=0.1,
    )
    prepare("messages", config, messages.append)
    source = load_yaml(tmp_path / "prepared" / "manifest.yaml")["sources"]["messages"]
    assert source["files"] == [
        {"file": "a.jsonl", "sha256": sha256_file(first)},
        {"file": "b.jsonl", "sha256": sha256_file(second)},
    ]
    kept = source["rows_kept_train"] + source["rows_kept_test"]
    assert (source["rows_read"], source["rows_duplicate"], kept) == (13, 2, 10)
    told = "message 2 (assistant) is null, not text"
    assert source["rejected"] == [{"file": "b.jsonl", "line": 3, "reason": told}]
    assert f"rejected b.jsonl, line 3: {told}" in messages
    with pytest.raises(DataError) as caught:
        prepare("messages", PrepareFileConfig(checkpoint_dir=tmp_path / "tiny", data_file=folder))
    assert f"1 of 13 rows of {folder} cannot be used (b.jsonl, line 3: {told})" in str(caught.value)


def test_notes_are_counted_and_told(tmp_path: Path) -> None:
    turns = [{"from": "gpt", "value": "x"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    rows = [{"conversations": [*turns, {"from": "human", "value": str(index)}][index % 2 :]} for index in range(4)]
    rows += [{"conversations": [{"from": "human", "value": "only"}, *turns[2:]]}]
    config = PrepareFileConfig(
        checkpoint_dir=write_checkpoint(tmp_path / "tiny"),
        data_file=write_lines(tmp_path / "a.jsonl", *rows),
        destination_path=tmp_path / "prepared",
    )
    messages: list[str] = []
    prepare("sharegpt", config, messages.append)
    source = load_yaml(tmp_path / "prepared" / "manifest.yaml")["sources"]["sharegpt"]
    leading = "the first message was an answer to nothing and was left out"
    trailing = "the last question has no answer and was left out"
    assert source["notes"] == {leading: 2, trailing: 4}
    assert f"in 2 rows: {leading}" in messages and f"in 4 rows: {trailing}" in messages


def test_parquet_rows_are_numbered_through_all_groups(tmp_path: Path) -> None:
    rows = [{"text": str(number), "list": [{"a": number, "b": None}]} for number in range(2500)]
    path = write_parquet(tmp_path / "a.parquet", *rows, row_group_size=700)
    assert list(iter_parquet_rows(path)) == list(enumerate(rows, start=1))


def test_what_arrow_says_is_shown_in_characters_that_are_seen() -> None:
    said = str(unreadable(Path("a.parquet"), "parquet", 3, ValueError("unknown type \x07\x1b[31m"), "fetch it again"))
    assert said == "a.parquet cannot be read as parquet after row 3 (unknown type \\x07\\x1b[31m); fetch it again."


def test_parquet_without_rows(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    schema = arrow.schema([("instruction", arrow.string()), ("output", arrow.string())])
    arrow.parquet.write_table(schema.empty_table(), tmp_path / "a.parquet")
    assert list(iter_parquet_rows(tmp_path / "a.parquet")) == []


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", "half"])
def test_files_that_are_no_parquet(tmp_path: Path, content: bytes | str) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": "a" * 100})
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        list(iter_parquet_rows(path))
    assert f"{path} cannot be read as parquet (" in str(caught.value) and "\n" not in str(caught.value)


def test_parquet_that_is_not_utf_8(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    text = arrow.array([b"fine", b"\xff"]).cast(arrow.string(), safe=False)
    path = write_parquet(tmp_path / "a.parquet", {"text": "a"})
    arrow.parquet.write_table(arrow.table({"text": text}), path)
    with pytest.raises(DataError, match="text that is not UTF-8"):
        list(iter_parquet_rows(path))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    path = write(tmp_path / "a.parquet", "")
    with pytest.raises(DataError) as caught:
        list(SOURCES["alpaca"].read(path))
    assert str(caught.value) == (
        f"{path} is parquet, and pyarrow, which reads it, is not installed; install it with `pip install pyarrow`, "
        "or name a JSON file with --data_file."
    )
    with pytest.raises(DataError, match="The published file of magpie is parquet"):
        find_files(SOURCES["magpie"], None, None)
    path = write_lines(tmp_path / "a.jsonl", {"instruction": "a", "output": "b"})
    assert list(SOURCES["alpaca"].read(path)) == [talk(1, "a", "b")]
