"""Shards: each prepared by itself, skipped when whole, and joined the same rows as a preparation of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_text import write_checkpoint

from litft.cli import main
from litft.config.io import load_yaml
from litft.config.mix import JoinConfig
from litft.config.prepare import PrepareConfig, PrepareFileConfig
from litft.data.mix import join as join_others
from litft.data.prepare import prepare
from litft.data.shards import join, prepare_missing
from litft.data.store import PreparedData
from litft.errors import ConfigError, DataError

Rows = list[tuple[tuple[int, ...], tuple[bool, ...]]]

# What each row adds to, whichever preparation it is in.
SUMS = ("rows_read", "rows_rejected", "rows_dropped", "rows_split", "rows_cut", "turns_lost")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds a model and 60 rows: some twice, some unreadable, some too long, some to be divided."""
    write_checkpoint(tmp_path / "model")
    rows = [talk(f"question {number % 53}", f"answer {number % 53}") for number in range(57)]
    rows[5], rows[11] = {"messages": []}, {"messages": "x"}
    rows += [talk("q", "x" * 200), talk("one", "a" * 20, "two", "b" * 20, "three", "c" * 20), talk("last", "one")]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp_path


def talk(*texts: str) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]}


def config(folder: Path, name: str, **options: Any) -> PrepareFileConfig:
    given: dict[str, Any] = {"max_seq_length": 50, "too_long": "split_turns", "prompt_style": "plain"}
    given |= {"max_rejected_fraction": 0.2, "test_split_fraction": 0.25, "data_file": folder / "rows.jsonl"}
    return PrepareFileConfig(
        **{**given, "checkpoint_dir": folder / "model", "destination_path": folder / name, **options}
    )


def make_shards(folder: Path, count: int, **options: Any) -> tuple[str, ...]:
    names = [f"part-{number}" for number in range(1, count + 1)]
    for number, name in enumerate(names, start=1):
        prepare_missing("messages", config(folder, name, shard=f"{number}/{count}", **options))
    return tuple(str(folder / name) for name in names)


def rows_in(path: Path) -> Rows:
    data = PreparedData.load(path)
    pairs = [data.row(number) for number in range(len(data))]
    return sorted((tuple(ids.tolist()), tuple(mask.tolist())) for ids, mask in pairs)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("fraction", [0.0, 0.25])
def test_joined_shards_are_the_whole(folder: Path, count: int, fraction: float) -> None:
    manifest = prepare("messages", config(folder, "whole", test_split_fraction=fraction)).to_dict()
    whole = manifest["sources"]["messages"]
    assert min(whole[name] for name in (*SUMS[:4], "rows_duplicate")) >= 1
    shards = make_shards(folder, count, test_split_fraction=fraction)
    messages: list[str] = []
    join(JoinConfig(data_dirs=shards[::-1], destination_path=folder / "joined"), messages.append)
    names = ["train.pt", "test.pt"] if fraction else ["train.pt"]
    assert sorted(path.name for path in (folder / "joined").iterdir()) == sorted([*names, "manifest.yaml"])
    for name in names:
        assert rows_in(folder / "joined" / name) == rows_in(folder / "whole" / name)
        assert PreparedData.load(folder / "joined" / name).meta == PreparedData.load(folder / "whole" / name).meta
    joined = load_yaml(folder / "joined" / "manifest.yaml")
    ledgers = [source["messages"] for source in joined["sources"].values()]
    assert list(joined["sources"]) == [f"shard {number}/{count}" for number in range(1, count + 1)]
    assert {key: sum(ledger[key] for ledger in ledgers) for key in SUMS} == {key: whole[key] for key in SUMS}
    equal = joined["rows_equal_across_shards"]
    assert sum(ledger["rows_duplicate"] for ledger in ledgers) + equal == whole["rows_duplicate"]
    assert messages[0].endswith(f"{equal:,} equal to rows of other shards left out")
    settings = {key: value for key, value in manifest.items() if key not in ("sources", "files")}
    assert {key: joined[key] for key in settings} == settings


def test_equal_rows_in_different_shards_stand_once(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("\n".join([json.dumps(talk("a", "b")), json.dumps(talk("c", "d"))] * 5))
    first = make_shards(folder, 5)[0]
    assert len(rows_in(Path(first) / "train.pt")) == 2
    join(JoinConfig(data_dirs=make_shards(folder, 5), destination_path=folder / "joined"))
    assert load_yaml(folder / "joined" / "manifest.yaml")["rows_equal_across_shards"] == 8
    assert len(rows_in(folder / "joined" / "train.pt")) == len(rows_in(folder / "joined" / "test.pt")) == 1


def test_a_shard_holds_every_nth_row_and_nothing_out(folder: Path) -> None:
    lines = (folder / "rows.jsonl").read_text().splitlines()
    (folder / "own.jsonl").write_text("\n".join(lines[1::7]))
    prepare("messages", config(folder, "own", data_file=folder / "own.jsonl", test_split_fraction=0.0))
    prepare_missing("messages", config(folder, "shard", shard="2/7"))
    assert rows_in(folder / "shard" / "train.pt") == rows_in(folder / "own" / "train.pt")
    assert not (folder / "shard" / "test.pt").exists()
    assert load_yaml(folder / "shard" / "manifest.yaml")["shard"] == "2/7"


def test_a_shard_that_is_whole_is_left_as_it_is(folder: Path) -> None:
    messages: list[str] = []

    def again(**options: Any) -> None:
        prepare_missing("messages", config(folder, "part-1", **{"shard": "1/3", **options}), messages.append)

    again()
    train = folder / "part-1" / "train.pt"
    before, first = train.stat().st_mtime_ns, len(messages)
    again()
    assert messages[first:] == [f"shard 1/3 of messages is whole already: {folder / 'part-1'}"]
    assert train.stat().st_mtime_ns == before
    for options in ({"shard": "2/3"}, {"max_seq_length": 60}, {"seed": 1}, {"too_long": "drop"}, {"shard": None}):
        with pytest.raises(DataError, match="already holds prepared data"):
            again(**options)
    train.write_bytes(train.read_bytes()[:-1])
    with pytest.raises(DataError, match="already holds prepared data"):
        again()
    again(overwrite=True)
    assert "is whole already" not in messages[-1] and train.stat().st_mtime_ns != before
    with (folder / "rows.jsonl").open("a") as file:
        file.write("\n" + json.dumps(talk("new", "row")))
    with pytest.raises(DataError, match="already holds prepared data"):
        again()


def test_the_command_names_folders_after_the_shard(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"prepare messages --checkpoint_dir {folder}/model --data_file {folder}/rows.jsonl --shard 2/7"
    assert main([*words.split(), "--max_rejected_fraction", "0.5"]) == 0
    assert Path("data/messages-2-of-7/train.pt").is_file()
    assert "litft prepare join --data_dirs data/messages-2-of-7,..." in capsys.readouterr().err
    assert main([*words.split(), "--max_rejected_fraction", "0.5"]) == 0
    assert "shard 2/7 of messages is whole already: data/messages-2-of-7" in capsys.readouterr().err


def test_a_joined_folder_can_be_inspected(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    join(JoinConfig(data_dirs=make_shards(folder, 2), destination_path=folder / "joined"))
    assert main(["inspect", str(folder / "joined"), "--checkpoint_dir", str(folder / "model")]) == 0
    out = capsys.readouterr().out
    told = load_yaml(folder / "joined" / "manifest.yaml")
    equal, held_out = told["rows_equal_across_shards"], told["files"]["test.pt"]["rows"]
    assert "shard 1/2" in out and held_out > 1
    note = f"left out {equal} rows equal to rows of other shards and held out {held_out}; the mixture counts"
    assert note in " ".join(out.split())


@pytest.mark.parametrize("shard", ["0/8", "9/8", "1/0", "1", "1/8/2", "-1/8", "one/8"])
def test_shards_that_are_none(folder: Path, shard: str) -> None:
    with pytest.raises(ConfigError, match=f"shard is {shard}; it must be one of n parts, counted from 1"):
        PrepareConfig(checkpoint_dir=folder, shard=shard)


def test_what_cannot_be_joined(folder: Path) -> None:
    shards = make_shards(folder, 3)

    def refused(names: tuple[str, ...], out: str = "joined", overwrite: bool = False) -> str:
        with pytest.raises(DataError) as caught:
            join(JoinConfig(data_dirs=names, destination_path=folder / out, overwrite=overwrite))
        return str(caught.value)

    assert refused((shards[0], shards[2])) == "data_dirs lacks the shard 2/3; name each of the 3 once."
    prepare_missing("messages", config(folder, "again", shard="3/3"))
    assert "names a shard twice" in refused((*shards, str(folder / "again")))
    prepare_missing("messages", config(folder, "other", shard="3/3", max_seq_length=45))
    assert "was prepared with another max_seq_length than" in refused((*shards[:2], str(folder / "other")))
    assert "already holds prepared data" in refused(shards, "part-1")
    assert "is one of the shards" in refused(shards, "part-1", overwrite=True)
    assert not (folder / "joined").exists()
    with pytest.raises(DataError, match=r"rows.jsonl has no rows for shard 90/90; messages is"):
        prepare("messages", config(folder, "none", shard="90/90"))


def test_folders_that_are_no_shards_are_joined_as_ever(folder: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        prepare("messages", config(folder, name, seed=seed))
    names = (str(folder / "a"), str(folder / "b"))
    join(JoinConfig(data_dirs=names, destination_path=folder / "x"))
    join_others(JoinConfig(data_dirs=names, destination_path=folder / "y"))
    assert (folder / "x" / "train.pt").read_bytes() == (folder / "y" / "train.pt").read_bytes()
