"""Downloaded weights to litft's layout, in the same folder, tensor by tensor. Knows no single family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from litft.checkpoint.disk import plain_size, read_json, remove_leftovers, require_space
from litft.checkpoint.files import (
    MODEL_CONFIG_NAME,
    WEIGHTS_NAME,
    load_model_config,
    require_converted,
    resolve_checkpoint_dir,
    save_model_config,
)
from litft.checkpoint.layout import Plan, plan_from_hf, slices_of_ours
from litft.checkpoint.tensors import is_whole, save_safetensors, with_progress
from litft.checkpoint.weights import FILES_AND_INDICES, HfWeights, open_weights, weights_files
from litft.config.convert import FromHfConfig
from litft.config.model import ModelConfig
from litft.errors import CheckpointError
from litft.families import FAMILIES, model_config_from_hf, unknown_fields
from litft.families.base import Rename

Report = Callable[[str], None]
# The interpreter, without torch and with it, and some to spare; measured by benchmarks/convert.py.
_PROCESS_BYTES = {".safetensors": 100_000_000, ".bin": 300_000_000}


def from_hf(config: FromHfConfig, report: Report = lambda message: None) -> Path:
    """Converts downloaded weights: writes lit_model.safetensors and model_config.yaml beside them.

    Args:
        config: which folder.
        report: is told, in a sentence, what was done.

    Returns:
        The folder.

    Raises:
        CheckpointError: an unknown family, missing, damaged, unexpected or misshapen tensors, or too little disk space.
    """
    folder = resolve_checkpoint_dir(config.checkpoint_dir)
    if not config.overwrite and _is_up_to_date(folder):
        report(f"{folder} is converted already (--overwrite true converts again).")
        return folder
    name, hf_config = folder.resolve().name, read_json(folder / "config.json")
    model = model_config_from_hf(hf_config, name)
    if ignored := unknown_fields(hf_config, name):
        report(f"config.json has fields that litft does not know and ignores: {', '.join(ignored)}.")
    if "auto_map" in hf_config:
        report(f"{folder / 'config.json'} names code of its own (auto_map); litft runs no code of a checkpoint.")
    weights = open_weights(folder, FAMILIES[model.family].standard_name)
    plan = plan_from_hf(model, weights.specs, folder)
    _check_tied(plan, weights, folder)
    remove_leftovers(folder / WEIGHTS_NAME)  # of a killed run, before the free space is counted
    n_bytes = sum(spec.n_bytes for spec in plan.specs.values())
    free_bytes = require_space(folder, n_bytes)
    peak_bytes = _PROCESS_BYTES[weights.files[0].suffix] + max(spec.n_bytes for spec in plan.specs.values())
    report(
        f"Writing {plain_size(n_bytes)} to {folder / WEIGHTS_NAME}, where {plain_size(free_bytes)} are free; "
        f"at most {plain_size(peak_bytes)} of memory are needed."
    )
    slices = (made for rule in plan.rules for made in slices_of_ours(rule, weights.bits))
    save_safetensors(folder / WEIGHTS_NAME, with_progress(slices, n_bytes, "Converting"), plan.specs, keeps_digest=True)
    save_model_config(folder, model)
    report(f"Converted {len(plan.specs)} tensors ({plain_size(n_bytes)}) to {folder / WEIGHTS_NAME}.")
    return folder


def read_model_config(folder: Path) -> ModelConfig:
    """Gives the architecture of a checkpoint that is converted or, for a run from random weights, just described.

    Raises:
        CheckpointError: the folder describes no model that litft knows.
    """
    if (folder / MODEL_CONFIG_NAME).exists():
        return load_model_config(folder)
    return model_config_from_hf(read_json(folder / "config.json"), folder.resolve().name)


def _is_up_to_date(folder: Path) -> bool:
    """Says whether a whole conversion is there and newer than what it was made from."""
    made = [folder / WEIGHTS_NAME, folder / MODEL_CONFIG_NAME]
    if not all(path.is_file() for path in made):
        return False
    if not any((folder / name).is_file() for name in FILES_AND_INDICES):
        require_converted(folder)  # a finetuned model, which has no sources to make it from again
        return True
    sources = [folder / "config.json", *weights_files(folder)]
    # A file that is moved or copied here may keep an old mtime; its ctime is that of its arrival.
    newest = max(max(path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in sources if path.is_file())
    return newest <= min(path.stat().st_mtime_ns for path in made) and is_whole(folder / WEIGHTS_NAME)


def _check_tied(plan: Plan, weights: HfWeights, source: Path) -> None:
    """Refuses a head that is not the embedding where the configuration says it is."""
    names = {rule.ours: rule.theirs for rule in plan.rules if isinstance(rule, Rename)}
    for tie in plan.ties:
        embedding = names[tie.ours]
        if not np.array_equal(weights.bits[tie.theirs](), weights.bits[embedding]()):
            raise CheckpointError(
                f"{tie.theirs} in {source} differs from {embedding}, though the configuration ties them; "
                f'set "tie_word_embeddings": false in {source / "config.json"}.'
            )
