"""What loggers beside metrics.csv are told: once each, over a resume too, nothing secret; and that none ends a run."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow.tracking
import pytest
import torch.nn.functional as F
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import make_config, make_world, methods, open_run
from torch import Tensor
from wandb_file import read_wandb

from litft.cli import main
from litft.errors import ConfigError, TrainingError
from litft.train import log_mlflow
from litft.train.finish import finish
from litft.train.loggers import LOGGERS, Loggers, Metrics, reason, require_loggers
from litft.train.loop import fit
from litft.train.setup import open_inputs, start_out_dir
from litft.train.state import Run

KEY = "0123456789abcdef0123456789abcdef01234567"  # no one's
STEPS = 12


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


def open_logged(world: Path, said: list[str], *loggers: str, **changes: Any) -> Run:
    """A run of 12 steps of one micro-batch, with a checkpoint after every fifth and a validation after every sixth."""
    short = {"train__micro_batch_size": 8, "train__save_interval": 5, "eval__interval": 6, "eval__prompts": 2}
    return open_run(make_config(world, logger=loggers, **{**short, **changes}), methods()["lora"], said.append)


def failing_at(run: Run, step: int) -> Any:
    """Gives a loss that is not a number at a step."""
    calls: list[int] = []

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        calls.extend([1] if run.gpt.training else [])
        return token_loss(logits, targets) * (math.nan if len(calls) == step and run.gpt.training else 1.0)

    return loss


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that three loggers heard of: it failed at step 8, went on from step 5 and came to its end."""
    world = make_world(tmp_path_factory.mktemp("logged"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        for name, value in (
            ("WANDB_MODE", "offline"),
            ("WANDB_API_KEY", KEY),
            ("WANDB_DATA_DIR", str(world / "staged")),
            ("MLFLOW_ALLOW_FILE_STORE", "true"),
            ("MLFLOW_TRACKING_URI", (world / "mlruns").as_uri()),
            ("MLFLOW_TRACKING_TOKEN", KEY),
        ):
            patch.setenv(name, value)
        names = tuple(LOGGERS)
        run = open_logged(world, [], *names)
        with pytest.raises(TrainingError):
            fit(run, failing_at(run, 8))
        run = open_logged(world, said := [], *names, resume="auto")
        finish(run, fit(run, token_loss))
        assert not [line for line in said if "did not take" in line]
        yield world


def told(world: Path, name: str) -> list[tuple[int, float]]:
    """Gives step and value of what metrics.csv has of a number."""
    with (world / "out" / "logs" / "metrics.csv").open() as file:
        return [(int(line["step"]), float(line[name])) for line in csv.DictReader(file) if line[name]]


def test_tensorboard_has_every_step_once(logged: Path) -> None:
    events = EventAccumulator(str(logged / "out" / "logs"))
    events.Reload()
    for name in ("loss", "val_loss", "grad_norm"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in told(logged, name)]
        assert [value for _, value in found] == pytest.approx([value for _, value in told(logged, name)], rel=1e-5)
    assert len(events.Scalars("loss")) == STEPS
    assert {"run.yaml/text_summary", "summary/text_summary", "samples/0/text_summary"} <= set(events.Tags()["tensors"])


def test_mlflow_has_one_run_with_every_step_once(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = mlflow.tracking.MlflowClient((logged / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("litft")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for name in ("loss", "val_loss"):
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted((each.step, each.value) for each in history) == told(logged, name)
    assert run.data.params["optim.learning_rate"] == "0.01" and run.data.params["seed"] == "1337"
    assert run.data.tags["sha256.train.pt"]
    names = {each.path for each in client.list_artifacts(run.info.run_id)}
    assert names == {"summary.json", "run.yaml", "samples.jsonl", "manifest.yaml", "report.html", "final"}


def test_wandb_has_one_run_with_every_step_once(logged: Path) -> None:
    files = sorted((logged / "out" / "logs" / "wandb").glob("offline-run-*/*.wandb"))
    first, second = map(read_wandb, files)
    assert first.run_id == second.run_id
    assert first.exit_code == 1 and second.exit_code == 0
    rows = [*first.history, *second.history]
    for name in ("loss", "val_loss"):
        assert [(row["_step"], row[name]) for row in rows if name in row] == told(logged, name)
    assert first.config["optim"]["learning_rate"] == 0.01 and first.config["sha256"]["train.pt"]
    assert [(kind, name) for kind, name, _ in first.artifacts if kind == "dataset"] == [("dataset", "data")]
    data = next(files for kind, _, files in first.artifacts if kind == "dataset")
    assert data == {"manifest.yaml", "train.pt", "test.pt"}
    [model] = [files for kind, _, files in second.artifacts if kind == "model"]
    assert {"lora.safetensors", "method.yaml", "run.yaml"} <= model
    counts = [row["samples.nrows"] for row in rows if "samples.nrows" in row]
    written = len((logged / "out" / "samples.jsonl").read_text().splitlines())
    assert set(counts) == {2} and sum(counts) == written  # two prompts at each validation
    assert [row["all_samples.nrows"] for row in rows if "all_samples.nrows" in row] == [written]


def test_no_key_is_written_anywhere(logged: Path) -> None:
    files = [path for path in logged.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("name", LOGGERS)
def test_a_package_that_is_missing_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(tmp_path)
    monkeypatch.setitem(sys.modules, LOGGERS[name].package, None)
    words = ["--checkpoint_dir", str(world / "model"), "--data_dir", str(world / "data"), "--out_dir", "new"]
    assert main(["finetune", "lora", *words, "--logger", name]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("litft: ") and shown.count("\n") == 1 and f"pip install 'litft[{name}]'" in shown
    assert not Path("new").exists()
    require_loggers(["csv", *(other for other in LOGGERS if other != name)])


def test_a_logger_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'"tensorbord".*Did you mean "tensorboard"'):
        make_config(tmp_path, logger=("tensorbord",))
    with pytest.raises(ConfigError, match="each once"):
        make_config(tmp_path, logger=("wandb", "wandb"))


def test_without_a_key_wandb_does_not_take_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path)
    wandb.teardown()  # it reads its variables once
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"wandb does not take the run \(.*key.*\)"):
        open_logged(world, [], "wandb")
    assert not (world / "out").exists()
    wandb.teardown()


def test_wandb_that_dies_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = open_logged(world, said := [], "wandb", train__epochs=1)
    listed = subprocess.run(["ps", "-wweo", "pid,args"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if "wandb-core" in line and f"--pid {os.getpid()}" in line:
            os.kill(int(line.split()[0]), signal.SIGKILL)
    finish(run, fit(run, token_loss))
    lines = [line for line in said if "wandb did not take" in line]
    assert len(lines) == 2 and "the end of the run" in lines[1]  # once on the way, once at the end
    assert len(told(world, "loss")) == 3 and (world / "out" / "final").exists()
    with pytest.raises(ConnectionError):
        wandb.teardown()


class MLflowServer:
    """As much of MLflow's REST API as a run asks for; its answers can be made to fail."""

    def __init__(self, folder: Path) -> None:
        self.metrics: list[tuple[str, int, float]] = []
        self.status = "RUNNING"
        self.is_away = False
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if "get-by-name" in self.path:
                    self.answer({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no"}, 404)
                else:
                    uri = (folder / "artifacts").as_uri()
                    info = {"run_id": "r1", "status": served.status, "artifact_uri": uri, "experiment_id": "1"}
                    self.answer({"run": {"info": info, "data": {}}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if served.is_away:
                    self.answer({"error_code": "BAD_REQUEST", "message": f"not {KEY}"}, 400)
                elif self.path.endswith("experiments/create"):
                    self.answer({"experiment_id": "1"})
                elif self.path.endswith("runs/create"):
                    self.do_GET()
                else:
                    served.status = body.get("status", served.status)
                    served.metrics += [
                        (each["key"], each.get("step", 0), each["value"]) for each in body.get("metrics", [])
                    ]
                    self.do_GET()

            def answer(self, values: dict[str, Any], code: int = 200) -> None:
                text = json.dumps(values).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MLflowServer]:
    server = MLflowServer(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", KEY)
    monkeypatch.setattr(log_mlflow, "SECONDS", 0.0)
    yield server
    server.close()


def away_from(run: Run, server: MLflowServer, away: int, back: int) -> Any:
    """Gives a loss during which the server goes away at a step and is back at a later one."""
    calls: list[int] = []

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        calls.extend([1] if run.gpt.training else [])
        server.is_away = away <= len(calls) < back
        return token_loss(logits, targets)

    return loss


def test_what_mlflow_missed_is_sent_again(tmp_path: Path, server: MLflowServer) -> None:
    world = make_world(tmp_path)
    run = open_logged(world, said := [], "mlflow", log_model=False)
    finish(run, fit(run, away_from(run, server, 3, 9)))
    assert [(step, value) for name, step, value in server.metrics if name == "loss"] == told(world, "loss")
    lines = [line for line in said if "mlflow did not take" in line]
    assert len(lines) == 1 and "step 3" in lines[0] and "***" in lines[0] and KEY not in lines[0]
    assert server.status == "FINISHED"


def test_mlflow_that_stays_away_does_not_end_the_run(tmp_path: Path, server: MLflowServer) -> None:
    world = make_world(tmp_path)
    run = open_logged(world, said := [], "mlflow")
    server.close()
    summary = finish(run, fit(run, token_loss))
    lines = [line for line in said if "mlflow did not take" in line]
    assert (
        len(lines) == 2 and "the files of its folder have everything" in lines[0] and "the end of the run" in lines[1]
    )
    assert summary["steps"] == len(told(world, "loss")) == STEPS and (world / "out" / "final").exists()


def test_mlflow_that_was_never_there_ends_the_run_at_once(tmp_path: Path, server: MLflowServer) -> None:
    world = make_world(tmp_path)
    server.close()
    with pytest.raises(TrainingError, match=r"mlflow does not take the run .*leave mlflow out of --logger"):
        open_logged(world, [], "mlflow")
    assert not (world / "out").exists()


def test_only_the_first_process_has_loggers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "1")
    config = make_config(world, logger=("tensorboard",))
    inputs = open_inputs(dataclasses.replace(config, devices=2), methods()["lora"], lambda message: None)
    start_out_dir(inputs)
    assert inputs.loggers.open == {} and not (world / "out").exists()
    Loggers().log(Metrics(step=1, examples=1, tokens=1, target_tokens=1, padding_tokens=0, seconds=1.0))


def test_a_reason_hides_keys_and_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", KEY)
    error = OSError(f"\n no {KEY} at http://me:word@host/path.\nsecond line")
    assert reason(error) == "no *** at http://***@host/path"


def test_numbers_of_sources_have_names_of_their_own() -> None:
    counts = {"step": 1, "examples": 1, "tokens": 2, "target_tokens": 1, "padding_tokens": 0}
    metrics = Metrics(**counts, seconds=1.0, val_loss=2.0, val_loss_by_source='{"lima": 1.5, "dolly": 2.5}')  # type: ignore[arg-type]
    numbers = metrics.numbers()
    assert numbers["val_loss/lima"] == 1.5 and numbers["val_loss/dolly"] == 2.5
    assert "step" not in numbers and "val_loss_by_source" not in numbers and "loss" not in numbers
