"""Ends a run: `final/`, a checkpoint directory for every other command, and `summary.json`."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from importlib import metadata
from typing import Any

import torch
from safetensors.torch import save_file

from litft.checkpoint.disk import publish_folder, sha256_file, write_json
from litft.checkpoint.files import copy_side_files, save_model_config
from litft.methods.base import trainable_state, weights_path
from litft.methods.load import METHOD_FILE
from litft.text.prompts import PromptStyle, load_prompt_style, save_prompt_style
from litft.train.state import Inputs, Progress, Run, write_yaml


def finish(run: Run, progress: Progress) -> dict[str, Any]:
    """Writes `final/` whole or not at all, then `summary.json`, and says where they are.

    Returns:
        The summary.
    """
    inputs = run.inputs
    final, temporary = inputs.out_dir / "final", inputs.out_dir / ".final.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    copy_side_files(inputs.checkpoint_dir, temporary)
    save_model_config(temporary, inputs.model_config)
    save_prompt_style(temporary, trained_style(inputs))
    state = {name: tensor.contiguous().cpu() for name, tensor in trainable_state(run.gpt, run.method).items()}
    save_file(state, weights_path(temporary, run.method), metadata={"format": "pt"})
    shutil.copyfile(inputs.out_dir / "run.yaml", temporary / "run.yaml")
    base = inputs.checkpoint_dir / "lit_model.safetensors"
    base_sha256 = sha256_file(base) if base.exists() else None
    if run.method.name != "full":
        # Both ways to the base: as it was typed, and from here, for who opens this folder from elsewhere.
        from_here = os.path.relpath(inputs.checkpoint_dir.resolve(), final.resolve())
        named = {"method": run.method.name, "base": str(inputs.checkpoint_dir), "base_from_here": from_here}
        write_yaml(temporary / METHOD_FILE, {**named, "base_sha256": base_sha256, "settings": run.method.settings()})
    write_json(temporary / "provenance.json", provenance(run, base_sha256))
    publish_folder(temporary, final)
    summary = summarise(run, progress)
    write_json(inputs.out_dir / "summary.json", summary)
    inputs.report(
        f"{final} is written: held-out loss {summary['first_val_loss']:.4f} -> {summary['val_loss']:.4f} in "
        f"{progress.seconds:.0f} s of training.\nNext: litft generate --checkpoint_dir {final} --instruction '...'"
    )
    return summary


def trained_style(inputs: Inputs) -> PromptStyle:
    """Gives the prompt style of the data; the base's for rows that came tokenised and name none."""
    style = inputs.train.meta.get("prompt_style")
    return PromptStyle.from_dict(style) if style else load_prompt_style(inputs.checkpoint_dir)


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
        "tokens_per_second": progress.tokens / seconds,
        "target_tokens_per_second": progress.target_tokens / seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        "parameters": run.inputs.parameters,
        "trainable_parameters": run.inputs.trainable_parameters,
        "first_loss": progress.first_loss,
        "final_loss": progress.final_loss,
        "first_val_loss": progress.first_val_loss,
        "val_loss": progress.val_loss,
        "val_accuracy": progress.val_accuracy,
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


def provenance(run: Run, base_sha256: str | None) -> dict[str, Any]:
    """Gives what this result was made of: hashes of base, tokenizer and data, versions, machine, seed."""
    inputs = run.inputs
    packages = ("litft", "torch", "lightning-fabric", "tokenizers", "sentencepiece", "safetensors")
    return {
        "base": str(inputs.checkpoint_dir),
        "base_sha256": base_sha256,
        "tokenizer_hash": inputs.tokenizer.hash,
        "data": str(inputs.data_dir),
        "data_sha256": inputs.data_sha256,
        "seed": inputs.config.seed,
        "versions": {name: metadata.version(name) for name in packages} | {"python": platform.python_version()},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
    }
