"""`eval.use_best`: what `final/` holds are the weights of the lowest held-out loss, not the last ones."""

from __future__ import annotations

from typing import Any

from litft.errors import LitftError
from litft.train.parallel import from_first
from litft.train.saving import load_trained
from litft.train.state import Progress, Run
from litft.train.step_folders import check_step


def take_best(run: Run, progress: Progress) -> dict[str, Any]:
    """Puts the best weights into the model if `final/` is to hold them; all processes must call this together.

    Where no validation was better than that before the first step, or the checkpoint is no longer whole, the last
    weights stay, with a warning.

    Args:
        run: at its end.
        progress: as `fit` gave it.

    Returns:
        For `summary.json`, of the weights that the model holds now: their step, held-out loss and accuracy.
    """
    of_now = {
        "final_step": progress.step,
        "val_loss": progress.val_loss,
        "val_accuracy": progress.val_accuracy,
        "val_loss_by_source": progress.val_loss_by_source,
    }
    if not run.inputs.config.eval.keeps_best or progress.best_step == progress.step:
        return of_now
    folder = run.inputs.out_dir / f"step-{progress.best_step:08d}"
    best = from_first(run.fabric, _read_step(run, progress))
    if best is None:
        return of_now
    load_trained(run, folder)
    run.inputs.report(
        f"The best held-out loss, {best.val_loss:.4f}, was that of step {best.step}; final/ holds its weights."
    )
    return {"final_step": best.step, **{name: getattr(best, name) for name in of_now if name != "final_step"}}


def _read_step(run: Run, progress: Progress) -> Progress | None:
    """Gives the counts of the best step, None where there is no checkpoint of it; the first process looks."""
    if run.fabric.global_rank > 0:
        return None
    if progress.best_step == 0:
        run.inputs.report("Warning: no held-out loss was below that before the first step; final/ is of the last one.")
        return None
    try:
        return check_step(run.inputs.out_dir / f"step-{progress.best_step:08d}")
    except LitftError as error:
        run.inputs.report(f"Warning: {error} So final/ is of the last step, not of the best one.")
        return None
