"""`litft merge`: adds LoRA into its base, written in litft's own layout and the base's dtype, with its proof."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from litft.checkpoint.disk import atomic_folder, require_free, require_space, write_json
from litft.checkpoint.files import (
    WEIGHTS_NAME,
    copy_side_files,
    load_model_config,
    resolve_checkpoint_dir,
    save_model_config,
)
from litft.checkpoint.hf_folder import tokenizer_of
from litft.checkpoint.tensors import load_weights, save_safetensors, tensor_specs
from litft.config.answer import MergeConfig
from litft.config.export import Certificate
from litft.errors import CheckpointError
from litft.export.certificate import compare, fixed_prompts, our_logits, reason_against, require_agreement, write_report
from litft.export.hf import CPU, sentence, whole_logits
from litft.export.source import Exportable, open_exportable, report_quantized
from litft.methods.load import load_method
from litft.model.load import load_model
from litft.terminal.bars import tracked

MERGE_FILE = "merge.json"  # says what a merged model was made of, and that it may be replaced by another merge


def merge(config: MergeConfig, report: Callable[[str], None] = lambda message: None) -> Path:
    """Writes the whole model of a LoRA run, one tensor in memory at a time.

    Args:
        config: the run's final folder and where the model goes.
        report: told where it lies and how it was proved.

    Returns:
        The folder, a converted checkpoint like any other.

    Raises:
        CheckpointError: it is no LoRA run, a part is damaged, the adapters change nothing, or what was written differs.
        ConfigError: out_dir holds something else.
    """
    checkpoint_dir = resolve_checkpoint_dir(config.checkpoint_dir)
    load_method(checkpoint_dir)  # what is whole already needs no merge
    out_dir = config.out_dir or checkpoint_dir.parent / "merged"
    model = open_exportable(checkpoint_dir)
    advice = "name another, or replace a merge by --overwrite true"
    require_free(out_dir, config.overwrite, MERGE_FILE, advice, (checkpoint_dir, model.base_dir))
    with atomic_folder(out_dir) as folder:
        write_merged(model, folder)
        proof = certify_merged(model, folder, config.certificate)
        made_of = {"adapters": str(checkpoint_dir), "base": str(model.base_dir)}
        write_json(folder / MERGE_FILE, made_of)
        write_report(folder, "merge", made_of, proof)
    report(f"{out_dir} holds the merged model.\n{sentence(proof)}")
    report_quantized(checkpoint_dir, report)
    report(
        f"Next: litft generate --checkpoint_dir {out_dir} --instruction '...'\n"
        f"  or: litft export hf --checkpoint_dir {out_dir} --out_dir {out_dir.parent / 'hf'}"
    )
    return out_dir


def write_merged(model: Exportable, folder: Path) -> None:
    """Fills a folder with merged weights, their description, tokenizer and prompt style.

    Raises:
        CheckpointError: the disk is full.
    """
    source = model.source
    copy_side_files(source.side_dir, folder)
    require_space(folder, (model.base_dir / WEIGHTS_NAME).stat().st_size)
    names = tracked(source.read, "merging", "tensors")
    save_safetensors(
        folder / WEIGHTS_NAME, ((name, source.read[name]()) for name in names), source.specs, keeps_digest=True
    )
    save_model_config(folder, source.model)


def certify_merged(model: Exportable, folder: Path, asked: Certificate) -> dict[str, Any]:
    """Proves a merged folder: its tensors are read again, and litft computes with it what it computes unmerged.

    Args:
        model: what was written.
        folder: where it lies.
        asked: how much proof is wanted.

    Returns:
        What `export_report.json` says of it.

    Raises:
        CheckpointError: what was written differs.
    """
    if load_model_config(folder) != model.source.model:
        raise CheckpointError(f"The merge differs from what was to be written: {folder} describes another model.")
    written = load_weights(folder / WEIGHTS_NAME)
    if tensor_specs(written) != dict(model.source.specs):
        raise CheckpointError(f"The merge differs from what was to be written: {folder} holds other tensors.")
    for name, tensor in written.items():
        if not torch.equal(tensor, model.source.read[name]()):
            raise CheckpointError(
                f"The merge differs from what was to be written: {name} in {folder}. Nothing was kept; merge again, "
                "and if that happens twice look at the disk."
            )
    reason = reason_against(asked, (), model.parameters)
    proof: dict[str, Any] = {"tensors_equal": len(written), "skipped": reason}
    if reason is None:
        prompts = fixed_prompts(model.source.model, tokenizer_of(model.source.side_dir), model.source.style)
        ours, proof["merging"] = whole_logits(model, prompts)
        proof["libraries"] = {"litft": "itself"}
        proof["logits"] = compare(ours, our_logits(load_model(folder, "32-true", CPU), prompts))
        require_agreement(proof["logits"], "litft", folder)
    return proof
