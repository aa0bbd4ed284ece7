"""How a run ends that is asked to stop, or killed at its end, and what the command line says of a disk that fails."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch
import torch.nn.functional as F
from tiny_run import make_config, make_world, methods, open_run
from torch import Tensor

from litft import cli
from litft.checkpoint.disk import publish_folder
from litft.checkpoint.held import release_folder
from litft.checkpoint.sealed import load_sealed, seal, write_sealed
from litft.data.store import save_prepared
from litft.errors import ConfigError
from litft.train import finish as finish_module
from litft.train import setup, sweep
from litft.train.comparison import FAILED, Row
from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.step_folders import check_step, step_folders
from litft.train.sweep import Placed

PATIENT = {"eval__interval": 1, "train__epochs": 20, "optim__learning_rate": 3e-2, "optim__lr_warmup_steps": 0}


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def test_a_run_that_was_killed_after_its_patience_ended_trains_no_further(world: Path) -> None:
    settings = {**PATIENT, "eval__patience": 2, "train__save_interval": 1}
    straight = fit(open_run(make_config(world, **settings), methods()["lora"]), token_loss)
    assert straight.stopped_by == "patience" and straight.step < 60
    assert check_step(step_folders(world / "out")[-1]).step == straight.step  # killed before there was a final/
    resumed = fit(open_run(make_config(world, **settings, resume="auto"), methods()["lora"]), token_loss)
    assert (resumed.step, resumed.stopped_by) == (straight.step, "patience")


def test_two_runs_never_write_to_one_folder(world: Path) -> None:
    open_run(make_config(world), methods()["lora"])
    before = {path: path.read_bytes() for path in (world / "out").iterdir()}
    release_folder(world / "out")
    holds = "import sys, pathlib, litft.checkpoint.held as held; held.hold_folder(pathlib.Path(sys.argv[1]), '');"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{holds} print('held', flush=True); sys.stdin.read()", str(world / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout and other.stdout.readline() == b"held\n"
        for settings in ({"overwrite": True}, {"resume": "auto"}):
            with pytest.raises(ConfigError, match=r"Another process writes to .*out now; wait"):
                open_run(make_config(world, **settings), methods()["lora"])
        assert {path: path.read_bytes() for path in (world / "out").iterdir()} == before
        other.kill()  # which leaves nothing to be taken away by hand
    open_run(make_config(world, overwrite=True), methods()["lora"])


def test_a_run_that_was_killed_before_its_first_file_was_whole_begins_again(world: Path) -> None:
    out = world / "out"
    out.mkdir()
    (out / ".run.yaml.999999999.tmp").touch()
    open_run(make_config(world, resume="auto"), methods()["lora"])
    assert [path.name for path in out.iterdir()] == ["run.yaml"]


def test_a_run_that_was_killed_while_it_made_place_can_be_overwritten(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(world, train__epochs=1)
    run = open_run(config, methods()["lora"])
    finish(run, fit(run, token_loss))

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(setup, "remove_folder", killed)
        open_run(make_config(world, train__epochs=1, overwrite=True), methods()["lora"])
    assert (world / "out" / "run.yaml").exists() and not (world / "out" / "summary.json").exists()
    open_run(make_config(world, train__epochs=1, overwrite=True), methods()["lora"])
    assert [path.name for path in (world / "out").iterdir()] == ["run.yaml"]


def test_a_checkpoint_that_a_killed_run_did_not_remove_goes_at_the_end(world: Path) -> None:
    settings = {"train__epochs": 2, "train__save_interval": 1, "train__keep": 1}
    run = open_run(make_config(world, **settings), methods()["lora"])
    progress = fit(run, token_loss)
    kept = step_folders(world / "out")
    shutil.copytree(kept[-1], world / "out" / "step-00000001")
    assert len(kept) == 2 and kept[0].name != "step-00000001"  # the best and the last
    finish(run, progress)
    assert step_folders(world / "out") == kept


def test_a_run_of_a_sweep_that_a_batch_system_stopped_has_not_ended(world: Path) -> None:
    placed = Placed(Row("one", {}), make_config(world))
    code = "import sys; print('Stopped after step 3 by SIGTERM', file=sys.stderr)"
    free: SimpleQueue[dict[str, str]] = SimpleQueue()
    free.put({})
    sweep._run_one(placed, [sys.executable, "-c", code], free, threading.Event(), lambda line: None)
    assert (placed.row.state, placed.row.error) == (FAILED, "Stopped after step 3 by SIGTERM")


def test_a_signal_at_the_end_of_patience_does_not_stop_the_end(world: Path) -> None:
    config = make_config(world, **PATIENT, eval__patience=1, eval__min_delta=5.0)

    def signalling_loss(logits: Tensor, targets: Tensor) -> Tensor:
        signal.raise_signal(signal.SIGTERM)
        return token_loss(logits, targets)

    assert fit(open_run(config, methods()["lora"]), signalling_loss).stopped_by == "patience"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_waits_until_the_result_is_written(world: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run, said = open_run(make_config(world, train__epochs=1), methods()["lora"]), list[str]()
    object.__setattr__(run.inputs, "report", said.append)
    before = signal.getsignal(number)

    def signalled(*given: Path) -> None:
        signal.raise_signal(number)
        publish_folder(*given)

    monkeypatch.setattr(finish_module, "publish_folder", signalled)
    finish(run, fit(run, token_loss))
    assert (world / "out" / "final" / "lora.safetensors").exists() and (world / "out" / "summary.json").exists()
    assert any("its result is being written" in line for line in said)
    assert signal.getsignal(number) == before


def test_the_command_to_go_on_with_has_one_resume_and_overwrites_nothing() -> None:
    words = ["--checkpoint_dir", "a b", "--resume", "step-1", "--data_dir=d", "--overwrite", "true", "--resume=auto"]
    kept = ["--checkpoint_dir", "a b", "--data_dir=d", "--seed", "3"]
    assert cli._without([*words, "--overwrite", "--seed", "3"], "--resume", "--overwrite") == kept


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_one_sentence(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise OSError(number, "the system's words")  # of a write to an open file, which has no name

    assert cli._answer(work) == cli.USER_MISTAKE
    assert capsys.readouterr().err == "litft: A file cannot be written: the system's words.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full, on Linux")
def test_a_full_disk_is_no_bug_of_ours_where_torch_writes() -> None:
    ids = torch.zeros(100_000)
    with pytest.raises(OSError, match="No space left"):
        save_prepared(
            Path("/dev/full"), input_ids=ids, target_mask=ids, offsets=torch.zeros(2), source=torch.zeros(1), meta={}
        )


def test_other_errors_of_the_system_stay_our_bugs() -> None:
    with pytest.raises(OSError, match="socket"):
        cli._answer(lambda: (_ for _ in ()).throw(OSError(errno.ENOTSOCK, "no socket")))


def test_a_sealed_file_knows_its_damage(tmp_path: Path) -> None:
    path, values = tmp_path / "x.yaml", {"step": 4, "loss": 0.25, "names": ["a", "é"]}
    write_sealed(path, values)
    whole = path.read_bytes()
    assert load_sealed(path) == values and whole.decode() == seal(whole.decode().partition("\n")[2])
    path.write_bytes(whole.replace(b"4", b"5"))
    with pytest.raises(ConfigError, match="damaged or was changed: its sha256"):
        load_sealed(path)
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert load_sealed(path) == values, place  # the seal itself was hit
        except ConfigError:
            continue
