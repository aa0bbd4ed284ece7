"""`train.export_interval`: Hugging Face folders of the model as it stands, written while the run goes on.

Reads weights and draws no chance, so a run with it is bit for bit the run without it.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from litft.checkpoint.disk import atomic_folder, write_json
from litft.checkpoint.files import WEIGHTS_NAME
from litft.checkpoint.hf_folder import REPORT_FILE, HfSource, check_description, check_hf_folder, write_hf_folder
from litft.checkpoint.tensors import load_weights, tensor_specs
from litft.errors import ConfigError, LitftError
from litft.methods.base import Full
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


def try_export(run: Run, progress: Progress) -> None:
    """Writes `hf-step-XXXXXXXX/`; a failure is told and ends nothing.

    Args:
        run: as in `fit`.
        progress: the step that ended is counted in.
    """
    state = run.parts.whole_state(run.method)  # all processes call each other for it
    if run.fabric.global_rank > 0:
        return
    try:
        export_step(run, progress, state)
    except (LitftError, OSError) as error:
        run.inputs.report(f"Warning: no Hugging Face folder of step {progress.step}: {error}")


def export_step(run: Run, progress: Progress, state: dict[str, Tensor]) -> None:
    """Writes `hf-step-XXXXXXXX/` whole or not at all; its tensors are read again and compared.

    Args:
        run, progress: as above.
        state: what `final/` would hold, whole.

    Raises:
        CheckpointError: the disk is full, what was written differs, or the adapters change nothing yet.
    """
    inputs = run.inputs
    target = inputs.out_dir / f"hf-step-{progress.step:08d}"
    source = hf_source(run, state)
    with atomic_folder(target) as folder:
        n_bytes = write_hf_folder(source, folder)
        count = check_hf_folder(source, folder)
        made_of = {"kind": "hf", "run": str(inputs.out_dir), "step": progress.step, "base": str(inputs.checkpoint_dir)}
        proof = {"tensors_equal": count, "skipped": SKIPPED}
        write_json(folder / REPORT_FILE, {**made_of, "bytes": n_bytes, "certificate": proof})
    inputs.report(
        f"{target} is written: {count} tensors ({n_bytes / 1e6:,.1f} MB) for transformers, read again, equal."
    )


def hf_source(run: Run, state: dict[str, Tensor]) -> HfSource:
    """Gives the weights of a run as they stand: all from memory, or LoRA added to the base that lies on disk."""
    inputs, config = run.inputs, run.gpt.config
    style = trained_style(inputs)
    if isinstance(inner_method(run.method), Full):
        whole = {name: partial(state.__getitem__, name) for name in state}
        return HfSource(config, tensor_specs(state), whole, inputs.tokenizer_dir, style)
    weights, changes = load_weights(inputs.checkpoint_dir / WEIGHTS_NAME), changes_of(run.gpt)
    base = {name: partial(weights.__getitem__, name) for name in weights}
    require_effect(base, tensor_specs(weights), changes, inputs.out_dir)
    read, specs = merged_weights(base, tensor_specs(weights), changes)
    return HfSource(config, specs, read, inputs.tokenizer_dir, style)
