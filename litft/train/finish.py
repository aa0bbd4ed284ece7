"""Ends a run: `final/`, a checkpoint directory for every other command, `summary.json`, and `report.html`."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.disk import keep_sha256, publish_folder, require_space, write_json
from litft.checkpoint.files import copy_side_files, save_model_config
from litft.checkpoint.held import release_folder
from litft.methods.base import weights_path
from litft.methods.load import METHOD_FILE
from litft.text.style_files import save_prompt_style
from litft.train.best import take_best
from litft.train.parallel import failing_together, gather, noticing_the_lost
from litft.train.provenance import write_provenance
from litft.train.row_losses import ROW_LOSSES_FILE, write_row_losses
from litft.train.state import Inputs, Progress, Run, trained_style, write_yaml
from litft.train.step_folders import remove_old
from litft.train.terminal import closing_words, heeding_signals


@noticing_the_lost
def finish(run: Run, progress: Progress) -> dict[str, Any]:
    """Writes `final/` whole or not at all, then `summary.json` and the report; the first process does.

    A signal that asks the run to stop waits for that: it is at its end.

    Returns:
        The summary.
    """
    with heeding_signals(run.inputs.report, "The run has ended, its result is being written"):
        final = run.inputs.out_dir / "final"
        chosen = take_best(run, progress)
        state, summary = run.parts.final_state(run.method), summarise(run, progress) | chosen
        _write_final(run, state, final, summary)
        if run.fabric.global_rank == 0:
            _write_page(run.inputs)
        run.inputs.loggers.close(final, summary)
        release_folder(run.inputs.out_dir)
        for text in closing_words(summary, final, run.inputs.config.data_dir, run.method.name):
            run.inputs.report(text)
    return summary


def _write_final(run: Run, state: dict[str, Tensor], final: Path, summary: dict[str, Any]) -> None:
    """Writes `final/` and what says that the run has ended; whatever goes wrong, no half of it takes space."""
    inputs, is_first = run.inputs, run.fabric.global_rank == 0
    temporary = final.with_name(f".{final.name}.partial")
    try:
        with failing_together(run.fabric):
            if is_first:
                shutil.rmtree(temporary, ignore_errors=True)
                copy_side_files(inputs.tokenizer_dir, temporary)
                require_space(temporary, run.parts.n_bytes(state))
        with failing_together(run.fabric):
            run.parts.save(weights_path(temporary, run.method), state)
        with failing_together(run.fabric):
            if is_first:
                _describe(run, temporary, final)
                publish_folder(temporary, final)
                remove_old(inputs.out_dir, summary["steps"], inputs.config.train.keep)  # what a killed run left
                write_row_losses(inputs.out_dir / ROW_LOSSES_FILE, inputs.train, run.row_losses.state())
                write_json(inputs.out_dir / "summary.json", summary)
    finally:
        if is_first:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_page(inputs: Inputs) -> None:
    """Writes the report, or says why it is not there."""
    from litft.report.write import REPORT_FILE, try_report  # not needed before, and slow to import

    try_report([inputs.out_dir], inputs.out_dir / REPORT_FILE, inputs.report)


def _describe(run: Run, temporary: Path, final: Path) -> None:
    """Writes what stands beside the weights."""
    inputs = run.inputs
    keep_sha256(weights_path(temporary, run.method))
    save_model_config(temporary, run.gpt.config)
    save_prompt_style(temporary, trained_style(inputs))
    shutil.copyfile(inputs.out_dir / "run.yaml", temporary / "run.yaml")
    if run.method.name != "full":
        write_yaml(temporary / METHOD_FILE, method_record(run, final))
    write_provenance(run, temporary)


def method_record(run: Run, final: Path) -> dict[str, Any]:
    """Gives what `method.yaml` holds: the method, its settings, and the base it belongs on.

    The base is named twice: as it was typed, and as seen from here, for who opens this folder from elsewhere.
    """
    base = run.inputs.checkpoint_dir
    return {
        "method": run.method.name,
        "base": str(base),
        "base_from_here": os.path.relpath(base.resolve(), final.resolve()),
        "base_sha256": run.inputs.hashes["base"],
        "quantize": run.inputs.config.quantize,  # for information: the adapters belong on the base as it is on disk
        "settings": run.method.settings(),
    }


def summarise(run: Run, progress: Progress) -> dict[str, Any]:
    """Gives the numbers of `summary.json`; tokens are real ones, losses in nats per target token."""
    seconds = max(progress.seconds, 1e-9)
    return {
        "iters": -(-progress.examples // run.plan.micro_batch_size),
        "steps": progress.step,
        "epochs": progress.examples / run.plan.n_examples,
        "examples": progress.examples,
        "tokens": progress.tokens,
        "target_tokens": progress.target_tokens,
        "padding_tokens": progress.padding_tokens,
        "train_seconds": progress.seconds,
        "spent_seconds": dict(progress.spent),
        "tokens_per_second": progress.tokens / seconds,
        "target_tokens_per_second": progress.target_tokens / seconds,
        "processes": run.fabric.world_size,
        "peak_memory_bytes": max(gather(run.fabric, peak_memory_bytes())),  # of the process that took most
        "parameters": run.inputs.parameters,
        "trainable_parameters": run.inputs.trainable_parameters,
        "first_loss": progress.first_loss,
        "final_loss": progress.final_loss,
        "first_val_loss": progress.first_val_loss,
        "val_loss": progress.val_loss,
        "val_accuracy": progress.val_accuracy,
        "val_loss_by_source": progress.val_loss_by_source,
        "best_val_loss": progress.best_val_loss,
        "best_step": progress.best_step,
        "stopped_by": progress.stopped_by,
    }


def peak_memory_bytes() -> int:
    """Gives the most memory used so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux
