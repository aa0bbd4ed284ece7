"""`litft check`: each check passes on a sound run, and fails on one that is wrong in what it looks at."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from checked_world import change_rows, make_checked_world, make_run, write_recipe
from safetensors.torch import load_file, save_file

from litft.check import small
from litft.check.bench import Bench, Gradient
from litft.check.checks import CHECKS
from litft.check.checks.ids import CHECK as IDS
from litft.check.checks.saved import CHECK as SAVED
from litft.check.checks.shared_prefix import CHECK as SHARED
from litft.check.checks.stop_tokens import CHECK as STOP
from litft.check.finding import Finding, find
from litft.checkpoint.disk import keep_sha256
from litft.cli import main
from litft.config.train import TrainConfig
from litft.data.batches import Batching, collate
from litft.errors import ConfigError
from litft.text.styles import STYLES
from litft.train.loop import backward
from litft.train.parallel import deal

BY_NAME = {check.name: check for check in CHECKS}
QUICK = sorted(BY_NAME.keys() - {"processes"})  # which starts two; the command below does


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checked_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def bench(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench("lora", make_run("lora", world), None, tmp_path_factory.mktemp("bench"))


def found(bench: Bench, *names: str) -> dict[str, str]:
    return {name: find(BY_NAME[name], bench).verdict for name in names}


@pytest.mark.parametrize("name", QUICK)
def test_a_sound_run_passes(bench: Bench, name: str) -> None:
    finding = find(BY_NAME[name], bench)
    assert finding.verdict == "pass", finding.text
    assert any(letter.isdigit() for letter in finding.text)


@pytest.mark.parametrize("method", ["full", "adapter_v2"])
def test_what_is_no_weight_is_not_merged(world: Path, tmp_path: Path, method: str) -> None:
    bench = Bench(method, make_run(method, world), None, tmp_path)
    assert found(bench, "merged", "micro-batches", "saved") == {
        "merged": "skip",
        "micro-batches": "pass",
        "saved": "pass",
    }


def test_a_loss_that_depends_on_the_micro_batch_is_found(world: Path, tmp_path: Path) -> None:
    bench = Bench("lora", make_run("lora", world), write_recipe(tmp_path, "mean"), tmp_path)
    assert set(found(bench, "micro-batches", "packed").values()) == {"fail"}


def test_a_loss_that_depends_on_places_is_found(world: Path, tmp_path: Path) -> None:
    bench = Bench("lora", make_run("lora", world), write_recipe(tmp_path, "place"), tmp_path)
    assert found(bench, "shared prefix", "packed") == {"shared prefix": "fail", "packed": "fail"}


def test_a_loss_that_no_checkpoint_holds_is_found(world: Path, tmp_path: Path) -> None:
    bench = Bench("lora", make_run("lora", world), write_recipe(tmp_path, "counted"), tmp_path)
    finding = find(BY_NAME["resumed"], bench)
    assert finding.verdict == "fail" and "tensors differ" in finding.text


def test_ids_of_another_template_are_found(world: Path, tmp_path: Path) -> None:
    other = STYLES["alpaca"].to_dict()
    folder = change_rows(world, "other", lambda row, meta: (row, {**meta, "prompt_style": other}))
    finding = find(IDS, Bench("lora", make_run("lora", world, folder.name), None, tmp_path))
    assert finding.verdict == "fail" and "not framed as alpaca frames them" in finding.text


def test_a_second_first_token_is_found(world: Path, tmp_path: Path) -> None:
    folder = change_rows(world, "twice", lambda row, meta: (torch.cat((row[:1], row)), meta))
    assert find(IDS, Bench("lora", make_run("lora", world, folder.name), None, tmp_path)).verdict == "fail"


def test_answers_without_an_end_are_found(world: Path, tmp_path: Path) -> None:
    folder = change_rows(world, "endless", lambda row, meta: (row[:-1], meta))
    finding = find(STOP, Bench("lora", make_run("lora", world, folder.name), None, tmp_path))
    assert finding.verdict == "fail" and "does not learn to stop" in finding.text


def test_a_result_that_was_written_wrong_is_found(world: Path, tmp_path: Path) -> None:
    bench = Bench("lora", make_run("lora", world), None, tmp_path)
    weights = bench.finished[1] / "lora.safetensors"
    save_file({name: 1.5 * tensor for name, tensor in load_file(weights).items()}, weights)
    keep_sha256(weights)
    finding = find(SAVED, bench)
    assert finding.verdict == "fail" and "logits" in finding.text


def test_a_base_that_changes_under_a_run_is_found(tmp_path: Path) -> None:
    world = make_checked_world(tmp_path)
    bench = Bench("lora", make_run("lora", world), None, tmp_path / "bench")
    assert found(bench, "merged") == {"merged": "pass"}
    weights = world / "model" / "lit_model.safetensors"
    save_file({name: tensor + 0.1 for name, tensor in load_file(weights).items()}, weights)
    keep_sha256(weights)
    finding = find(BY_NAME["merged"], bench)
    assert finding.verdict == "fail" and "is not the base" in finding.text


def test_rows_that_share_nothing_are_skipped(world: Path, tmp_path: Path) -> None:
    first = itertools.count(3)
    folder = change_rows(world, "apart", lambda row, meta: (torch.cat((row.new_tensor([next(first)]), row)), meta))
    finding = find(SHARED, Bench("lora", make_run("lora", world, folder.name), None, tmp_path))
    assert finding.verdict == "skip" and "begin alike" in finding.text


@pytest.mark.parametrize(("method", "kept"), [("lora", 2), ("adapter", 4)])
def test_a_large_model_is_tried_with_its_first_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, kept: int
) -> None:
    world = make_checked_world(tmp_path, layers=5)
    monkeypatch.setattr(small, "LARGE", 100)
    config = make_run(method, world)
    if method == "adapter":
        config = dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, start_layer=3))  # type: ignore[attr-defined]
    bench = Bench(method, config, None, tmp_path / "bench")
    assert bench.layers == f"{kept} of 5 layers"
    assert set(found(bench, "saved", "packed").values()) == {"pass"}


def test_few_short_rows_are_tried_where_rows_are_long(world: Path, bench: Bench) -> None:
    assert len(bench.rows) == 8
    few = small.choose_rows(bench.inputs, room=1)
    lengths = bench.inputs.train.lengths
    assert len(few) == 4 and int(lengths[few].max()) <= int(lengths[bench.inputs.train_rows].median())


def test_the_users_own_settings_are_kept(world: Path, tmp_path: Path) -> None:
    config = make_run("lora", world, train=TrainConfig(label_smoothing=0.1, neftune_alpha=5.0))
    bench = Bench("lora", config, None, tmp_path)
    assert bench.inputs.config.train.label_smoothing == 0.1 and bench.inputs.config.train.neftune_alpha == 5.0
    assert bench.still.inputs.config.train.neftune_alpha == 0.0  # its noise would be another in each micro-batch
    assert set(found(bench, "packed", "resumed").values()) == {"pass"}


def test_a_recipe_that_cannot_be_tried_is_refused(world: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("")
    for recipe in ("missing.py", "empty.py"):
        with pytest.raises(ConfigError, match=recipe):
            Bench("lora", make_run("lora", world), tmp_path / recipe, tmp_path)


def words(world: Path, *more: str) -> Sequence[str]:
    return ("check", "lora", "--checkpoint_dir", str(world / "model"), "--data_dir", str(world / "talk"), *more)


def in_two(bench: Bench) -> Gradient:
    """Gives the gradient that two processes must come to: each takes its hand of rows at once."""
    data, run = bench.inputs.train, bench.still
    batching = Batching(len(bench.rows), bench.longest, packed=True)
    hands = deal(bench.rows, data.lengths[bench.rows].tolist(), 2)
    batches = [collate(data, hand, batching) for hand in hands]
    for batch in batches:
        backward(run, batch, sum(each.target_tokens for each in batches), bench.token_loss())
    return Gradient({name: part.own.grad for name, part in run.parts.parts.items() if part.own.requires_grad}, {})  # type: ignore[misc]


def test_the_command_finds_faults(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path, "mean")
    assert main(words(world, "--recipe", str(recipe))) == 1
    said = capsys.readouterr()
    failing = [line.split(" fail ")[0].strip() for line in said.out.splitlines() if " fail " in line[:24]]
    assert failing == ["micro-batches", "packed", "processes", "shared prefix"]
    assert "4 of 9 checks failed: micro-batches" in said.err and not (world / "out").exists()
    bench = Bench("lora", make_run("lora", world), recipe, tmp_path)
    [gap] = re.findall(r"over gloo (\S+);", said.out)  # two processes that each take their rows, and nothing else
    assert float(gap) == pytest.approx(bench.apart.gap(in_two(bench)), rel=0.05)


def test_a_sweep_is_not_checked(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(world, "--sweep.seed", "1,2")) == 2
    assert "check one of its runs" in capsys.readouterr().err


def test_a_finding_is_readable() -> None:
    lines = list(Finding("packed", "a claim", "pass", "numbers " * 40).lines())
    assert lines[0].startswith("packed           pass  a claim") and max(map(len, lines)) <= 111
