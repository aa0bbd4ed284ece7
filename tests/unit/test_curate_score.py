"""Rows scored by a checkpoint: the numbers against a plain computation, a killed run, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from scored_rows import Row, draw_rows, make_scored_world, write_folder
from tiny_run import CPU
from tiny_text import BOS

from litft.checkpoint.journal import Journal
from litft.config.curate import ScoreConfig
from litft.config.io import load_yaml
from litft.curate.score import score
from litft.data.store import PreparedData
from litft.errors import ConfigError, DataError
from litft.model.gpt import GPT
from litft.model.load import load_model
from litft.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scored_world(tmp_path_factory.mktemp("score"))


def config_of(world: Path, out: Path, **changes: Any) -> ScoreConfig:
    given = {"data_dir": world / "fruit", "checkpoint_dir": world / "model", "destination_path": out}
    return ScoreConfig(**{**given, **changes})


def scored(world: Path, out: Path, **changes: Any) -> list[float]:
    """Scores and gives the numbers of both files, as float32."""
    score(config_of(world, out, **changes))
    return [*scores_of(out / "train.pt"), *scores_of(out / "test.pt")]


def scores_of(path: Path) -> list[float]:
    found = PreparedData.load(path).score
    assert found is not None
    return [float(number) for number in found]


@torch.no_grad()
def nats(model: GPT, ids: Sequence[int], wanted: Sequence[int]) -> float:
    """Gives what tokens cost in a text, one text at a time, in float64."""
    chances = model.head(model(torch.tensor([list(ids)])))[0].double().log_softmax(-1)
    return -sum(float(chances[place - 1, ids[place]]) for place in wanted)


def plain_loss(model: GPT, row: Row) -> float:
    ids, mask = row
    wanted = [place for place, learn in enumerate(mask) if learn]
    return nats(model, ids, wanted) / len(wanted)


def plain_ifd(model: GPT, row: Row) -> float:
    ids, mask = row
    answers: list[list[int]] = []
    for place, learn in enumerate(mask):
        if learn and not mask[place - 1]:
            answers.append([BOS])
        if learn:
            answers[-1].append(ids[place])
    alone = sum(nats(model, answer, range(1, len(answer))) for answer in answers)
    return plain_loss(model, row) / (alone / sum(mask))


@pytest.mark.parametrize("by", ["ifd", "loss"])
def test_the_numbers_are_those_of_a_plain_computation(world: Path, tmp_path: Path, by: str) -> None:
    model = load_model(world / "model", "32-true", CPU)
    plain = plain_ifd if by == "ifd" else plain_loss
    expected = [plain(model, row) for row in draw_rows()]
    assert scored(world, tmp_path / "out", by=by) == pytest.approx(expected, rel=1e-5)
    assert len({round(number, 4) for number in expected}) > 15  # they can be told apart
    if by == "ifd":
        assert expected[-1] == 1.0  # it answers nothing


def test_micro_batches_change_nothing_but_rounding(world: Path, tmp_path: Path) -> None:
    one, many = (scored(world, tmp_path / str(size), micro_batch_size=size) for size in (1, 7))
    assert one == pytest.approx(many, rel=1e-5)


def test_a_killed_run_goes_on_bit_for_bit(world: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    score(config_of(world, whole))
    lines = (whole / "scores.jsonl").read_bytes().splitlines(keepends=True)
    cut.mkdir()
    (cut / "scores.jsonl").write_bytes(b"".join(lines[:11]) + lines[11][:9])  # killed within a line
    messages: list[str] = []
    score(config_of(world, cut), messages.append)
    assert "10 of 20 rows are done; going on from there." in messages
    for name in ("train.pt", "test.pt"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes()
    assert load_yaml(whole / "manifest.yaml") == load_yaml(cut / "manifest.yaml")
    assert set((cut / "scores.jsonl").read_bytes().splitlines(keepends=True)) == set(lines)
    # What is known is believed, not computed again.
    changed = [line.replace(b'"loss": ', b'"loss": 1') if line == lines[1] else line for line in lines]
    (cut / "scores.jsonl").write_bytes(b"".join(changed))
    assert scored(world, cut, overwrite=True) != scored(world, whole, overwrite=True)


def test_what_is_written(world: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    assert score(config_of(world, tmp_path / "out"), messages.append) == tmp_path / "out"
    before, after = (PreparedData.load(folder / "train.pt") for folder in (world / "fruit", tmp_path / "out"))
    assert torch.equal(before.input_ids, after.input_ids) and torch.equal(before.target_mask, after.target_mask)
    manifest = load_yaml(tmp_path / "out" / "manifest.yaml")
    assert manifest["dataset"] == "fruit" and manifest["files"]["train.pt"]["rows"] == 16
    assert manifest["score"] == after.meta["score"]
    assert manifest["score"]["kind"] == "ifd" and "each answer alone behind <s>" in manifest["score"]["meaning"]
    table, *_ = [message for message in messages if message.startswith("ifd of the rows of train.pt")]
    values = scores_of(tmp_path / "out" / "train.pt")
    plums = next(line.split() for line in table.splitlines() if line.strip().startswith("plums"))
    assert plums[1:3] == ["8", "8"]
    assert float(plums[3]) == pytest.approx(sum(values[::2]) / 8, abs=6e-4)
    assert float(plums[5]) == pytest.approx(float(torch.tensor(values[::2]).quantile(0.5)), abs=6e-4)
    assert messages[-1].startswith("Next: litft prepare mix ")
    assert " --filters.max_score 1 --filters.keep 0.1 " in messages[-1]


def test_what_is_done_is_not_done_again(world: Path, tmp_path: Path) -> None:
    scored(world, tmp_path / "out")
    train = tmp_path / "out" / "train.pt"
    before, messages = train.stat().st_mtime_ns, list[str]()
    assert score(config_of(world, tmp_path / "out", micro_batch_size=2), messages.append) == tmp_path / "out"
    assert messages == [f"{tmp_path / 'out'} is whole already: these rows, scored in this way."]
    assert train.stat().st_mtime_ns == before
    for options in ({"by": "loss"}, {"precision": "bf16-true"}):
        with pytest.raises(DataError, match="already holds prepared data, not scored in this way"):
            score(config_of(world, tmp_path / "out", **options))
    train.write_bytes(train.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"train.pt is missing or was changed; write it again with --overwrite true"):
        score(config_of(world, tmp_path / "out"))
    score(config_of(world, tmp_path / "out", overwrite=True))
    assert train.stat().st_mtime_ns != before


def test_the_same_work_gives_the_same_bytes(world: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        score(config_of(world, tmp_path / name))
    for name in ("train.pt", "test.pt", "manifest.yaml", "scores.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_of_former_data_stays(world: Path, tmp_path: Path) -> None:
    scored(world, tmp_path / "out")
    shutil.copytree(world / "fruit", tmp_path / "fruit")
    (tmp_path / "fruit" / "test.pt").unlink()
    score(config_of(world, tmp_path / "out", data_dir=tmp_path / "fruit", overwrite=True))
    assert not (tmp_path / "out" / "test.pt").exists()
    assert list(load_yaml(tmp_path / "out" / "manifest.yaml")["files"]) == ["train.pt"]


def test_another_model_does_not_go_on(world: Path, tmp_path: Path) -> None:
    first = scored(world, tmp_path / "out")
    (tmp_path / "out" / "manifest.yaml").unlink()  # as if it had been killed before the end
    other = other_weights(world, tmp_path / "model", lambda name, tensor: tensor * 1.5)
    with pytest.raises(
        DataError,
        match=r"was begun with other weights \(--checkpoint_dir\); name another destination_path, or begin again",
    ):
        score(config_of(world, tmp_path / "out", checkpoint_dir=other))
    with pytest.raises(DataError, match=r"was begun with another --by \(ifd\); name"):
        score(config_of(world, tmp_path / "out", by="loss"))
    assert scored(world, tmp_path / "out", checkpoint_dir=other, overwrite=True) != first


def other_weights(world: Path, folder: Path, change: Any) -> Path:
    shutil.copytree(world / "model", folder, ignore=shutil.ignore_patterns("*.sha256"))
    path = folder / "lit_model.safetensors"
    save_file({name: change(name, tensor).contiguous() for name, tensor in load_file(path).items()}, path)
    return folder


def test_a_loss_that_is_not_finite_is_named_and_refused(world: Path, tmp_path: Path) -> None:
    longest = max(range(16), key=lambda number: len(draw_rows()[number][0]))

    def spoil(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * torch.nan if name.endswith("lm_head.weight") else tensor

    broken = other_weights(world, tmp_path / "model", spoil)
    with pytest.raises(DataError, match=rf"Row {longest} of .*train.pt has the loss nan \(nan alone\) with .*32-true"):
        score(config_of(world, tmp_path / "out", checkpoint_dir=broken, micro_batch_size=1))
    assert not (tmp_path / "out").exists()


def test_what_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="destination_path is data_dir"):
        score(config_of(world, world / "fruit", overwrite=True))
    scored(world, tmp_path / "out")
    with pytest.raises(DataError, match="already holds prepared data"):
        score(config_of(world, tmp_path / "out", by="loss"))
    with pytest.raises(ConfigError, match="micro_batch_size is 0; it must be at least 1"):
        config_of(world, tmp_path / "other", micro_batch_size=0)
    with Journal(tmp_path / "busy" / "scores.jsonl"), pytest.raises(DataError, match="Another litft is writing"):
        score(config_of(world, tmp_path / "busy"))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "scores.jsonl").write_text('{"a": 1}\n{"b": \n{"c": 1}\n')
    with pytest.raises(DataError, match="line 2 is damaged"):
        score(config_of(world, tmp_path / "torn"))
    assert not (tmp_path / "other").exists()


def test_rows_that_learn_questions_have_no_ifd(world: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(world / "model")
    data = write_folder(tmp_path / "all", tokenizer, draw_rows(), train_on="all")
    with pytest.raises(ConfigError, match='prepared with train_on "all", so its answers cannot be told'):
        score(config_of(world, tmp_path / "out", data_dir=data))
    assert len(scored(world, tmp_path / "out", data_dir=data, by="loss")) == 20


def test_rows_beyond_the_context_are_refused(world: Path, tmp_path: Path) -> None:
    long = [([BOS] * 70, [False] * 35 + [True] * 35)]
    data = write_folder(tmp_path / "long", Tokenizer(world / "model"), [*draw_rows(), *long * 3], held_out=2)
    with pytest.raises(DataError, match=r"1 rows of .*train.pt, the longest of 70 tokens.*context of tiny, 64"):
        score(config_of(world, tmp_path / "out", data_dir=data))
    assert not (tmp_path / "out").exists()


def test_the_journal_says_both_losses(world: Path, tmp_path: Path) -> None:
    values = scored(world, tmp_path / "out")
    _, *lines = [json.loads(line) for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines()]
    [line] = [line for line in lines if line["file"] == "train.pt" and line["row"] == 3]
    assert line["loss"] / line["alone"] == pytest.approx(values[3]) and line["tokens"] == sum(draw_rows()[3][1])
