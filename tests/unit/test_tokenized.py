"""Rows of token ids: which token a label names is found, or refused; labels come back from the mask as they were."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_text import EOS, write_checkpoint

from litft.config.prepare import PrepareTokensConfig
from litft.data.prepare import prepare
from litft.data.reading.rows import Found, Rejected, TokenRow
from litft.data.reading.tokens import Labelled, Place, labels_of, read_row, token_row
from litft.data.sources.tokenized import read_tokenized
from litft.data.store import PreparedData
from litft.errors import DataError, LitftError, TokenizerError

ID = st.integers(0, 9)  # few, so that neighbours are often equal


@st.composite
def masked_rows(draw: st.DrawFn) -> tuple[list[int], list[bool]]:
    """Draws ids and a mask that ends in a target and has none at the beginning."""
    ids = draw(st.lists(ID, min_size=2, max_size=12))
    mask = [False, *draw(st.lists(st.booleans(), min_size=len(ids) - 2, max_size=len(ids) - 2)), True]
    return ids, mask


def row_of(ids: list[int], mask: list[bool]) -> TokenRow:
    return TokenRow(1, array("i", ids), bytes(mask))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def write_pt(path: Path, rows: list[dict[str, Any]]) -> Path:
    torch.save([{name: torch.tensor(values) for name, values in row.items()} for row in rows], path)
    return path


def read(path: Path, **options: Any) -> tuple[str, list[tuple[list[int], list[int]]]]:
    """Gives the sentence, and ids and mask of each row."""
    found, *rows = read_tokenized(path, **options)
    assert isinstance(found, Found) and all(isinstance(row, TokenRow) for row in rows)
    return found.sentence, [(row.input_ids.tolist(), list(row.mask)) for row in rows if isinstance(row, TokenRow)]


@given(masked_rows(), st.sampled_from(["same", "next"]), st.sampled_from([-1, -100]))
def test_labels_come_back_as_they_were(drawn: tuple[list[int], list[bool]], place: Place, ignored: int) -> None:
    row = row_of(*drawn)
    ids, labels = labels_of(row, place, ignored)
    back = read_row(1, {"input_ids": ids, "labels": labels})
    assert isinstance(back, Labelled)
    assert back.fits_same if place == "same" else back.fits_next
    again = token_row(back, place)
    assert again == row
    assert isinstance(again, TokenRow) and labels_of(again, place, ignored) == (ids, labels)


@given(masked_rows(), st.integers(0, 3), st.booleans())
def test_padding_changes_nothing(drawn: tuple[list[int], list[bool]], padding: int, on_the_left: bool) -> None:
    row = row_of(*drawn)
    ids, labels = labels_of(row, "same", -100)
    parts = [[99] * padding, ids], [[-100] * padding, labels], [[0] * padding, [1] * len(ids)]
    padded = [first + second if on_the_left else second + first for first, second in parts]
    names = ("input_ids", "labels", "attention_mask")
    back = read_row(1, dict(zip(names, padded, strict=True)))
    assert isinstance(back, Labelled) and token_row(back, "same") == row


@given(masked_rows(), masked_rows())
def test_both_conventions_are_told_apart_or_refused(
    first: tuple[list[int], list[bool]], second: tuple[list[int], list[bool]]
) -> None:
    for place, other in (("same", "next"), ("next", "same")):
        rows = [read_row(1, dict(zip(("input_ids", "labels"), labels_of(row_of(*drawn), place, -100), strict=True)))
                for drawn in (first, second)]  # fmt: skip
        fits = [(row.fits_same, row.fits_next) for row in rows if isinstance(row, Labelled)]
        assert len(fits) == 2 and all(pair[0 if place == "same" else 1] for pair in fits)
        assume(not all(all(pair) for pair in fits))
        assert not all(pair[0 if other == "same" else 1] for pair in fits)


ROWS = [{"input_ids": [0, 5, 6, 7, 1], "labels": [-1, -1, -1, 7, 1]}, {"input_ids": [0, 8, 1], "labels": [-1, 8, 1]}]
HF_ROWS = [{**row, "labels": [-100 if label == -1 else label for label in row["labels"]]} for row in ROWS]
READ = [([0, 5, 6, 7, 1], [0, 0, 0, 1, 1]), ([0, 8, 1], [0, 1, 1])]


def test_lit_gpt(tmp_path: Path) -> None:
    sentence, rows = read(write_pt(tmp_path / "train.pt", ROWS))
    assert "its own place (same), and -1 is left out, as in Lit-GPT" in sentence and rows == READ


def test_hugging_face(tmp_path: Path) -> None:
    sentence, rows = read(write(tmp_path / "a.jsonl", HF_ROWS))
    assert "its own place (same), and -100 is left out, as in Hugging Face" in sentence and rows == READ


def test_packed_with_shifted_labels(tmp_path: Path) -> None:
    stream = [0, 5, 6, 7, 1, 0, 8, 9, 1]
    packed = [{"input_ids": stream[i : i + 4], "labels": stream[i + 1 : i + 5]} for i in (0, 4)]
    sentence, rows = read(write(tmp_path / "a.jsonl", packed))
    assert "the token after it (next), and none is left out" in sentence
    assert rows == [([0, 5, 6, 7, 1], [0, 1, 1, 1, 1]), ([1, 0, 8, 9, 1], [0, 1, 1, 1, 1])]


def test_without_labels_all_is_learned(tmp_path: Path) -> None:
    sentence, rows = read(write(tmp_path / "a.jsonl", [{"input_ids": [0, 5, 1]}]))
    assert "without labels" in sentence and rows == [([0, 5, 1], [0, 1, 1])]


@pytest.mark.parametrize("kind", ["datasets", "parquet"])
def test_arrow_and_parquet(tmp_path: Path, kind: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.Table.from_pylist(HF_ROWS)
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        parquet.write_table(table, path)
    else:
        path = tmp_path / "data-00000-of-00001.arrow"
        with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    assert read(path)[1] == READ


def test_a_damaged_arrow_file(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "data-00000-of-00001.arrow"
    path.write_bytes(b"ARROW?" * 9)
    with pytest.raises(DataError, match=r"00001\.arrow cannot be read as arrow"):
        list(read_tokenized(path))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"input_ids": [5, 5, 5], "labels": [5, 5, 5]}],
         ["from line 1 on they fit", "--labels same or --labels next"]),
        ([{"input_ids": [5, 6], "labels": [-100, -100]}], ["does not say which token a label names"]),
        ([{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [5, 6, 7], "labels": [6, 7, 8]}],
         ["contradict each other", "line 1 the token at its own place", "line 2 the token after it"]),
        ([{"input_ids": [5, 6], "labels": [-1, 6]}, {"input_ids": [5, 6], "labels": [-100, 6]}],
         ["both -1 (line 1) and -100 (line 2)"]),
    ],
)  # fmt: skip
def test_labels_that_are_not_clear(tmp_path: Path, rows: list[dict[str, Any]], words: list[str]) -> None:
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError) as caught:
        list(read_tokenized(path))
    assert all(part in str(caught.value) for part in [*words, str(path)])


def test_the_user_may_say_which_token_a_label_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"input_ids": [5, 5, 5], "labels": [5, 5, 5]}])
    assert read(path, labels="same")[1] == [([5, 5, 5], [0, 1, 1])]
    assert read(path, labels="next")[1] == [([5, 5, 5, 5], [0, 1, 1, 1])]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"ids": [1]}, 'no "input_ids" (found "ids")'),
        ({"input_ids": []}, '"input_ids" is empty'),
        ({"input_ids": [1, 2], "attention_mask": [0, 0]}, '"input_ids" is empty'),
        ({"input_ids": "1 2"}, '"input_ids" is str, not a flat list of whole numbers'),
        ({"input_ids": [1, 2.5]}, '"input_ids" is a list that holds float, not a flat list of whole numbers'),
        ({"input_ids": [1, None]}, '"input_ids" is a list that holds null, not a flat list of whole numbers'),
        ({"input_ids": [[1], [2, 3]]}, '"input_ids" is a list of lists, not a flat list of whole numbers'),
        ({"input_ids": None}, '"input_ids" is null, not a flat list of whole numbers'),
        ({"input_ids": [True, False]}, '"input_ids" is a list that holds bool, not a flat list of whole numbers'),
        (
            {"input_ids": [2**63]},
            '"input_ids" is a list that holds a number of 64 bits, not a flat list of whole numbers',
        ),
        (
            {"input_ids": [10**30]},
            '"input_ids" is a list that holds a number of 100 bits, not a flat list of whole numbers',
        ),
        ({"input_ids": [1, -2]}, '"input_ids" holds -2, which is no token id'),
        ({"input_ids": [1, 2**31]}, '"input_ids" holds 2147483648, which is no token id'),
        ({"input_ids": [1, 2], "labels": [1]}, '"labels" has 1 numbers where "input_ids" has 2'),
        ({"input_ids": [1, 2], "labels": [-7, 2]}, '"labels" holds -7; expected token ids, -1 or -100'),
        ({"input_ids": [1, 2], "attention_mask": [1, 2]}, '"attention_mask" holds 2; expected 0 and 1'),
        ({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}, '"attention_mask" leaves tokens out in the middle'),
    ],
)
def test_rows_that_cannot_be_used(row: dict[str, Any], reason: str) -> None:
    assert read_row(3, row) == Rejected(3, reason)


def test_labels_of_neither_convention(tmp_path: Path) -> None:
    rows = [*HF_ROWS, {"input_ids": [0, 5, 1], "labels": [-100, 9, 1]}, {"input_ids": [0, 5, 1]}]
    *_, wrong, bare = read_tokenized(write(tmp_path / "a.jsonl", rows))
    assert wrong == Rejected(3, "label 2 is 9, but the token there is 5; label 2 is 9, but the token after it is 1")
    assert bare == Rejected(4, 'no "labels", which other rows have')


def run(folder: Path, path: Path, **options: Any) -> tuple[dict[str, Any], PreparedData]:
    destination = folder.parent / "out"
    config = PrepareTokensConfig(
        checkpoint_dir=folder, data_file=path, destination_path=destination, test_split_fraction=0.0, **options
    )
    manifest = prepare("tokenized", config).to_dict()
    return manifest["sources"]["tokenized"], PreparedData.load(destination / "train.pt")


def test_lit_gpts_rows_are_packed_as_they_were(tmp_path: Path) -> None:
    folder, path = write_checkpoint(tmp_path / "tiny"), write_pt(tmp_path / "train.pt", ROWS)
    source, data = run(folder, path)
    theirs = PreparedData.load(path)
    for index in range(len(theirs)):
        assert all(torch.equal(ours, given) for ours, given in zip(data.row(index), theirs.row(index), strict=True))
    assert len(data) == len(theirs) == 2 and "as in Lit-GPT" in source["found"][0]
    assert (source["rows_read"], source["target_tokens"], source["prompt_tokens"]) == (2, 4, 4)
    assert source["stop_token_fraction"] == 1.0 and EOS == 1


def test_a_folder_of_datasets_is_prepared(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    folder, saved = write_checkpoint(tmp_path / "tiny"), tmp_path / "saved" / "train"
    saved.mkdir(parents=True)
    for number, row in enumerate(HF_ROWS):
        table = arrow.Table.from_pylist([row])
        path = saved / f"data-0000{number}-of-00002.arrow"
        with arrow.OSFile(str(path), "wb") as file, arrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    source, data = run(folder, saved.parent)
    assert len(source["files"]) == 2 and len(data) == 2 and len(source["found"]) == 1


def test_long_rows_are_dropped_or_cut(tmp_path: Path) -> None:
    folder, path = write_checkpoint(tmp_path / "tiny"), write(tmp_path / "a.jsonl", HF_ROWS)
    source, data = run(folder, path, max_seq_length=4)
    assert source["rows_dropped"] == 1 and len(data) == 1
    source, data = run(folder, path, max_seq_length=4, too_long="truncate_response", overwrite=True)
    assert source["rows_cut"] == 1 and data.row(0)[0].tolist() == [0, 5, 6, 7]


@pytest.mark.parametrize(
    ("name", "rows", "kind", "words"),
    [
        ("a.jsonl", [*HF_ROWS, {"input_ids": [0, 259], "labels": [-100, 259]}], TokenizerError,
         ["a.jsonl, line 3 holds the token id 259, but the tokenizer has 259 tokens", "another tokenizer"]),
        ("a.jsonl", [{"input_ids": [0, 5], "labels": [-100]}], DataError, ["line 1", "tokenized is"]),
        ("a.jsonl", [], DataError, ["has no rows"]),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared(
    tmp_path: Path, name: str, rows: list[dict[str, Any]], kind: type[LitftError], words: list[str]
) -> None:
    folder, path = write_checkpoint(tmp_path / "tiny"), write(tmp_path / name, rows)
    with pytest.raises(kind) as caught:
        run(folder, path)
    assert all(part in str(caught.value) for part in words)
    assert not (tmp_path / "out").exists()


def test_other_pt_files_are_refused(tmp_path: Path) -> None:
    folder, path = write_checkpoint(tmp_path / "tiny"), write_pt(tmp_path / "rows.pt", ROWS)
    run(folder, path)
    with pytest.raises(DataError, match="is prepared already; name its folder as --data_dir"):
        run(folder, tmp_path / "out" / "train.pt", overwrite=True)
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="is no list of"):
        run(folder, path, overwrite=True)
