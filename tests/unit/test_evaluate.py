"""`litft evaluate` on prepared rows: training's own numbers, answers beside those of the data, the page, resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from read_pages import read_page
from scored_rows import draw_rows, make_scored_world, write_folder
from tiny_run import make_config, make_world, methods, open_run

from litft import LLM
from litft.cli import main
from litft.config.evaluate import EvaluateConfig
from litft.data.batches import Batching
from litft.data.store import PreparedData
from litft.errors import ConfigError, DataError
from litft.evaluate.command import evaluate
from litft.evaluate.heldout import measure
from litft.evaluate.matching import match, summarise
from litft.evaluate.subject import Subject
from litft.text.tokenizer import Tokenizer
from litft.train.evaluate import validate


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has `model/`, `other/` with other weights, and `fruit/` with rows of two sources."""
    folder = make_scored_world(tmp_path_factory.mktemp("evaluate") / "world")
    other = make_world(folder / "second", seed=7)
    shutil.move(other / "model", folder / "other")
    return folder


def run(world: Path, **changes: Any) -> tuple[str, list[str], dict[str, Any]]:
    """Gives the table, what was told, and the numbers."""
    given: dict[str, Any] = {"checkpoint_dir": world / "model", "data_dir": world / "fruit", "out_dir": Path("out")}
    config = EvaluateConfig(**{**given, **changes})
    told: list[str] = []
    table = "".join(evaluate(config, told.append))
    return table, told, json.loads((Path("out") / f"fruit-{config.split}.json").read_text())


def test_the_numbers_are_those_of_validation(world: Path) -> None:
    config = dataclasses.replace(make_config(world), data_dir=world / "fruit")
    training = open_run(config, methods()["full"])
    data, rows = training.inputs.test, training.inputs.test_rows.tolist()
    batching = Batching(2, int(data.lengths.max()), packed=True)
    expected = validate(
        training.fabric, training.model, data, rows, batching, lambda x, y: F.cross_entropy(x, y, reduction="none")
    )
    _, _, values = run(world, micro_batch_size=2)
    [found] = values["models"]
    assert (found["loss"], found["accuracy"]) == (expected.loss, expected.accuracy)
    assert {name: source["loss"] for name, source in found["sources"].items()} == expected.by_source
    assert found["perplexity"] == math.exp(expected.loss)
    assert (found["rows"], found["tokens"]) == (len(rows), int(data.target_mask.sum()))


def test_each_row_by_itself_gives_the_same(world: Path) -> None:
    llm = LLM.load(world / "model")
    rows = [*draw_rows(), *(half_foreseen(llm, number) for number in range(6))]
    write_folder(Path("fruit"), llm.tokenizer, rows, held_out=1)
    data = PreparedData.load(Path("fruit/train.pt"))
    losses, hits = [], []
    for number in range(len(data)):
        ids, mask = data.row(number)
        scores = llm.logits(ids[None].long())[0, :-1]
        losses.append(F.cross_entropy(scores, ids[1:].long(), reduction="none")[mask[1:]])
        hits.append((scores.argmax(-1) == ids[1:])[mask[1:]])
    for size in (1, 3, 50):
        found = measure(llm.model, data, range(len(data)), size, int(data.lengths.max()))[None]
        assert found.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
        assert found.accuracy == float(torch.cat(hits).double().mean()) > 0.05


def half_foreseen(llm: LLM, number: int) -> tuple[list[int], list[bool]]:
    """Gives a row whose answer is the model's own but for one token."""
    ids = [0, 3 + number, 4]
    for _ in range(6):
        ids.append(int(llm.logits([ids])[0, -1].argmax()))
    ids[5] = (ids[5] + 1) % 259
    return ids, [False] * 3 + [True] * 6


def test_answers_are_those_of_generate_and_stand_side_by_side(world: Path) -> None:
    table, told, values = run(world, beside=world / "other", generate=3, max_new_tokens=6)
    data = PreparedData.load(world / "fruit" / "test.pt")
    assert [row["row"] for row in values["rows"]] == [0, 1, 2]
    for path in (world / "model", world / "other"):
        llm = LLM.load(path)
        for row in values["rows"]:
            ids, mask = data.row(row["row"])
            first = int(mask.int().argmax())
            ids = ids[:first].long()
            made: list[int] = []
            while len(made) < 6:
                made.append(
                    int(llm.logits(torch.cat([ids, torch.tensor(made, dtype=torch.int64)])[None])[0, -1].argmax())
                )
                if made[-1] in llm.tokenizer.stop_ids:
                    made.pop()
                    break
            assert row["answers"][str(path)]["text"] == llm.tokenizer.decode(made)
    assert values["models"][0]["weights_sha256"] != values["models"][1]["weights_sha256"]
    assert [line.split()[0] for line in table.splitlines() if line.startswith(f"  {world}")] == [
        *[str(world / name) for name in ("model",) * 3 + ("other",) * 3],
        *[str(world / name) for name in ("model", "other")],
    ]
    assert told == ["out/fruit-test.html: numbers and answers to be read; out/fruit-test.json: the same for programs"]


def test_the_page_shows_what_is_in_the_numbers(world: Path) -> None:
    _, _, values = run(world, beside=world / "other", generate=2, max_new_tokens=5)
    said = read_page(Path("out/fruit-test.html"))
    for row in values["rows"]:
        assert f"row {row['row']}, " in said and row["expected"] in said
        for model, answer in row["answers"].items():
            assert f"{model}: ROUGE-L {answer['rouge_l']:.3f}" in said and answer["text"] in said


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    step = litft_step()
    monkeypatch.setattr("litft.evaluate.answers.Engine.step", lambda engine: asked.append(1) or step(engine))
    run(world, generate=2, max_new_tokens=4)
    count, first = len(asked), [path.read_bytes() for path in sorted(Path("out").iterdir())]
    run(world, generate=2, max_new_tokens=4)
    assert count > 0 and len(asked) == count
    assert first == [path.read_bytes() for path in sorted(Path("out").iterdir())]
    run(world, generate=3, max_new_tokens=4)
    kept = Path("out/fruit-test.answers.jsonl").read_text().splitlines()
    assert len(kept) == 3 and len(asked) > count


def litft_step() -> Any:
    from litft.generate.engine import Engine

    return Engine.step


def test_rows_that_no_model_can_read_are_left_out(world: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(world / "model")
    ids = [0, *range(3, 203)]
    long = (ids, [False, *[True] * 200])
    silent = ([0, 5, 6], [False] * 3)
    write_folder(tmp_path / "fruit", tokenizer, [*draw_rows()[:4], long, silent], held_out=5)
    _, told, values = run(world, data_dir=tmp_path / "fruit")
    assert told[:2] == ["1 of 5 rows are over 64 tokens and left out.", "1 rows carry no loss and are left out."]
    assert values["models"][0]["rows"] == 3


@pytest.mark.parametrize(
    ("answer", "expected", "found"),
    [
        ("Red. ", "Red.", (True, 1.0)),
        ("red", "Red.", (False, 1.0)),
        ("a red box", "a box", (False, 0.8)),
        ("", "box", (False, 0.0)),
    ],
)
def test_how_near_an_answer_comes(answer: str, expected: str, found: tuple[bool, float]) -> None:
    assert match(answer, expected) == found


def test_nearness_is_averaged() -> None:
    assert summarise([match("a", "a"), match("b", "c")]) == (2, 0.5, 0.5)


def wrong(text: str) -> Any:
    return pytest.raises((ConfigError, DataError), match=text)


def test_mistakes_are_told_before_a_model_is_loaded(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Subject, "llm", property(lambda self: pytest.fail("a model was loaded")))
    with wrong(r"--beside .* is the checkpoint itself"):
        run(world, beside=world / "second" / ".." / "model")
    with wrong("has no row of at most 64 tokens"):
        long = write_folder(Path("long"), Tokenizer(world / "model"), [([0, *range(3, 203)], [True] * 201)] * 5)
        run(world, data_dir=long)
    with wrong('train_on "all", so its answers cannot be told from its questions'):
        run(
            world,
            data_dir=write_folder(Path("all"), Tokenizer(world / "model"), draw_rows(), train_on="all"),
            generate=1,
        )
    with wrong("prepared with the tokenizer of another model"):
        strange = write_folder(Path("strange"), Tokenizer(world / "model"), draw_rows(), tokenizer={"hash": "x"})
        run(world, data_dir=strange)
    Path("out").mkdir()
    Path("out/fruit-test.html").write_text("<p>mine</p>")
    with wrong("out/fruit-test.html exists and is no page of litft evaluate"):
        run(world)
    Path("mine/fruit").mkdir(parents=True)
    shutil.copy(world / "fruit" / "train.pt", "mine/fruit/train.pt")
    shutil.copy(world / "fruit" / "manifest.yaml", "mine/fruit/manifest.yaml")
    with wrong(r"has no test.pt: no row was held out; --split train"):
        run(world, data_dir=Path("mine/fruit"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data_dir": None}, "Give --data_dir .* or --tasks"),
        ({"data_dir": None, "tasks": ("mmlu",), "generate": 2}, "--generate answers rows of prepared data"),
        ({"limit": 3}, "--limit goes with --tasks"),
        ({"apply_chat_template": True}, "--apply_chat_template goes with --tasks"),
        ({"generate": -1}, "generate is -1; it must be at least 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    with wrong(said):
        EvaluateConfig(**{"checkpoint_dir": Path("m"), "data_dir": Path("d"), **changes})


def test_the_command_line_prints_the_table_alone(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--checkpoint_dir", str(world / "model"), "--data_dir", str(world / "fruit"), "--split", "train"]
    assert main(["evaluate", *words]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"How well {world}/fruit/train.pt is foreseen\n  model ")
    assert len(shown.out.splitlines()) == 5 and "accuracy" in shown.out
    assert len(list(Path("out/evaluate").glob("*/fruit-train.html"))) == 1


def digests(folders: Iterable[Path], **how: Any) -> list[str]:
    return [Subject(folder, **how).digest() for folder in folders]


def test_a_digest_is_of_the_weights_and_not_of_their_place(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "model", tmp_path / "copy")
    first, copy, other = digests((world / "model", tmp_path / "copy", world / "other"))
    assert first == copy != other
    assert digests([world / "model"], precision="bf16-true") != [first]
