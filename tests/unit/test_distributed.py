"""Several processes are one: two gloo processes on CPU, by the strategies that a run on GPUs has."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_run import CUTS_ALL, make_config, make_world
from two_processes import cut_run, gradients, resumed_run, whole_run

from litft.api import LLM
from litft.config.processes import is_first
from litft.errors import ConfigError
from litft.train.fabric import require_devices
from litft.train.parallel import deal
from litft.train.step_folders import STEP_FILES

HERE = Path(__file__).parent
QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process made and what two made, in folders side by side."""
    world = make_world(tmp_path_factory.mktemp("world"))
    (world / "experts").mkdir()
    make_world(world / "experts", n_expert=8, n_expert_per_token=2)
    (world / "wide").mkdir()
    make_world(world / "wide", n_layer=5, n_embd=64, intermediate_size=128)
    for method in ("lora", "full", "adapter_v2"):
        gradients(world, f"gradients-{method}-one", method)
    gradients(world, "gradients-pissa_dora-one", "pissa_dora")
    gradients(world, "gradients-pissa_dora-int8-one", "pissa_dora", quantize="bnb.int8")
    gradients(world / "experts", "gradients-full-one", "full")
    gradients(world, "gradients-lora-int8-one", "lora", quantize="bnb.int8")
    for method in ("full", "lora"):
        whole_run(world, f"whole-{method}-one", method, train__save_interval=2)
    cut_run(world, "one-then-two", "full")
    run_twice(world)
    resumed_run(world, "two-then-one", "full")
    return world


def run_twice(world: Path) -> None:
    """Runs two_processes.py as the two nodes of a run, in the environment that torchrun makes."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = str(listening.getsockname()[1])
    python = {"PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}", "PYTHONWARNINGS": "ignore"}
    node = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    shared = {**QUIET, **python, **node, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, str(HERE / "two_processes.py"), str(world)],
            env={**shared, "RANK": rank, "GROUP_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        said = [process.communicate(timeout=200)[1] for process in started]
    finally:
        for process in started:
            process.kill()  # does nothing to one that has ended
            process.communicate()
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)


def assert_same_gradients(one: Path, two: Path) -> None:
    """Equal but for the order of sums, in each window."""
    wanted, found = (load_file(folder / "gradients.safetensors") for folder in (one, two))
    assert wanted.keys() == found.keys()
    for window in "012":
        names = [name for name in wanted if name.startswith(f"{window}/")]
        off = sum((found[name] - wanted[name]).square().sum() for name in names)
        assert (off / sum(wanted[name].square().sum() for name in names)).sqrt() < 1e-6, window


@pytest.mark.parametrize(
    ("method", "strategy"),
    [
        ("lora", "ddp"),
        ("lora", "fsdp"),
        ("full", "ddp"),
        ("full", "fsdp"),
        ("full", "hybrid"),
        ("full", "offload"),
        ("adapter_v2", "fsdp"),
        ("pissa_dora", "ddp"),
        ("pissa_dora", "fsdp"),
    ],
)
def test_two_processes_have_the_gradient_of_one(world: Path, method: str, strategy: str) -> None:
    assert_same_gradients(world / f"gradients-{method}-one", world / f"gradients-{method}-{strategy}")


@pytest.mark.skipif(not CUTS_ALL, reason="FSDP2 of this torch cannot")
def test_experts_that_only_one_process_met_are_added_up_too(world: Path) -> None:
    assert_same_gradients(world / "experts" / "gradients-full-one", world / "experts" / "gradients-full-fsdp")


@pytest.mark.skipif(not CUTS_ALL, reason="FSDP2 of this torch cannot")
@pytest.mark.parametrize("method", ["lora", "pissa_dora"])
def test_a_quantised_base_is_cut_too(world: Path, method: str) -> None:
    assert_same_gradients(world / f"gradients-{method}-int8-one", world / f"gradients-{method}-int8")


def test_fsdp_leaves_half_of_a_model_in_each_process(world: Path) -> None:
    def held(name: str) -> float:
        here, whole = load_file(world / name / "gradients.safetensors")["held"].tolist()
        return here / whole

    assert held("gradients-full-fsdp") == pytest.approx(0.5, abs=0.02)
    assert held("gradients-full-offload") == pytest.approx(0.5, abs=0.02)
    assert held("gradients-full-ddp") == held("gradients-full-hybrid") == 1.0  # hybrid: two nodes of one device


@pytest.mark.parametrize(("method", "strategy"), [("full", "ddp"), ("full", "fsdp"), ("lora", "fsdp")])
def test_a_process_takes_at_least_what_a_plan_says(world: Path, method: str, strategy: str) -> None:
    told = json.loads((world / "wide" / f"memory-{method}-{strategy}" / "memory.json").read_text())
    assert 0.95 * told["at_least_bytes"] < told["measured"]
    if strategy == "ddp":  # beside the copy of the model the gradients that are sent
        assert told["measured"] < 1.1 * (told["at_least_bytes"] + told["memory"]["gradients"])
    else:
        assert told["at_least_bytes"] < told["memory_bytes"]


def columns(out_dir: Path) -> list[list[float]]:
    """The numbers of metrics.csv but for times and memory, and for padding, which depends on how rows are split."""
    with (out_dir / "logs" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    left_out = re.compile("second|memory|padding")
    return [[float(value or 0) for key, value in row.items() if not left_out.search(key)] for row in rows]


def row_losses(out_dir: Path) -> list[list[float]]:
    """The numbers of row_losses.csv."""
    with (out_dir / "row_losses.csv").open() as file:
        return [[float(value) for key, value in row.items() if key != "source"] for row in csv.DictReader(file)]


def assert_same_weights(one: Path, two: Path, rtol: float = 1e-4) -> None:
    """Equal but for what rounding becomes in some steps of AdamW."""
    wanted, found = load_file(one), load_file(two)
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=rtol, atol=1e-5 if rtol else 0.0)


@pytest.mark.parametrize(("method", "strategy"), [("full", "fsdp"), ("lora", "fsdp"), ("lora", "ddp")])
def test_two_processes_write_what_one_writes(world: Path, method: str, strategy: str) -> None:
    one, two = world / f"whole-{method}-one", world / f"whole-{method}-{strategy}"
    for wanted, found in zip(columns(one), columns(two), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    assert (one / "samples.jsonl").read_text() == (two / "samples.jsonl").read_text()
    name = "lit_model.safetensors" if method == "full" else "lora.safetensors"
    assert_same_weights(one / "final" / name, two / "final" / name)
    last = "step-00000002"
    for file in ("trainable", "optimizer"):
        assert_same_weights(one / last / f"{file}.safetensors", two / last / f"{file}.safetensors")
    assert json.loads((two / "summary.json").read_text())["processes"] == 2
    for wanted, found in zip(row_losses(one), row_losses(two), strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)
    ids = torch.tensor([[5, 6, 7]])
    logits = [LLM.load(folder / "final", precision="32-true").logits(ids) for folder in (one, two)]
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["one-then-two", "two-then-one"])
def test_a_run_goes_on_with_another_number_of_processes(world: Path, name: str) -> None:
    assert_same_weights(
        world / "whole-full-one" / "final" / "lit_model.safetensors", world / name / "final" / "lit_model.safetensors"
    )


@pytest.mark.parametrize(("method", "file"), [("full", "lit_model"), ("lora", "lora")])
def test_two_processes_resume_bit_for_bit_with_their_own_dropout(world: Path, method: str, file: str) -> None:
    straight, resumed = world / f"straight-{method}", world / f"resumed-{method}"
    weights = [folder / "final" / f"{file}.safetensors" for folder in (straight, resumed)]
    assert_same_weights(*weights, rtol=0.0)
    assert columns(straight) == columns(resumed)
    chance = load_file(straight / "step-00000002" / "rng.safetensors")
    assert not torch.equal(chance["cpu"], chance["cpu.1"])


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_loss_that_is_not_finite_in_one_process_stops_both_and_one_tells(world: Path, strategy: str) -> None:
    said = [(world / f"broken-{strategy}-{rank}.txt").read_text() for rank in range(2)]
    assert said[0].startswith("NotFiniteError: The loss is not finite at rows [")
    assert "(process 1) of train.pt" in said[0]
    assert said[1].startswith("StoppedElsewhereError: ")


def test_a_disk_that_fails_one_process_stops_both(world: Path) -> None:
    assert (world / "disk-0.txt").read_text().startswith("FileExistsError: ")
    assert (world / "disk-1.txt").read_text().startswith("StoppedElsewhereError: Process 0 of 2: ")


def test_a_disk_that_fills_beside_the_steps_stops_both(world: Path) -> None:
    assert "No space left on device" in (world / "writer-0.txt").read_text()
    assert (world / "writer-1.txt").read_text().startswith("StoppedElsewhereError: ")
    assert not list((world / "writer").glob("step-*"))


def test_two_processes_write_beside_the_steps_what_they_write_at_once(world: Path) -> None:
    for name in STEP_FILES:
        beside, at_once = (
            world / f"{run}-full-fsdp" / "step-00000002" / f"{name}.safetensors" for run in ("whole", "at-once")
        )
        assert beside.read_bytes() == at_once.read_bytes(), name


def test_what_is_not_finite_in_one_process_is_kept_with_the_rows_of_both(world: Path) -> None:
    said = (world / "stopped-0.txt").read_text()
    (path,) = (world / "stopped" / "nonfinite").iterdir()
    assert f"Its rows are in {path}." in said and f"{world / 'stopped' / 'step-0000000'}" in said
    rows = json.loads(path.read_text())["rows"]
    assert {(row["process"], row["loss"] == "nan") for row in rows} == {(0, False), (1, True)}


def test_the_command_trains_in_two_processes_and_says_everything_once(world: Path) -> None:
    values = {
        "checkpoint_dir": world / "model",
        "data_dir": world / "data",
        "out_dir": world / "command",
        "precision": "32-true",
        "devices": 2,
        "global_batch_size": 8,
        "max_steps": 1,
        "eval.prompts": 0,
    }
    words = [
        sys.executable,
        "-m",
        "litft",
        "finetune",
        "lora",
        *(f"--{name}={value}" for name, value in values.items()),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=QUIET, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 1/1: held-out loss") == done.stderr.count("Next:") == 1
    assert "Warning" not in done.stderr and done.stdout == ""
    assert json.loads((world / "command" / "summary.json").read_text())["processes"] == 2


def test_rows_are_dealt_evenly_in_number_and_tokens() -> None:
    lengths = [5, 30, 12, 7, 22, 18, 9, 3, 27, 14, 11]
    rows = [100 + place for place in range(len(lengths))]
    hands = deal(rows, lengths, 3)
    assert sorted(row for hand in hands for row in hand) == rows
    assert {len(hand) for hand in hands} == {3, 4}
    tokens = [sum(lengths[row - 100] for row in hand) for hand in hands]
    assert max(tokens) - min(tokens) <= 8
    assert deal(rows, lengths, 1) == [rows]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"devices": 0}, "devices is 0; it must be at least 1"),
        ({"devices": 9}, "devices x num_nodes is 9 and train.global_batch_size is 8"),
        ({"devices": 2, "strategy": "hybrid"}, "strategy is hybrid, which copies between nodes"),
        ({"cpu_offload": True}, "cpu_offload is for the parts of fsdp and hybrid"),
    ],
)
def test_processes_that_cannot_work_together_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        make_config(Path(), **changes)


def test_another_number_of_processes_than_torchrun_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="torchrun started 4 processes, but devices x num_nodes is 2 x 1"):
        require_devices(make_config(Path(), devices=2))


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_one_process_speaks_for_all(environment: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first(2) is first
    assert is_first(1)
