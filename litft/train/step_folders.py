"""The step checkpoints of a run on disk: which are there, which are whole, which go. Knows no model and no tensors.

`step-00000200/` holds a file of tensors for each of `STEP_FILES`, and `state.yaml`: counts, what the run reads, and the
sha256 of each file, its own included.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from litft.checkpoint.disk import remove_folder, sha256_file
from litft.checkpoint.sealed import load_sealed
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
        CheckpointError: a file is missing or differs from its hash, or the folder is that of another step.
    """
    try:
        state = load_sealed(folder / "state.yaml")
        for name in STEP_FILES:
            if sha256_file(folder / f"{name}.safetensors") != state["sha256"][name]:
                raise CheckpointError(f"{folder / name}.safetensors is damaged: its sha256 differs from state.yaml.")
        progress = Progress(**state["progress"])
        if progress.step != _step_of(folder):
            raise CheckpointError(f"{folder} holds step {progress.step}; it must be named step-{progress.step:08d}.")
        return progress
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
        step: the last one, of the checkpoint that was just written or of the run.
        keep: as in `train.keep`.
    """
    for folder in step_folders(out_dir):
        if _step_of(folder) > step:
            remove_folder(folder)
    folders = step_folders(out_dir)
    best = min(folders, key=_val_loss, default=None)
    for folder in folders[:-keep]:
        if folder != best:
            remove_folder(folder)


def _step_of(folder: Path) -> int:
    """Gives the step of which a folder says to be; -1 for one of another name, such as a copy."""
    match = re.fullmatch(r"step-(\d{8})", folder.name)
    return int(match[1]) if match else -1


def _val_loss(folder: Path) -> float:
    """Gives the held-out loss of a step checkpoint; a damaged one is never the best."""
    try:
        loss: float = load_sealed(folder / "state.yaml")["progress"]["val_loss"]
    except (ConfigError, KeyError, TypeError):
        return math.inf
    return loss
