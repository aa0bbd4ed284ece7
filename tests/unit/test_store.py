"""Prepared files on disk, Lit-GPT's among them, and data that does not fit a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_text import byte_tokenizer, write_checkpoint

from litft.data.store import PreparedData, check_data_fits, find_data_dir, save_prepared
from litft.errors import DataError
from litft.text.tokenizer import Tokenizer

META = {"dataset": "lima", "checkpoint": "tiny", "tokenizer": {"hash": "abc"}, "max_seq_length": 8}


def parts() -> dict[str, Any]:
    return {
        "input_ids": torch.tensor([5, 6, 7, 8, 9]),
        "target_mask": torch.tensor([False, True, False, True, True]),
        "offsets": torch.tensor([0, 2, 5]),
        "source": torch.tensor([0, 1]),
        "meta": dict(META),
    }


def test_rows_come_back(tmp_path: Path) -> None:
    save_prepared(tmp_path / "train.pt", **parts())
    data = PreparedData.load(tmp_path / "train.pt")
    assert (data.input_ids.dtype, data.target_mask.dtype) == (torch.int32, torch.bool)
    assert (data.offsets.dtype, data.source.dtype) == (torch.int64, torch.int16)
    assert len(data) == 2 and data.meta == META
    assert data.lengths.tolist() == [2, 3] and data.lengths.dtype == torch.int64
    assert [[part.tolist() for part in data.row(index)] for index in range(2)] == [
        [[5, 6], [False, True]],
        [[7, 8, 9], [False, True, True]],
    ]


def test_scores_come_back(tmp_path: Path) -> None:
    save_prepared(tmp_path / "train.pt", **parts(), score=torch.tensor([0.5, float("nan")]))
    score = PreparedData.load(tmp_path / "train.pt").score
    assert score is not None and score.dtype == torch.float32
    assert score[0] == 0.5 and score[1].isnan()
    save_prepared(tmp_path / "train.pt", **parts(), score=torch.tensor([0.5]))
    with pytest.raises(DataError, match=r"score is not a flat torch\.float32 tensor of 2 numbers"):
        PreparedData.load(tmp_path / "train.pt")
    save_prepared(tmp_path / "train.pt", **parts())
    assert PreparedData.load(tmp_path / "train.pt").score is None


def test_same_rows_same_bytes_whatever_the_name(tmp_path: Path) -> None:
    for name in ("a.pt", ".b.tmp"):
        save_prepared(tmp_path / name, **parts())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / ".b.tmp").read_bytes()


@pytest.mark.parametrize("is_zip", [True, False])
def test_lit_gpt_rows(tmp_path: Path, is_zip: bool) -> None:
    rows = [
        {"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor([-1, 2, 3]), "instruction": "a"},
        {"input_ids": torch.tensor([4, 5]), "labels": torch.tensor([4, 5])},
    ]
    torch.save(rows, tmp_path / "train.pt", _use_new_zipfile_serialization=is_zip)
    data = PreparedData.load(tmp_path / "train.pt")
    assert data.input_ids.tolist() == [1, 2, 3, 4, 5] and data.input_ids.dtype == torch.int32
    assert data.target_mask.tolist() == [False, True, True, False, True]
    assert data.offsets.tolist() == [0, 3, 5] and data.meta == {}


class Trap:
    """Would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_no_code_is_executed(tmp_path: Path) -> None:
    torch.save({"format": "litft-sft-1", "meta": Trap(tmp_path / "sprung")}, tmp_path / "train.pt")
    with pytest.raises(DataError, match="damaged or not prepared data"):
        PreparedData.load(tmp_path / "train.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "litft-sft-9"}, "is not prepared data"),
        ({"input_ids": None}, "input_ids is not a flat torch.int32 tensor"),
        ({"target_mask": torch.zeros(5)}, "target_mask is not a flat torch.bool tensor"),
        ({"target_mask": torch.zeros(4, dtype=torch.bool)}, "lengths that do not belong together"),
        ({"offsets": torch.tensor([0, 6, 5])}, "lengths that do not belong together"),
        ({"offsets": torch.tensor([1, 2, 5])}, "lengths that do not belong together"),
        ({"offsets": torch.tensor([0, 2, 4])}, "lengths that do not belong together"),
        ({"offsets": torch.tensor([0, 5])}, "lengths that do not belong together"),
        ({"meta": None}, "meta is no dict"),
    ],
)
def test_files_of_another_form(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    save_prepared(tmp_path / "train.pt", **parts())
    values = torch.load(tmp_path / "train.pt", weights_only=True)
    torch.save({**values, **change}, tmp_path / "train.pt")
    with pytest.raises(DataError) as caught:
        PreparedData.load(tmp_path / "train.pt")
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("rows", [[], [1], [{"input_ids": torch.tensor([1])}], [torch.tensor([1])]])
def test_lists_that_are_not_lit_gpts(tmp_path: Path, rows: list[Any]) -> None:
    torch.save(rows, tmp_path / "train.pt")
    with pytest.raises(DataError, match="prepare it again"):
        PreparedData.load(tmp_path / "train.pt")


@pytest.mark.parametrize("cut", [0, 10, 700])
def test_damaged_file(tmp_path: Path, cut: int) -> None:
    save_prepared(tmp_path / "train.pt", **parts())
    (tmp_path / "train.pt").write_bytes((tmp_path / "train.pt").read_bytes()[:cut])
    with pytest.raises(DataError, match="damaged"):
        PreparedData.load(tmp_path / "train.pt")


def test_missing_file_has_a_suggestion(tmp_path: Path) -> None:
    save_prepared(tmp_path / "train.pt", **parts())
    with pytest.raises(DataError, match=r"Did you mean .*train\.pt"):
        PreparedData.load(tmp_path / "trian.pt")


def test_find_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("data/csv")
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=r"data_dir data/csv has no train\.pt"):
        find_data_dir(folder)
    save_prepared(folder / "train.pt", **parts())
    with pytest.raises(DataError, match=r"no manifest\.yaml: its preparation was interrupted"):
        find_data_dir(folder)
    whole = "dataset: csv\nsources: {csv: {rows: 2}}\nfiles:\n  train.pt: {rows: 2, sha256: ab}\n"
    for cut in (0, whole.index("{csv"), whole.index("{csv") + 2, whole.index("files"), whole.index("{rows: 2, sha")):
        (folder / "manifest.yaml").write_text(whole[:cut], encoding="utf-8")
        with pytest.raises(DataError, match=r"^data_dir data/csv is unfinished or damaged.*; prepare it again\.$"):
            find_data_dir(folder)
    (folder / "manifest.yaml").write_text(whole, encoding="utf-8")
    assert find_data_dir(folder) == folder
    for wrong, words in (
        ("/data/csv", 'Did you mean "data/csv"?'),
        ("data/cvs", 'Did you mean "data/csv"?'),
        ("nowhere/csv", "There is no data_dir nowhere/csv."),
        ("data/csv/train.pt", "is a file; name its folder, data/csv"),
    ):
        with pytest.raises(DataError) as caught:
            find_data_dir(Path(wrong))
        assert words in str(caught.value)


def test_lit_gpt_folder_needs_no_manifest(tmp_path: Path) -> None:
    torch.save([{"input_ids": torch.tensor([1, 2]), "labels": torch.tensor([-1, 2])}], tmp_path / "train.pt")
    assert find_data_dir(tmp_path) == tmp_path


def test_data_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    mine = Tokenizer(write_checkpoint(tmp_path / "mine"))
    other = Tokenizer(write_checkpoint(tmp_path / "other", tokenizer=byte_tokenizer(("word",))))
    save_prepared(tmp_path / "train.pt", **{**parts(), "meta": {**META, "tokenizer": {"hash": mine.hash}}})
    data = PreparedData.load(tmp_path / "train.pt")
    check_data_fits(data, mine, tmp_path / "mine")
    with pytest.raises(DataError) as caught:
        check_data_fits(data, other, tmp_path / "other")
    command = f"litft prepare lima --checkpoint_dir {tmp_path / 'other'} --destination_path {tmp_path}-other`"
    assert command in str(caught.value)


@pytest.mark.parametrize(("largest", "fits"), [(258, True), (259, False)])
def test_lit_gpt_ids_beyond_the_vocabulary(tmp_path: Path, largest: int, fits: bool) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path / "c"))
    ids = torch.tensor([3, largest])
    torch.save([{"input_ids": ids, "labels": ids}], tmp_path / "train.pt")
    data = PreparedData.load(tmp_path / "train.pt")
    if fits:
        check_data_fits(data, tokenizer, tmp_path / "c")
        return
    with pytest.raises(DataError, match="holds the token id 259, but the tokenizer has 259 tokens"):
        check_data_fits(data, tokenizer, tmp_path / "c")
