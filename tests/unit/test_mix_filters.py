"""A mix with filters: what leaves, what is told of it, and that what is left keeps every promise."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_mix import give_scores, make_folder, mixed, pairs_in, removed_in
from tiny_text import write_checkpoint

from litft.config.filters import BenchmarksConfig, FiltersConfig, NearConfig, PatternsConfig
from litft.config.inspect import InspectConfig
from litft.config.io import load_yaml
from litft.config.mix import JoinConfig
from litft.data.filters import build_filters
from litft.data.filters.near import NOT_COMPARED, compared_runs, overlap_of
from litft.data.filters.row import RowReader
from litft.data.inspect import inspect
from litft.data.mix import join
from litft.data.mixing.order import ORDERS
from litft.data.mixing.parts import open_parts
from litft.data.store import PreparedData
from litft.errors import DataError
from litft.text.tokenizer import Tokenizer

FOX = "the quick brown fox jumps over the lazy dog and then it sleeps"
A = [
    ("What is one and one?", "Two, as everybody knows."),
    ("Draw a cat.", "As an AI language model, I cannot."),
    ("Tell me of the fox.", f"Well, {FOX} for long."),
    ("Wie geht es?", "Mir geht es sehr gut, vielen Dank, und Ihnen hoffentlich auch."),
    ("Name a colour of the evening sky in summer", "A deep and warm red"),
    ("Short?", "Yes."),
]
B = [
    ("What is one and one?", "Two, as everybody knows."),  # equal to a row of A
    ("Name a colour of the evening sky in winter", "A deep and warm red"),  # near to a row of A
    ("What is new in the garden of the old house?", "Roses, and a bench of wood under the tree."),
    ("A question that nobody asked", "An answer that nobody gave, either."),
]
HELD_OUT = [
    ("What is new in the garden of the old house?", "Roses, and a bench of stone under the tree."),
    ("A fox again?", f"Yes: {FOX}."),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has `a` and `b`, the rows of `b` scored; `c` with held-out rows, and a benchmark that knows the fox."""
    root = tmp_path_factory.mktemp("filters")
    write_checkpoint(root / "model")
    make_folder(root, "a", A)
    give_scores(make_folder(root, "b", B), [0.1, 0.9, 0.5, math.nan])
    made = make_folder(root, "c", HELD_OUT, prompt_style="alpaca")
    (made / "train.pt").rename(made / "test.pt")
    rows = make_folder(root, "d", [("Only this?", "Only this.")])
    (rows / "train.pt").rename(made / "train.pt")
    (root / "bench.jsonl").write_text(
        json.dumps({"id": 1, "text": "Nothing of that."}) + "\n" + json.dumps({"q": {"deep": [f"So {FOX}"]}}) + "\n"
    )
    return root


ALL = {
    "languages": ("en",),
    "leave_out": PatternsConfig(question="^Short"),
    "quality": ("refusal",),
    "near": NearConfig(threshold=0.5, words=2),
}


def everything(root: Path) -> dict[str, Any]:
    return {**ALL, "benchmarks": BenchmarksConfig(files=(str(root / "bench.jsonl"),))}


def test_each_filter_takes_its_rows_and_says_so(folder: Path, tmp_path: Path) -> None:
    messages = mixed(folder, tmp_path, "a", "b", "c", filters=everything(folder), order="given")
    # Of the two near rows that of b has a score, so it stays.
    assert pairs_in(folder, tmp_path / "train.pt") == [A[0], B[1], B[3], ("Only this?", "Only this.")]
    assert pairs_in(folder, tmp_path / "test.pt") == [HELD_OUT[0]]
    found = {(Path(row["data_dir"]).name, row["file"], row["row"]): row for row in removed_in(tmp_path)}
    assert {place: row["reason"] for place, row in found.items()} == {
        ("c", "test.pt", 1): "benchmarks",
        ("b", "train.pt", 0): "equal",
        ("a", "train.pt", 1): "quality.refusal",
        ("a", "train.pt", 2): "benchmarks",
        ("a", "train.pt", 3): "languages",
        ("a", "train.pt", 4): "near",
        ("a", "train.pt", 5): "leave_out.question",
        ("b", "train.pt", 2): "near",
    }
    assert found["a", "train.pt", 2]["detail"] == f'{folder / "bench.jsonl"}, line 2: "{FOX}"'
    assert found["a", "train.pt", 4]["detail"].endswith(f"near to row 1 of {folder / 'b'}")
    assert found["b", "train.pt", 2]["detail"].endswith(f"near to row 0 of {folder / 'c'}, held out")
    assert found["b", "train.pt", 0]["detail"] == f"equal to row 0 of {folder / 'a'}"
    assert found["a", "train.pt", 3]["question"] == "Wie geht es?" and found["a", "train.pt", 3]["source"] == "a"
    table = messages[0]
    for line in ("left out by near", "left out by benchmarks", "held out, left out by benchmarks", "rows left"):
        assert line in table
    shown = "".join(inspect(InspectConfig(data_dir=tmp_path, checkpoint_dir=folder / "model")))
    assert all(line.strip() in shown for line in table.splitlines())


def test_what_is_told_adds_up_in_the_manifest(folder: Path, tmp_path: Path) -> None:
    mixed(folder, tmp_path, "a", "b", "c", filters=everything(folder))
    manifest = load_yaml(tmp_path / "manifest.yaml")
    first, second, third = manifest["parts"]
    reasons = ["equal", "leave_out.question", "languages", "quality.refusal", "benchmarks", "near"]
    assert list(first["removed"].items()) == list(zip(reasons, (0, 1, 1, 1, 1, 1), strict=True))
    assert list(second["removed"].items()) == list(zip(reasons, (1, 0, 0, 0, 0, 1), strict=True))
    assert (second["rows"], second["rows_left"]) == (4, 2)
    assert third["held_out"] == {"rows": 2, "removed": {"equal": 0, "benchmarks": 1}, "rows_taken": 1}
    assert manifest["settings"]["filters"]["near"] == {"threshold": 0.5, "of": "whole", "words": 2, "num_perm": 128}
    assert any("too short" in note for note in manifest["notes"])


def test_answers_too_short_to_tell_rows_apart_are_not_compared(folder: Path, tmp_path: Path) -> None:
    quiz = [(f"Question {number}?", "D") for number in range(3)]
    seven, eight = "not so near as it does seem", "not so near as it does seem here"
    rows = [*quiz, ("a", seven), ("b", seven), ("c", eight), ("d", eight)]
    make_folder(folder, "quiz", rows)
    near = NearConfig(threshold=0.8, of="answer")
    messages = mixed(folder, tmp_path, "quiz", filters={"near": near}, order="given")
    assert pairs_in(folder, tmp_path / "train.pt") == rows[:-1]
    assert load_yaml(tmp_path / "manifest.yaml")["notes"] == {NOT_COMPARED: 5}
    assert NOT_COMPARED in messages[0]


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"order": "score"}, "take another order than score"),
        ({"filters": {"min_score": 0.1}}, "mix each folder by itself with its own filters.min_score"),
        ({"filters": {"keep": 0.5, "keep_of": "all"}}, "keep a share of each with filters.keep_of source"),
    ],
)
def test_what_to_do_with_scores_of_two_kinds(
    folder: Path, tmp_path: Path, options: dict[str, Any], advice: str
) -> None:
    give_scores(make_folder(folder, "hard", A), [0.0] * 6, kind="column hardness")
    with pytest.raises(DataError) as caught:
        mixed(folder, tmp_path / "out", "b", "hard", **options)
    assert f"cannot be compared; score the folders alike, or {advice}" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_folder_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder / "b", tmp_path / "broken")
    text = (broken / "manifest.yaml").read_text(encoding="utf-8")
    for cut in (0, len(text) // 2, text.index("files:")):
        (broken / "manifest.yaml").write_text(text[:cut], encoding="utf-8")
        with pytest.raises(DataError, match="broken is unfinished or damaged"):
            mixed(folder, tmp_path / "out", "a", str(broken))
    assert not (tmp_path / "out").exists()


def test_one_folder_is_enough(folder: Path, tmp_path: Path) -> None:
    mixed(folder, tmp_path, "a", filters={"max_target_tokens": 10}, order="given")
    assert pairs_in(folder, tmp_path / "train.pt") == [A[5]]


def test_shares_are_of_what_filters_leave(folder: Path, tmp_path: Path) -> None:
    filters = {"leave_out": PatternsConfig(question="^(Draw|Short)")}
    mixed(folder, tmp_path, "a", "b", filters=filters, weights={"a": 4, "b": 3}, order="given")
    assert pairs_in(folder, tmp_path / "train.pt") == [A[0], *A[2:5], *B[1:]]
    part = load_yaml(tmp_path / "manifest.yaml")["parts"][0]
    assert (part["rows"], part["rows_left"], part["rows_taken"]) == (6, 4, 4)
    mixed(folder, tmp_path, "a", "b", filters=filters, max_rows={"a": 2, "b": 1})
    assert len(pairs_in(folder, tmp_path / "train.pt")) == 3


def test_a_cut_answer_is_unfinished(folder: Path, tmp_path: Path) -> None:
    cut = [("Tell", "long " * 60), ("Tell", "Short.")]
    made = make_folder(folder, "cut", cut, max_seq_length=220, too_long="truncate_response")
    assert len(PreparedData.load(made / "train.pt")) == 2
    mixed(folder, tmp_path, "cut", filters={"quality": ("unfinished",)})
    assert pairs_in(folder, tmp_path / "train.pt") == [cut[1]]
    assert [row["detail"] for row in removed_in(tmp_path)] == ["cut: it has no end token"]


def test_scores_go_with_their_rows(folder: Path, tmp_path: Path) -> None:
    mixed(folder, tmp_path / "m", "a", "b", order="score")
    data = PreparedData.load(tmp_path / "m" / "train.pt")
    assert data.score is not None and data.meta["score"] == {"kind": "judge"}
    said = pairs_in(folder, tmp_path / "m" / "train.pt")
    scores = dict(zip(said, data.score.tolist(), strict=True))
    assert scores[B[1]] == pytest.approx(0.9) and scores[B[2]] == 0.5 and math.isnan(scores[A[2]])
    assert said[:2] == [B[2], B[1]]  # what has no score comes last
    mixed(folder, tmp_path / "again", "a", order="given")
    assert PreparedData.load(tmp_path / "again" / "train.pt").score is None
    mixed(folder, tmp_path / "on", "b", order="score_descending")
    assert pairs_in(folder, tmp_path / "on" / "train.pt") == [B[1], B[2], B[0], B[3]]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"min_score": 0.2}, [1, 2]),
        ({"max_score": 0.5}, [0, 2]),
        ({"max_score": 0.5, "unscored": "keep"}, [0, 2, 3]),
        ({"keep": 0.34}, [1]),
        ({"keep": 0.67}, [1, 2]),
        ({"keep": 0.34, "unscored": "keep"}, [1, 3]),
        ({"keep": 0.34, "keep_by": "lowest_score"}, [0]),
        ({"keep": 0.25, "keep_by": "target_tokens"}, [2]),
        ({"keep": 0.01}, [1]),
    ],
)
def test_rows_are_kept_by_their_scores(folder: Path, tmp_path: Path, filters: dict[str, Any], left: list[int]) -> None:
    mixed(folder, tmp_path, "b", filters=filters, order="given")
    assert pairs_in(folder, tmp_path / "train.pt") == [B[number] for number in left]
    assert len(removed_in(tmp_path)) == 4 - len(left)


def test_a_share_of_each_source_or_of_all(folder: Path, tmp_path: Path) -> None:
    give_scores(make_folder(folder, "low", A), [0.01, 0.02, 0.03, 0.04, 0.05, 0.06], kind="loss")
    mixed(folder, tmp_path, "b", "low", filters={"keep": 0.34, "keep_of": "source"}, order="given")
    assert pairs_in(folder, tmp_path / "train.pt") == [B[1], A[4], A[5]]
    with pytest.raises(DataError, match=r"are judge, those of .*low loss: they cannot be compared"):
        mixed(folder, tmp_path, "b", "low", filters={"keep": 0.34, "keep_of": "all"})
    give_scores(folder / "low", [0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    mixed(folder, tmp_path, "b", "low", filters={"keep": 0.34, "keep_of": "all"}, order="given")
    assert pairs_in(folder, tmp_path / "train.pt") == [*B[:3]]


def test_scores_go_through_join(folder: Path, tmp_path: Path) -> None:
    join(JoinConfig(data_dirs=(str(folder / "b"), str(folder / "a")), destination_path=tmp_path / "j"))
    data = PreparedData.load(tmp_path / "j" / "train.pt")
    assert pairs_in(folder, tmp_path / "j" / "train.pt") == [*B, *A[1:]]  # as they stand, the equal one once
    assert data.score is not None and data.meta["score"] == {"kind": "judge"}
    assert data.score[:3].tolist() == pytest.approx([0.1, 0.9, 0.5]) and bool(data.score[3:].isnan().all())


def test_shares_inverse_to_a_score(folder: Path, tmp_path: Path) -> None:
    make_folder(folder, "x", [(f"x{number}", "x") for number in range(30)])
    make_folder(folder, "y", [(f"y{number}", "y") for number in range(30)])
    mixed(folder, tmp_path, "x", "y", inverse_to={"x": 0.6, "y": 0.3})
    assert Counter(question[0] for question, _ in pairs_in(folder, tmp_path / "train.pt")) == {"x": 15, "y": 30}


def test_what_is_refused_writes_nothing(folder: Path, tmp_path: Path) -> None:
    even = {"weights": {"a": 1, "b": 1}}
    cases: list[tuple[tuple[str, ...], dict[str, Any], str]] = [
        (("a",), {"filters": {"min_score": 0.1}}, "has a score, and the mix chooses by scores"),
        (("a",), {"order": "score"}, "has a score, and the mix chooses by scores"),
        (("a",), {"filters": {"min_tokens": 5000}}, "No training row is left: tokens took 6; ask for less"),
        (("a", "b"), {"filters": {"leave_out": PatternsConfig(answer="e")}, **even}, "No training row"),
        (("a", "b"), {"filters": {"match": PatternsConfig(answer="cannot")}, **even}, "no row of it is left"),
        (
            ("a",),
            {"filters": {"benchmarks": BenchmarksConfig(files=("no.json",))}},
            "no benchmark file no.json",
        ),
    ]
    for names, options, words in cases:
        with pytest.raises(DataError) as caught:
            mixed(folder, tmp_path / "out", *names, **options)
        assert words in str(caught.value)
    with pytest.raises(DataError, match="is one of data_dirs, which are only read"):
        mixed(folder, folder / "a", "a", "b")
    assert not (tmp_path / "out").exists()


def test_without_the_tokenizer_only_texts_are_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no checkpoints/ here
    mixed(folder, tmp_path / "m", "a", filters={"max_target_tokens": 10}, checkpoint_dir=None)
    assert {row["question"] for row in removed_in(tmp_path / "m")} == {None}
    with pytest.raises(DataError, match="is not at hand; name its model with --checkpoint_dir"):
        mixed(folder, tmp_path / "m", "a", filters={"quality": ("all",)}, checkpoint_dir=None)


def test_an_old_report_goes(folder: Path, tmp_path: Path) -> None:
    mixed(folder, tmp_path, "a", filters={"max_target_tokens": 10})
    assert removed_in(tmp_path)
    mixed(folder, tmp_path, "a")
    assert not (tmp_path / "removed.jsonl").exists()


def test_the_same_settings_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    files = ("train.pt", "test.pt", "manifest.yaml", "removed.jsonl")
    for name in ("x", "y"):
        mixed(folder, tmp_path / name, "a", "b", "c", filters=everything(folder), repeats={"b": 2.5})
    assert [(tmp_path / "x" / name).read_bytes() for name in files] == [
        (tmp_path / "y" / name).read_bytes() for name in files
    ]


WORDS = ("cat", "dog", "a", "the", "runs", "As an AI", "123", "Hund", "...", "and", "sky is blue today", "la la la")
bound = st.one_of(st.none(), st.integers(150, 260))
drawn_filters = st.fixed_dictionaries(
    {},
    optional={
        "min_tokens": st.integers(150, 200),
        "max_tokens": st.integers(200, 300),
        "max_target_tokens": st.integers(5, 60),
        "min_score": st.floats(0, 0.4),
        "unscored": st.sampled_from(["keep", "leave_out"]),
        "leave_out": st.sampled_from([PatternsConfig(answer="cat"), PatternsConfig(whole="123")]),
        "languages": st.just(("en",)),
        "quality": st.sampled_from([("all",), ("refusal", "empty")]),
        "near": st.sampled_from([0.5, 0.8]).map(lambda value: NearConfig(threshold=value, words=1)),
        "keep": st.floats(0.2, 1),
        "keep_of": st.sampled_from(["source", "all"]),
    },
)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has two folders of rows drawn from few words, scored and held out in part."""
    root = tmp_path_factory.mktemp("crowd")
    write_checkpoint(root / "model")
    generator = torch.Generator().manual_seed(7)

    def text(most: int) -> str:
        count = int(torch.randint(1, most, (1,), generator=generator))
        return " ".join(WORDS[number] for number in torch.randint(0, len(WORDS), (count,), generator=generator))

    for name in ("p", "q"):
        made = make_folder(root, name, [(f"Say {text(4)}", text(9)) for _ in range(40)], held_out=0.15)
        count = len(PreparedData.load(made / "train.pt"))
        scores = torch.rand(count, generator=generator)
        give_scores(made, torch.where(scores < 0.2, torch.nan, scores).tolist())
    return root


def test_no_row_of_a_mix_violates_a_filter_and_none_is_lost(crowd: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(crowd / "model")
    parts = open_parts([str(crowd / "p"), str(crowd / "q")], keeps_names=False)
    known = {(part.name, file): len(data) for part in parts for file, data in part.files.items()}

    @settings(max_examples=50, derandomize=True, deadline=None)
    @given(drawn_filters, st.sampled_from(list(ORDERS)))
    def check(asked: dict[str, Any], order: Any) -> None:
        try:
            mixed(crowd, tmp_path, "p", "q", filters=asked, order=order)
        except DataError as error:
            assert "No training row is left" in str(error)
            return
        config = FiltersConfig(**asked)
        data, removed = PreparedData.load(tmp_path / "train.pt"), removed_in(tmp_path)
        manifest = load_yaml(tmp_path / "manifest.yaml")
        gone = Counter((row["data_dir"], row["file"]) for row in removed)
        assert len({(row["data_dir"], row["file"], row["row"]) for row in removed}) == len(removed)
        for part in manifest["parts"]:
            assert part["rows_left"] + sum(part["removed"].values()) == part["rows"]
            assert gone[part["data_dir"], "train.pt"] == sum(part["removed"].values())
            assert part["rows"] == known[part["data_dir"], "train.pt"]
        assert len(data) == sum(part["rows_left"] for part in manifest["parts"])
        reader = RowReader(data, tokenizer)
        rows = [reader.row(number) for number in range(len(data))]
        filters = build_filters(config)
        assert not [row for row in rows for each in filters if each.judge(row)]
        if config.near.threshold is not None:
            check_near(config.near, [row.text.whole for row in rows], tmp_path)
        check_order(order, data)

    def check_near(near: NearConfig, said: list[str], out: Path) -> None:
        """By brute force: MinHash may miss a pair at the threshold, but of these rows it misses none."""
        held_out = [f"{question}\n\n{answer}" for question, answer in pairs_in(crowd, out / "test.pt")]
        runs = [compared_runs(text, near.words) for text in (*said, *held_out)]
        for place in range(len(said)):
            for other in range(place):
                assert overlap_of(runs[place], runs[other]) < near.threshold
            assert all(overlap_of(runs[place], other) < near.threshold for other in runs[len(said) :])

    def check_order(order: str, data: PreparedData) -> None:
        scores = [math.inf if math.isnan(score) else score for score in data.score.tolist()]  # type: ignore[union-attr]
        if order == "length":
            assert data.lengths.tolist() == sorted(data.lengths.tolist())
        elif order == "score":
            assert scores == sorted(scores)
        elif order == "score_descending":
            known_scores = [score for score in scores if score < math.inf]
            assert scores[: len(known_scores)] == sorted(known_scores, reverse=True)
        elif order in ("source", "given"):
            assert data.source.tolist() == sorted(data.source.tolist())

    check()
