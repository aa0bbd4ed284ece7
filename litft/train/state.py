"""What a run is made of, and its checkpoints: atomic, hashed, resumable bit for bit.

`step-00000200/` holds what the method trains, the optimizer, the generators of chance and the counts; `final/` is a
checkpoint directory for every other command.
"""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor

from litft.checkpoint.disk import atomic_path, publish_folder, require_space, sha256_file
from litft.checkpoint.tensors import load_weights, save_safetensors, tensor_specs
from litft.config.io import dump_yaml, load_yaml
from litft.config.model import ModelConfig
from litft.config.plan import TrainPlan
from litft.config.run import RunConfig
from litft.data.batches import Batching
from litft.data.store import PreparedData
from litft.errors import CheckpointError, ConfigError, LitftError
from litft.methods.base import Method
from litft.model.gpt import GPT
from litft.text.encoding import Style
from litft.text.style_files import load_style, style_from_dict
from litft.text.tokenizer import Tokenizer
from litft.train.in_backward import SteppingInBackward
from litft.train.parallel import failing_together, from_first, gather, told
from litft.train.parts import Parts

Report = Callable[[str], None]
STEP_FILES = ("trainable", "optimizer", "rng")


@dataclass
class Progress:
    """How far a run has come; losses in nats per target token, seconds of training only.

    `budget` holds what a resumed run must know of its time, loading and validations included.
    """

    step: int = 0
    examples: int = 0
    tokens: int = 0
    target_tokens: int = 0
    padding_tokens: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    final_loss: float | None = None
    first_val_loss: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    val_loss_by_source: dict[str, float] = field(default_factory=dict)
    best_val_loss: float | None = None
    best_step: int = 0
    stopped_by: str | None = None
    budget: dict[str, float] = field(default_factory=dict, compare=False)

    def note_validation(self, loss: float, accuracy: float, by_source: dict[str, float]) -> None:
        """Takes what was measured after this step, and whether it is the best so far."""
        self.val_loss, self.val_accuracy, self.val_loss_by_source = loss, accuracy, by_source
        if self.first_val_loss is None:
            self.first_val_loss = loss
        if self.best_val_loss is None or loss < self.best_val_loss:
            self.best_val_loss, self.best_step = loss, self.step


@dataclass(frozen=True)
class Inputs:
    """What a run reads, checked before a weight is loaded.

    Attributes:
        checkpoint_dir, model_config: the base.
        method: how it is trained, with the new tokens of the data if it has any.
        data_dir: where train and test came from.
        tokenizer_dir: where the tokenizer and the descriptions of the result come from.
        out_dir: the run's own folder, ready to be written.
        train, test: prepared rows; train_rows and test_rows say which of them fit the length.
        batching: how a window is split into micro-batches.
        hashes: sha256 of what is read: `base` (its weights, if any are), `train.pt`, `test.pt`.
        trainable_parameters, parameters: counts.
        resume_from: the step folder to go on from, if any.
        started: when they had been checked, by `time.perf_counter`.
    """

    config: RunConfig
    checkpoint_dir: Path
    method: Method
    data_dir: Path
    tokenizer_dir: Path
    model_config: ModelConfig
    out_dir: Path
    tokenizer: Tokenizer
    train: PreparedData
    test: PreparedData
    train_rows: Tensor
    test_rows: Tensor
    batching: Batching
    hashes: dict[str, str]
    parameters: int
    trainable_parameters: int
    resume_from: Path | None
    report: Report
    started: float = field(default_factory=time.perf_counter)


def trained_style(inputs: Inputs) -> Style:
    """Gives the prompt style of the data; the base's for rows that came tokenised and name none."""
    style = inputs.train.meta.get("prompt_style")
    return style_from_dict(style) if style else load_style(inputs.checkpoint_dir)


@dataclass(frozen=True)
class Run:
    """Everything the loop works on."""

    inputs: Inputs
    fabric: Fabric
    plan: TrainPlan
    method: Method
    gpt: GPT
    model: Any  # Fabric's wrapper of gpt
    optimizer: Any  # Fabric's wrapper of the optimizer
    parts: Parts  # what this process holds of the weights
    in_backward: SteppingInBackward | None = None  # what steps instead of the loop


def agree(inputs: Inputs, fabric: Fabric) -> Inputs:
    """Gives the inputs with the first process's choice of where to go on, once all processes read the same.

    Raises:
        CheckpointError: a file differs between them, as on the disks of two machines.
    """
    for rank, hashes in enumerate(gather(fabric, inputs.hashes)):
        for name, digest in hashes.items():
            if digest != inputs.hashes[name]:
                what = f"Process {rank} reads another {name} than process 0; give every machine the same files."
                raise told(fabric, CheckpointError(what))
    return dataclasses.replace(inputs, resume_from=from_first(fabric, inputs.resume_from))


def save_step(run: Run, progress: Progress) -> None:
    """Writes `step-XXXXXXXX/` as a whole or not at all, then removes what `train.keep` does not keep.

    The files hold whole tensors, however many processes hold their parts; the first process writes.
    """
    out_dir, is_first = run.inputs.out_dir, run.fabric.global_rank == 0
    target = out_dir / f"step-{progress.step:08d}"
    temporary = out_dir / f".{target.name}.partial"
    trainable, optimizer, rng = run.parts.state(run.method), _optimizer_state(run), _rng_state(run.fabric)
    with failing_together(run.fabric):
        if is_first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            require_space(temporary, run.parts.n_bytes(trainable) + run.parts.n_bytes(optimizer, _owner))
            save_safetensors(temporary / "rng.safetensors", rng.items(), tensor_specs(rng))
    with failing_together(run.fabric):
        run.parts.save(temporary / "trainable.safetensors", trainable)
    with failing_together(run.fabric):
        run.parts.save(temporary / "optimizer.safetensors", optimizer, _owner)
    with failing_together(run.fabric):
        if is_first:
            hashes = {name: sha256_file(temporary / f"{name}.safetensors") for name in STEP_FILES}
            described = {"progress": dataclasses.asdict(progress), "read": run.inputs.hashes, "sha256": hashes}
            write_yaml(temporary / "state.yaml", described)
            publish_folder(temporary, target)
            _remove_old(out_dir, progress.step, run.inputs.config.train.keep)


def load_step(run: Run, folder: Path) -> Progress:
    """Puts a step checkpoint back, which `find_resume` found whole: weights, optimizer, chance, counts.

    Raises:
        CheckpointError: it was written by a run on another base, on other data or of another method.
    """
    with failing_together(run.fabric):
        state = load_yaml(folder / "state.yaml")
        for name, digest in run.inputs.hashes.items():
            if state["read"].get(name) != digest:
                raise CheckpointError(
                    f"{name} has changed since {folder} was written; start afresh with --overwrite true."
                )
        weights = load_weights(folder / "trainable.safetensors")  # mapped: a process reads its own rows
        wanted = run.parts.state(run.method)
        if weights.keys() != wanted.keys():
            raise CheckpointError(
                f"{folder} was written by a run with other trainable parameters; it cannot be resumed."
            )
        for name, tensor in wanted.items():
            tensor.copy_(run.parts.parts[name].rows(weights[name]))
        _load_optimizer_state(run, load_weights(folder / "optimizer.safetensors"))
        _load_rng_state(run.fabric, load_file(folder / "rng.safetensors"))
    return Progress(**state["progress"])


def check_step(folder: Path) -> Progress:
    """Gives the counts of a step checkpoint whose files are whole.

    Raises:
        CheckpointError: a file is missing or differs from its hash.
    """
    try:
        state = load_yaml(folder / "state.yaml")
        for name, digest in state["sha256"].items():
            if sha256_file(folder / f"{name}.safetensors") != digest:
                raise CheckpointError(f"{folder / name}.safetensors is damaged: its sha256 differs from state.yaml.")
        return Progress(**state["progress"])
    except (ConfigError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"{folder} is not a whole step checkpoint: {str(error).rstrip('.')}.") from error


def find_resume(out_dir: Path, resume: str, report: Report) -> Path | None:
    """Gives the step folder to go on from.

    Args:
        out_dir: the run's folder.
        resume: `auto`, or the path of a step folder.
        report: told which one is taken, which are damaged, or that the run starts afresh.

    Raises:
        CheckpointError: the given path is no whole step checkpoint.
    """
    if resume != "auto":
        check_step(Path(resume))
        return Path(resume)
    for folder in reversed(step_folders(out_dir)):
        try:
            check_step(folder)
        except LitftError as error:
            report(f"Warning: {error} Taking the one before.")
            continue
        report(f"Resuming from {folder}.")
        return folder
    report(f"No checkpoint in {out_dir}; starting afresh.")
    return None


def step_folders(out_dir: Path) -> list[Path]:
    """Gives the step checkpoints of a run, oldest first."""
    found = out_dir.iterdir() if out_dir.is_dir() else []
    return sorted(folder for folder in found if folder.is_dir() and re.fullmatch(r"step-\d{8}", folder.name))


def _remove_old(out_dir: Path, step: int, keep: int) -> None:
    """Deletes all but the newest `keep` step checkpoints and the one with the lowest held-out loss.

    Those of later steps go too: they are of a run that was left when an older checkpoint was resumed.
    """
    for folder in step_folders(out_dir):
        if int(folder.name.removeprefix("step-")) > step:
            shutil.rmtree(folder)
    folders = step_folders(out_dir)
    best = min(folders, key=_val_loss)
    for folder in folders[:-keep]:
        if folder != best:
            shutil.rmtree(folder)


def _val_loss(folder: Path) -> float:
    """Gives the held-out loss of a step checkpoint; a damaged one is never the best."""
    try:
        loss: float = load_yaml(folder / "state.yaml")["progress"]["val_loss"]
    except (ConfigError, KeyError, TypeError):
        return math.inf
    return loss


def _optimizer_state(run: Run) -> dict[str, Tensor]:
    """Flattens what this process holds of the optimizer's state to `name/key` tensors, by parameter name."""
    names = {parameter: name for name, parameter in run.parts.named_parameters()}
    state = run.optimizer.optimizer.state
    return {f"{names[p]}/{key}": value for p, values in state.items() for key, value in values.items()}


def _owner(name: str) -> str:
    """Gives the parameter to which a `name/key` of the optimizer's state belongs."""
    return name.rpartition("/")[0]


def _load_optimizer_state(run: Run, tensors: Mapping[str, Tensor]) -> None:
    """Puts `name/key` tensors back beside their parameters."""
    state = run.optimizer.optimizer.state
    for full, tensor in tensors.items():
        part, key = run.parts.parts[_owner(full)], full.rpartition("/")[2]
        own = part.rows(tensor) if tensor.shape == part.parameter.shape else tensor
        # A copy: what is mapped goes with its file, which is removed in its turn.
        state[part.own][key] = own.to("cpu" if key == "step" else part.own.device, copy=True)


def _rng_state(fabric: Fabric) -> dict[str, Tensor]:
    """Gives the state of torch's generators as bytes, of each process: `cpu` and `cuda` of the first, then `cpu.1`."""
    state = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(fabric.device)
    every = enumerate(gather(fabric, state))
    return {f"{name}.{rank}" if rank else name: value for rank, states in every for name, value in states.items()}


def _load_rng_state(fabric: Fabric, states: Mapping[str, Tensor]) -> None:
    """Puts this process's generators back; one that was not there when they were saved keeps its own."""
    ending = f".{fabric.global_rank}" if fabric.global_rank else ""
    if f"cpu{ending}" in states:
        torch.set_rng_state(states[f"cpu{ending}"])
    if f"cuda{ending}" in states and fabric.device.type == "cuda":
        torch.cuda.set_rng_state(states[f"cuda{ending}"], fabric.device)


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Writes plain types as YAML, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(dump_yaml(values), encoding="utf-8")
