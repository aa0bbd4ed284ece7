"""Prepared folders mixed and joined: shares, repeats, equal rows, held-out rows, and what is refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_text import write_checkpoint

from litft.config.io import load_yaml
from litft.config.mix import JoinConfig, MixConfig
from litft.config.prepare import PrepareFileConfig
from litft.data.mix import join, mix
from litft.data.prepare import prepare
from litft.data.store import PreparedData
from litft.errors import ConfigError, DataError
from litft.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has `a` with 20 short rows, `b` with 10 longer ones, and `c` with two rows of `a`."""
    root = tmp_path_factory.mktemp("mix")
    write_checkpoint(root / "model")
    make(root, "a", [f"a{number:02}" for number in range(20)], test_split_fraction=0.1)
    make(root, "b", [f"b{number:02} and more" for number in range(10)], test_split_fraction=0.1)
    train = texts(root, root / "a" / "train.pt")
    held_out = texts(root, root / "a" / "test.pt")
    make(root, "c", ["c00", train[0], held_out[0]], test_split_fraction=0.0)
    return root


def make(root: Path, name: str, documents: list[str], **options: Any) -> None:
    path = root / f"{name}.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in documents), encoding="utf-8")
    given = {"checkpoint_dir": root / "model", "data_file": path, "destination_path": root / name}
    prepare("text", PrepareFileConfig(**{**given, **options}))


def texts(root: Path, path: Path) -> list[str]:
    tokenizer, data = Tokenizer(root / "model"), PreparedData.load(path)
    return [tokenizer.decode(data.row(index)[0].tolist()) for index in range(len(data))]


def mixed(root: Path, out: Path, names: str, **options: Any) -> tuple[list[str], list[str]]:
    """Mixes parts by their short names, and gives the training texts and the messages."""
    for key in ("weights", "max_rows", "repeats"):
        if key in options:
            options[key] = {str(root / name): value for name, value in options[key].items()}
    messages: list[str] = []
    given = {"data_dirs": tuple(str(root / name) for name in names), "destination_path": out, "overwrite": True}
    mix(MixConfig(**{**given, **options}), messages.append)
    return texts(root, out / "train.pt"), messages


def table_of(messages: list[str]) -> dict[str, list[str]]:
    """Reads the table of a report: the numbers of each folder by the name of their line."""
    lines = [line.strip() for line in messages[0].splitlines()[2:]]
    cells = [re.split(r"  +", line) for line in lines]
    return {name: numbers for name, *numbers in cells}


def first_letters(rows: list[str]) -> dict[str, int]:
    return dict(Counter(text[0] for text in rows))


def test_without_weights_all_rows_are_there(folder: Path, tmp_path: Path) -> None:
    rows, messages = mixed(folder, tmp_path / "m", "ab")
    assert sorted(rows) == sorted(texts(folder, folder / "a" / "train.pt") + texts(folder, folder / "b" / "train.pt"))
    assert rows != sorted(rows)  # shuffled
    held_out = texts(folder, tmp_path / "m" / "test.pt")
    assert held_out == texts(folder, folder / "a" / "test.pt") + texts(folder, folder / "b" / "test.pt")
    data = PreparedData.load(tmp_path / "m" / "train.pt")
    assert data.meta["source_names"] == ["a", "b"]
    assert [data.meta["source_names"][number] for number in data.source] == [text[0] for text in rows]
    assert table_of(messages)["rows"] == ["18", "9"] == table_of(messages)["rows taken"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"weights": {"a": 1, "b": 1}}, {"a": 9, "b": 9}),
        ({"weights": {"a": 2, "b": 1}}, {"a": 18, "b": 9}),
        ({"weights": {"a": 1, "b": 1}, "repeats": {"b": 2}}, {"a": 18, "b": 18}),
        ({"weights": {"a": 3, "b": 1}, "total": 8}, {"a": 6, "b": 2}),
        ({"weights": {"a": 1, "b": 1}, "max_rows": {"a": 4}}, {"a": 4, "b": 4}),
        ({"max_rows": {"a": 4}, "repeats": {"a": 2.5}}, {"a": 10, "b": 9}),
    ],
)
def test_shares(folder: Path, tmp_path: Path, options: dict[str, Any], expected: dict[str, int]) -> None:
    rows, _ = mixed(folder, tmp_path / "m", "ab", **options)
    assert first_letters(rows) == expected
    manifest = load_yaml(tmp_path / "m" / "manifest.yaml")
    assert [part["rows_taken"] for part in manifest["parts"]] == list(expected.values())
    most = max(Counter(rows).values())
    assert most <= max(2.5 + 0.5, 1) if "repeats" in options else most == 1


def test_shares_of_target_tokens(folder: Path, tmp_path: Path) -> None:
    mixed(folder, tmp_path / "m", "ab", weights={"a": 1, "b": 1}, by="target_tokens")
    parts = load_yaml(tmp_path / "m" / "manifest.yaml")["parts"]
    taken = [part["target_tokens_taken"] for part in parts]
    assert abs(taken[0] - taken[1]) <= 14 and taken[0] == 18 * 4  # a row of b has 13 tokens with loss


def test_equal_rows_stand_once_and_none_that_is_held_out(folder: Path, tmp_path: Path) -> None:
    rows, messages = mixed(folder, tmp_path / "m", "ac")
    assert sorted(rows) == sorted([*texts(folder, folder / "a" / "train.pt"), "c00"])
    assert table_of(messages)["left out by equal"] == ["0", "2"]
    assert not set(rows) & set(texts(folder, tmp_path / "m" / "test.pt"))


@pytest.mark.parametrize("order", ["source", "length"])
def test_order(folder: Path, tmp_path: Path, order: str) -> None:
    rows, messages = mixed(folder, tmp_path / "m", "ba", order=order)
    letters = "".join(text[0] for text in rows)
    assert letters == ("b" * 9 + "a" * 18 if order == "source" else "a" * 18 + "b" * 9)
    assert messages[-1].endswith("--train.shuffle false")
    assert PreparedData.load(tmp_path / "m" / "train.pt").meta["order"] == order


def test_the_same_config_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for name, seed in (("x", 1), ("y", 1), ("z", 2)):
        mixed(folder, tmp_path / name, "ab", weights={"a": 1, "b": 2}, seed=seed)
    x, y, z = ((tmp_path / name / "train.pt").read_bytes() for name in "xyz")
    assert x == y != z


def test_joined_parts_are_one_source(folder: Path, tmp_path: Path) -> None:
    folders = (str(folder / "a"), str(folder / "b"))
    join(JoinConfig(data_dirs=folders, destination_path=tmp_path / "j"))
    data = PreparedData.load(tmp_path / "j" / "train.pt")
    assert data.meta["source_names"] == ["text"] and len(data) == 27 and set(data.source.tolist()) == {0}
    with pytest.raises(DataError, match="already holds prepared data"):
        join(JoinConfig(data_dirs=folders, destination_path=tmp_path / "j"))


def test_strangers_are_refused(folder: Path, tmp_path: Path) -> None:
    make(folder, "chat", ["d"], prompt_style="plain", overwrite=True)
    with pytest.raises(DataError, match=r"chat was prepared with another prompt style than .*a; prepare it again"):
        mixed(folder, tmp_path / "m", ("a", "chat"))  # type: ignore[arg-type]
    assert not (tmp_path / "m").exists()
    with pytest.raises(DataError, match="There is no data_dir"):
        mixed(folder, tmp_path / "m", ("a", "none"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"total is 100, but .*b has 9 examples for a share of 50.0%, enough for 18"):
        mixed(folder, tmp_path / "m", "ab", weights={"a": 1, "b": 1}, total=100)


def test_a_folder_is_the_same_with_a_slash_at_its_end() -> None:
    numbers = {"data/a": 1.0, "data/b/": 2.0}
    config = MixConfig(
        data_dirs=("data/a/", "./data/b"), destination_path=Path("m"), weights=numbers, repeats={"data/a//": 2.0},
        max_rows={"data/b/": 3},
    )  # fmt: skip
    assert config.data_dirs == ("data/a", "data/b") and config.weights == {"data/a": 1.0, "data/b": 2.0}
    assert (config.repeats, config.max_rows) == ({"data/a": 2.0}, {"data/b": 3})
    inverse = MixConfig(data_dirs=("a", "b/"), destination_path=Path("m"), inverse_to={"a/": 0.5, "b": 0.5})
    assert inverse.shares == {"a": 0.5, "b": 0.5}
    with pytest.raises(ConfigError, match="each once"):
        JoinConfig(data_dirs=("a", "a/"), destination_path=Path("m"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": {"a": 1.0, "a/": 2.0, "b": 1.0}}, "weights names a folder twice: a, a/, b"),
        ({"data_dirs": ()}, "name one folder or more"),
        ({"data_dirs": ("a", "a")}, "each once"),
        ({"weights": {"a": 1.0}}, "weights has no number for b"),
        ({"weights": {"data/dolli": 1.0}, "data_dirs": ("data/dolly", "data/lima")}, 'Did you mean "data/dolly"?'),
        ({"weights": {"a": 1.0, "b": 0.0}}, "weights of b is 0.0; it must be above 0"),
        ({"repeats": {"a": -1.0}}, "repeats of a is -1.0"),
        ({"total": 5}, "total is 5; it must be at least 1, and needs weights or inverse_to"),
    ],
)
def test_wrong_settings(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MixConfig(**{"data_dirs": ("a", "b"), "destination_path": tmp_path, **options})
    assert words in str(caught.value)
