"""`train.export_interval`: Hugging Face folders of the model as it stands, written while the run goes on.

Reads weights and draws no chance, so a run with it is bit for bit the run without it.
"""

from __future__ import annotations

import math
from functools import partial

from litft.checkpoint.disk import atomic_folder, write_json
from litft.checkpoint.files import WEIGHTS_NAME
from litft.checkpoint.hf_folder import REPORT_FILE, HfSource, check_description, check_hf_folder, write_hf_folder
from litft.checkpoint.tensors import load_weights, tensor_specs
from litft.config.plan import passes_mark
from litft.config.run import parse_duration
from litft.errors import ConfigError, LitftError
from litft.methods.base import Full, trainable_state
from litft.methods.merged import can_be_whole, changes_of, inner_method, merged_weights, require_effect
from litft.train.state import Inputs, Progress, Run, trained_style

SKIPPED = "written while training; litft export hf computes with it too"


def require_exportable(inputs: Inputs) -> None:
    """Refuses `train.export_interval` where no Hugging Face folder could be written, before the run begins.

    Raises:
        ConfigError: the method's result is no weights.
        CheckpointError: the base's config.json is missing or describes another model.
    """
    if inputs.config.train.export_interval is None:
        return
    if not can_be_whole(inputs.method):
        raise ConfigError(
            f"train.export_interval is {inputs.config.train.export_interval}, but what {inputs.method.name} trains is "
            "no part of a Hugging Face model; leave it out."
        )
    check_description(inputs.checkpoint_dir, inputs.model_config)


def export_if_due(run: Run, progress: Progress, seconds: float) -> None:
    """Writes `hf-step-XXXXXXXX/` where the plan or the clock says so; a failure is told and ends nothing.

    Args:
        run: as in `fit`.
        progress: the step that ended is counted in.
        seconds: it took.
    """
    train = run.inputs.config.train
    if train.export_interval is None:
        return
    limit_seconds = parse_duration(train.max_time) or math.inf
    is_share = train.export_interval < 1  # of a run that time ends, a fraction is a fraction of its time
    timed = is_share and passes_mark(progress.seconds, seconds, limit_seconds * train.export_interval)
    if not (run.plan.exports_after(progress.step - 1) or timed):
        return
    try:
        export_step(run, progress)
    except (LitftError, OSError) as error:
        run.inputs.report(f"Warning: no Hugging Face folder of step {progress.step}: {error}")


def export_step(run: Run, progress: Progress) -> None:
    """Writes `hf-step-XXXXXXXX/` whole or not at all; its tensors are read again and compared.

    Raises:
        CheckpointError: the disk is full, what was written differs, or the adapters change nothing yet.
    """
    inputs = run.inputs
    target = inputs.out_dir / f"hf-step-{progress.step:08d}"
    source = hf_source(run)
    with atomic_folder(target) as folder:
        n_bytes = write_hf_folder(source, folder)
        count = check_hf_folder(source, folder)
        made_of = {"kind": "hf", "run": str(inputs.out_dir), "step": progress.step, "base": str(inputs.checkpoint_dir)}
        proof = {"tensors_equal": count, "skipped": SKIPPED}
        write_json(folder / REPORT_FILE, {**made_of, "bytes": n_bytes, "certificate": proof})
    inputs.report(
        f"{target} is written: {count} tensors ({n_bytes / 1e6:,.1f} MB) for transformers, read again, equal."
    )


def hf_source(run: Run) -> HfSource:
    """Gives the weights of a run as they stand: all from memory, or LoRA added to the base that lies on disk."""
    inputs, config = run.inputs, run.gpt.config
    style = trained_style(inputs)
    if isinstance(inner_method(run.method), Full):
        state = trainable_state(run.gpt, run.method)
        whole = {name: partial(state.__getitem__, name) for name in state}
        return HfSource(config, tensor_specs(state), whole, inputs.tokenizer_dir, style)
    weights, changes = load_weights(inputs.checkpoint_dir / WEIGHTS_NAME), changes_of(run.gpt)
    base = {name: partial(weights.__getitem__, name) for name in weights}
    require_effect(base, tensor_specs(weights), changes, inputs.out_dir)
    read, specs = merged_weights(base, tensor_specs(weights), changes)
    return HfSource(config, specs, read, inputs.tokenizer_dir, style)
