"""Sweeps: what their flags mean, how their runs are called, checked, resumed and compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch.nn.functional as F
from tiny_run import make_world, open_run, with_step_limit
from torch import Tensor

from litft.checkpoint.held import release_folder
from litft.cli import main
from litft.config.io import load_yaml
from litft.config.parse import HelpRequest, config_to_dict, parse_config, parse_runs
from litft.config.run import FullRun, LoRARun
from litft.config.sweep import Runs
from litft.errors import ConfigError
from litft.methods.lora import LoRA
from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.sweep import Placed, place

PATHS = ["--checkpoint_dir", "model", "--data_dir", "data"]


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


def runs_of(*words: str, kind: type[Any] = LoRARun) -> Runs:
    return parse_runs(kind, [*PATHS, *words], "litft finetune lora", "what it does")


# --- flags and YAML ---


def test_every_combination_is_a_run_and_the_last_leaf_changes_fastest() -> None:
    runs = runs_of("--sweep.optim.learning_rate", "1e-4,3e-4", "--sweep.r=8,16", "--seed", "7").runs
    assert [(run.config.optim.learning_rate, run.config.lora.r) for run in runs] == [
        (1e-4, 8),
        (1e-4, 16),
        (3e-4, 8),
        (3e-4, 16),
    ]
    assert all(run.config.seed == 7 for run in runs)
    assert runs[1].values == {"optim.learning_rate": 1e-4, "lora.r": 16}
    assert [run.name for run in runs][:2] == ["learning_rate-0.0001_r-8", "learning_rate-0.0001_r-16"]


def test_yaml_and_flags_mean_the_same_and_print_config_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        "seed: 7\nlora: {r: 4}\n"
        "sweep:\n  learning_rate: [1e-4, 3e-4]\n  lora:\n    r: [8, 16]\n    targets: [[q], [q, v]]\n"
    )
    told = runs_of("--config", str(path))
    flags = ("--sweep.learning_rate", "1e-4,3e-4", "--sweep.lora.r", "8,16", "--sweep.targets", "[q],[q,v]")
    typed = runs_of(*flags, "--seed", "7")
    assert [config_to_dict(run.config) for run in told.runs] == [config_to_dict(run.config) for run in typed.runs]
    with pytest.raises(HelpRequest) as asked:
        runs_of(*flags, "--seed=7", "--print_config")
    path.write_text(str(asked.value))
    again = parse_runs(LoRARun, ["--config", str(path)], "litft", "")
    assert [run.config for run in again.runs] == [run.config for run in typed.runs]
    assert again.yaml == typed.yaml
    (alone,) = runs_of("--seed", "7").runs
    assert (alone.name, alone.values) == ("", {}) and alone.config == parse_config(
        LoRARun, [*PATHS, "--seed=7"], "", ""
    )
    assert runs_of("--sweep.seed", "7").is_sweep and not runs_of().is_sweep


def test_a_swept_leaf_may_be_one_that_must_be_given() -> None:
    words = ["--checkpoint_dir", "model", "--sweep.data_dir", "data/a,data/b", "--sweep.max_time", "1h,null"]
    runs = parse_runs(LoRARun, words, "litft", "").runs
    assert [run.name for run in runs] == [
        f"data_dir-{name}_max_time-{time}" for name in "ab" for time in ("1h", "null")
    ]


def test_names_are_safe_and_differ() -> None:
    words = ["--data_dir", "data", "--sweep.checkpoint_dir", "a/m,b/m,b/M,c/x:y é"]
    names = [run.name for run in parse_runs(LoRARun, words, "litft", "").runs]
    assert names == ["checkpoint_dir-m", "checkpoint_dir-m--2", "checkpoint_dir-M--3", "checkpoint_dir-x-y--"]
    both = runs_of("--sweep.train.save_interval", "1,2", "--sweep.eval.interval", "epoch", kind=FullRun).runs
    assert [run.name for run in both] == ["save_interval-1.0_interval-epoch", "save_interval-2.0_interval-epoch"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sweep.lora.r", "8,x"), r'--sweep.lora.r is "x"; it must be a whole number'),
        (("--sweep.lora.r", "8,0"), "lora.r is 0; it must be at least 1"),
        (("--sweep.lora.r", "8,,16"), "write the values to be tried"),
        (("--sweep.learning_rate", "1e-4,0.0001"), "has 0.0001 twice"),
        (("--sweep.lern_rate", "1,2"), 'Did you mean "--sweep.learning_rate"'),
        (("--sweep.out_dir", "a,b"), "cannot be swept: out_dir is the same for all runs"),
        (("--sweep.lora.r", "8,16", "--r", "4"), "--r and --sweep.lora.r are both given"),
        (("--max_steps", "--sweep.lora.r", "8,16"), "--max_steps needs a value"),
        (("--sweep_jobs", "0"), "sweep_jobs is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_swept_is_told_before_a_file_is_read(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        runs_of(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--resume", "out/step-00000001"), "is of one run"),
        (("--devices", "1", "--num_nodes", "2"), "on one machine"),
    ],
)
def test_a_sweep_is_of_one_machine_and_goes_on_as_a_whole(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        place(runs_of("--sweep.seed", "1,2", *words), Path("out"))


# --- runs ---


def flags(world: Path, *more: str) -> list[str]:
    paths = [
        "--checkpoint_dir",
        str(world / "model"),
        "--data_dir",
        str(world / "data"),
        "--out_dir",
        str(world / "out"),
    ]
    return [*paths, "--precision=32-true", "--global_batch_size=8", "--max_steps=4", "--save_interval=2", *more]


def test_a_plan_of_a_sweep_plans_each_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = make_world(tmp_path)
    assert main(["plan", "lora", *flags(world, "--sweep.lora.r", "2,4")]) == 0
    said = capsys.readouterr().err
    assert "r-2:\n" in said and "r-4:\n" in said and "| r-4 | 3     | 448 " in said
    assert not (world / "out").exists()


def placed(world: Path, *words: str) -> list[Placed]:
    """The runs of a sweep in their places."""
    return place(parse_runs(LoRARun, flags(world, *words), "litft", ""), world / "out")[0]


def test_the_same_command_skips_what_ended_goes_on_with_what_broke_and_a_failed_run_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(tmp_path)
    words = ("--prompts=0", "--sweep.learning_rate", "1e30,1e-3,1e-2")
    bad, ended, broken = placed(world, *words)
    run = open_run(ended.config, LoRA(ended.config.lora))  # type: ignore[attr-defined]
    finish(run, fit(run, token_loss))
    fit(with_step_limit(open_run(broken.config, LoRA(broken.config.lora)), 3), token_loss)  # type: ignore[attr-defined]
    release_folder(broken.folder)  # as the end of its process would
    before = (ended.folder / "summary.json").stat().st_mtime_ns
    assert main(["finetune", "lora", *flags(world, *words, "--sweep_jobs", "2")]) == 2
    said = capsys.readouterr().err
    assert "litft: 1 of 3 runs failed: learning_rate-1e+30; " in said
    assert f"[{broken.row.name}] Resuming from {broken.folder / 'step-00000002'}." in said
    assert (ended.folder / "summary.json").stat().st_mtime_ns == before
    with (world / "out" / "sweep.csv").open() as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == [bad.row.name, ended.row.name, broken.row.name]
    assert [row["state"] for row in rows.values()] == ["failed", "done", "done"]
    assert rows[bad.row.name]["error"].startswith("The held-out loss is nan after step 1;")
    assert not (bad.folder / "final").exists()
    summary = json.loads((broken.folder / "summary.json").read_text())
    for name in ("best_val_loss", "best_step", "final_loss", "tokens_per_second", "peak_memory_bytes"):
        assert float(rows[broken.row.name][name]) == summary[name]
    losses = {name: float(row["val_loss"]) for name, row in rows.items() if row["val_loss"]}
    assert f"at the end: {world / 'out' / min(losses, key=losses.__getitem__) / 'final'}" in said
    assert (world / "out" / "sweep.md").read_text().count("\n| ") == 4
    assert "<h1>Report: 3 runs</h1>" in (world / "out" / "report.html").read_text()
    assert load_yaml(broken.folder / "run.yaml")["optim"]["learning_rate"] == 1e-2


def test_nothing_runs_where_a_value_does_not_fit_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = make_world(tmp_path)
    assert main(["finetune", "full", *flags(world, "--sweep.n_freeze", "1,9")]) == 2
    assert "litft: train.n_freeze is 9, but " in capsys.readouterr().err
    assert not (world / "out").exists()


def test_a_run_that_ended_under_other_settings_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = make_world(tmp_path)
    (first, _) = placed(world, "--sweep.seed", "1,2")
    run = open_run(first.config, LoRA(first.config.lora))  # type: ignore[attr-defined]
    finish(run, fit(run, token_loss))
    assert main(["plan", "lora", *flags(world, "--sweep.seed", "1,2", "--lora.r", "4")]) == 2
    assert "has lora.r 8, this run has 4" in capsys.readouterr().err
