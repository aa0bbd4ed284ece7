"""What a run is made of, and how far it has come. Its checkpoints are written in saving.py."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from litft.checkpoint.disk import atomic_path
from litft.config.io import dump_yaml
from litft.config.model import ModelConfig
from litft.config.plan import TrainPlan
from litft.config.run import RunConfig
from litft.data.batches import Batching
from litft.data.store import PreparedData
from litft.errors import CheckpointError
from litft.methods.base import Method
from litft.model.gpt import GPT
from litft.text.encoding import Style
from litft.text.style_files import load_style, style_from_dict
from litft.text.tokenizer import Tokenizer
from litft.train.in_backward import SteppingInBackward
from litft.train.loggers import Loggers
from litft.train.parallel import from_first, gather, told
from litft.train.parts import Parts
from litft.train.row_losses import RowLosses, WindowLosses

Report = Callable[[str], None]


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step measured.

    Attributes:
        loss: the mean, in nats per target token.
        grad_norm: before clipping.
        examples, tokens, target_tokens, padding_tokens: counts, over all processes.
        losses: of each row.
        spent: seconds in `data`, in `compute` (forward and backward passes) and in `optimizer`, of this process.
    """

    loss: float
    grad_norm: float
    examples: int
    tokens: int
    target_tokens: int
    padding_tokens: int
    losses: WindowLosses
    spent: dict[str, float]


@dataclass
class Progress:
    """How far a run has come; losses in nats per target token, seconds of training only.

    `stalled` validations in a row were not below `loss_to_beat` by more than `eval.min_delta`.
    `recent_losses` are those of the last steps, by which spikes.py knows a loss that jumps. `budget` holds what a
    resumed run must know of its time, loading and validations included; `spent` holds seconds by what they went into.
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
    loss_to_beat: float | None = None
    stalled: int = 0
    stopped_by: str | None = None
    recent_losses: list[float] = field(default_factory=list)
    budget: dict[str, float] = field(default_factory=dict, compare=False)
    spent: dict[str, float] = field(default_factory=dict, compare=False)

    def note_step(self, result: StepResult, seconds: float) -> None:
        """Adds one step to the counts."""
        self.step += 1
        for name in ("examples", "tokens", "target_tokens", "padding_tokens"):
            setattr(self, name, getattr(self, name) + getattr(result, name))
        self.seconds += seconds
        for what, each in result.spent.items():
            self.spent[what] = self.spent.get(what, 0.0) + each
        self.final_loss = result.loss
        if self.first_loss is None:
            self.first_loss = result.loss

    def note_validation(
        self, loss: float, accuracy: float, by_source: dict[str, float], min_delta: float = 0.0
    ) -> None:
        """Takes what was measured after this step, whether it is the best so far, and how long there was no better."""
        self.val_loss, self.val_accuracy, self.val_loss_by_source = loss, accuracy, by_source
        if self.first_val_loss is None:
            self.first_val_loss = loss
        if self.best_val_loss is None or loss < self.best_val_loss:
            self.best_val_loss, self.best_step = loss, self.step
        if self.loss_to_beat is None or loss < self.loss_to_beat - min_delta:
            self.loss_to_beat, self.stalled = loss, 0
        else:
            self.stalled += 1

    def stalled_by(self, patience: int | None) -> str | None:
        """Gives `patience` where so many validations in a row were no improvement, else None."""
        return "patience" if patience is not None and self.stalled >= patience else None


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
        loggers: told how the run goes; `start_out_dir` opens those beside the run's own files.
        recipe: the file that opened these inputs; None where it has none.
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
    loggers: Loggers = field(default_factory=Loggers)
    recipe: Path | None = None


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
    row_losses: RowLosses  # of train.pt
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


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Writes plain types as YAML, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(dump_yaml(values), encoding="utf-8")
