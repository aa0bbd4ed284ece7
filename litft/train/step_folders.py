"""The step checkpoints of a run on disk: which are there, which are whole, which go. Knows no model and no tensors.

`step-00000200/` holds a file of tensors for each of `STEP_FILES`, and `state.yaml`: counts, what the run reads, and the
sha256 of each file.
"""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

from litft.checkpoint.disk import sha256_file
from litft.config.io import load_yaml
from litft.errors import CheckpointError, ConfigError, LitftError
from litft.train.state import Progress, Report

STEP_FILES = ("trainable", "optimizer", "rng", "row_losses")


def step_folders(out_dir: Path) -> list[Path]:
    """Gives the step checkpoints of a run, oldest first."""
    found = out_dir.iterdir() if out_dir.is_dir() else []
    return sorted(folder for folder in found if folder.is_dir() and re.fullmatch(r"step-\d{8}", folder.name))


def check_step(folder: Path) -> Progress:
    """Gives the counts of a step checkpoint whose files are whole.

    Raises:
        CheckpointError: a file is missing or differs from its hash.
    """
    try:
        state = load_yaml(folder / "state.yaml")
        for name in STEP_FILES:
            if sha256_file(folder / f"{name}.safetensors") != state["sha256"][name]:
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


def remove_old(out_dir: Path, step: int, keep: int) -> None:
    """Deletes all but the newest `keep` step checkpoints and the one with the lowest held-out loss.

    Those of later steps go too: they are of a run that was left when an older checkpoint was resumed.

    Args:
        out_dir: the run's folder.
        step: the one that was just written.
        keep: as in `train.keep`.
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
