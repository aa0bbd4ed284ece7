"""A loss or gradient that is not a number: the run stops before a weight moves, and what it met is written down."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from litft.checkpoint.disk import atomic_path
from litft.data.batches import IGNORE
from litft.data.store import PreparedData
from litft.errors import TrainingError
from litft.train.parallel import told
from litft.train.row_losses import RowLoss, WindowLosses, source_name
from litft.train.saving import StepSaver
from litft.train.state import Run
from litft.train.step_folders import step_folders


class NotFiniteError(TrainingError):
    """Says what is not a number, in which rows, and keeps all that was measured."""

    def __init__(self, sentence: str, losses: WindowLosses, norm: float) -> None:
        super().__init__(sentence)
        self.losses, self.norm = losses, norm


def check_finite(fabric: Fabric, losses: WindowLosses, norm: Tensor, in_backward: bool = False) -> None:
    """Stops a run whose loss or gradient is not a number, before the weights move; in all processes alike.

    Args:
        fabric: of the run.
        losses: of the window.
        norm: of its gradient, a scalar.
        in_backward: whether some weights may have moved already.

    Raises:
        NotFiniteError: naming the rows at fault, or all of the window where only the gradient is.
    """
    if math.isfinite(losses.total) and torch.isfinite(norm):  # host-device sync
        return
    bad = [[each.row for each in hand if not math.isfinite(each.total)] for hand in losses.hands]
    what, found = ("loss", bad) if any(bad) else ("gradient", [[each.row for each in hand] for hand in losses.hands])
    many = len(found) > 1
    where = [f"{rows}{f' (process {rank})' if many else ''}" for rank, rows in enumerate(found) if rows]
    moved = "some weights may have moved" if in_backward else "the weights did not move"
    sentence = f"The {what} is not finite at rows {' and '.join(where)} of train.pt (numbers from 0); {moved}."
    raise told(fabric, NotFiniteError(sentence, losses, norm.item()))


@contextmanager
def keeping_what_is_not_finite(run: Run, saver: StepSaver, step: int, rate: float) -> Iterator[None]:
    """Writes down the window in which a loss or gradient was not a number, and says where it is and how to go on.

    Args:
        run: whose step is in the block.
        saver: of its checkpoints.
        step: counted from 1.
        rate: its learning rate.

    Raises:
        TrainingError: what went wrong, and this.
    """
    try:
        yield
    except NotFiniteError as error:
        saver.settle()
        path = run.inputs.out_dir / "nonfinite" / f"step-{step:08d}.json"
        try:
            _write(path, _described(run.inputs.train, error, step, rate))
            kept = f"Its rows are in {path}."
        except OSError as failed:  # a full disk must not hide the rest
            kept = f"Its rows could not be written to {path} ({failed.strerror})."
        advice = "Look at them, and start afresh with a lower optim.learning_rate or --precision 32-true"
        raise TrainingError(f"{error} {kept} {advice}; {_last_checkpoint(run.inputs.out_dir)}") from error


def _last_checkpoint(out_dir: Path) -> str:
    """Says what a run can be taken up from."""
    folders = step_folders(out_dir)
    if not folders:
        return "there is no checkpoint yet."
    return (
        f"{folders[-1]} stays, and --resume auto goes on from it bit for bit: that stops here again, unless the "
        "machine was at fault."
    )


def _described(data: PreparedData, error: NotFiniteError, step: int, rate: float) -> dict[str, Any]:
    """Gives all that was measured of the window, in the order in which it was computed."""
    return {
        "step": step,
        "learning_rate": rate,
        "loss": _number(error.losses.total / max(sum(each.targets for each in error.losses), 1)),
        "grad_norm": _number(error.norm),
        "data": str(data.path),
        "rows": [
            {"process": rank, **_row(data, each)} for rank, hand in enumerate(error.losses.hands) for each in hand
        ],
    }


def _row(data: PreparedData, found: RowLoss) -> dict[str, Any]:
    """Gives one row: its loss in nats per target token, and its ids with those that carry loss."""
    ids, mask = data.row(found.row)
    return {
        "row": found.row,
        "source": source_name(data, found.row),
        "micro_batch": found.micro_batch,
        "target_tokens": found.targets,
        "loss": _number(found.total / max(found.targets, 1)),
        "input_ids": ids.tolist(),
        "labels": torch.where(mask, ids, IGNORE).tolist(),  # not shifted
    }


def _number(value: float) -> float | str:
    """Gives a number, or the word for one that JSON does not know: nan, inf, -inf."""
    return value if math.isfinite(value) else str(value)


def _write(path: Path, values: dict[str, Any]) -> None:
    """Writes JSON, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values) + "\n", encoding="utf-8")
