"""The proof of a PEFT folder: read again, and computed by peft on the base as litft computes the run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.files import WEIGHTS_NAME, load_model_config
from litft.checkpoint.hf_folder import tokenizer_of, write_hf_folder
from litft.checkpoint.tensors import load_weights
from litft.checkpoint.weights import weights_files
from litft.config.export import Certificate
from litft.errors import CheckpointError
from litft.export import elsewhere
from litft.export.certificate import compare, fixed_prompts, our_logits, reason_against, require_agreement
from litft.export.hf import chat_proof
from litft.export.source import open_weights_of, trained_style
from litft.methods.load import load_finetuned

LIBRARIES = ("transformers", "peft")


def certify_peft(
    checkpoint_dir: Path, base_dir: Path, tensors: Mapping[str, Tensor], folder: Path, asked: Certificate
) -> dict[str, Any]:
    """Proves a written adapter folder.

    Args:
        checkpoint_dir: the run's final folder.
        base_dir: its base.
        tensors: what was to be written.
        folder: where it lies.
        asked: how much proof is wanted.

    Returns:
        What `export_report.json` says of it.

    Raises:
        CheckpointError: what was written differs.
        ConfigError: the full certificate is asked for and a library is not installed.
    """
    written = load_weights(folder / "adapter_model.safetensors")
    wrong = [name for name in {*written, *tensors} if not _are_equal(written.get(name), tensors.get(name))]
    if wrong:
        raise CheckpointError(f"The export differs from what was to be written: {min(wrong)} in {folder}.")
    weights = load_weights(base_dir / WEIGHTS_NAME)
    reason = reason_against(asked, LIBRARIES, sum(tensor.numel() for tensor in weights.values()))
    proof: dict[str, Any] = {"tensors_equal": len(written), "skipped": reason}
    if reason is None:
        style, tokenizer = trained_style(checkpoint_dir), tokenizer_of(checkpoint_dir)
        prompts = fixed_prompts(load_model_config(base_dir), tokenizer, style)
        ours = our_logits(load_finetuned(checkpoint_dir, "32-true", torch.device("cpu")), prompts)
        with base_folder(base_dir, folder) as base, elsewhere.loading("peft", folder) as transformers:
            theirs = elsewhere.load_adapted(transformers, base, folder)
            proof["libraries"] = elsewhere.versions(LIBRARIES)
            proof["logits"] = compare(ours, elsewhere.logits_of(theirs, prompts))
        require_agreement(proof["logits"], "peft", folder)
        if tokenizer is not None and style is not None:
            proof["chat"] = chat_proof(tokenizer, style, folder)
    return proof


@contextmanager
def base_folder(base_dir: Path, beside: Path) -> Iterator[Path]:
    """Gives the base as transformers loads it: its own folder, or a temporary one where only litft's weights are there.

    Args:
        base_dir: the base.
        beside: a temporary folder is made next to it.
    """
    if has_hf_weights(base_dir):
        yield base_dir
        return
    with tempfile.TemporaryDirectory(prefix=".base.", dir=beside.parent) as temporary:
        write_hf_folder(open_weights_of(base_dir, base_dir), Path(temporary))
        yield Path(temporary)


def has_hf_weights(folder: Path) -> bool:
    """Says whether a folder holds weights that transformers reads."""
    try:
        return bool(weights_files(folder))
    except CheckpointError:
        return False


def _are_equal(first: Tensor | None, second: Tensor | None) -> bool:
    """Says whether both are there, with the same bits."""
    return first is not None and second is not None and first.dtype == second.dtype and torch.equal(first, second)
