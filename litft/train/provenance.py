"""What a run is made of, and what it means to do: written before its first step, and beside its result.

Of the machine it tells what could change a number, and neither folders, names of people or hosts, nor secrets, beyond
what `run.yaml` has.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from litft.checkpoint.disk import read_json, sha256_of_files, write_json
from litft.config.parse import config_to_dict
from litft.model.gpt import GPT
from litft.train.code import own_code, recipe_code
from litft.train.flops import model_flops
from litft.train.state import Run

START_FILE, PROVENANCE_FILE = "start.json", "provenance.json"
PACKAGES = ("litft", "torch", "lightning-fabric", "tokenizers", "sentencepiece", "safetensors")
MADE_OF = ("recipe", "litft", "versions", "device", "numerics")  # which a resumed run may have other ones of
ALSO = ("bitsandbytes", "jinja2", "numpy", "triton")  # which may change a number, and may not be there


def write_start(run: Run) -> None:
    """Writes `start.json`, so that the report of a run that was killed can say what it was and how far it came."""
    values = {"method": run.method.name, "plan": planned(run), "provenance": provenance(run)}
    write_json(run.inputs.out_dir / START_FILE, values)


def write_provenance(run: Run, folder: Path) -> None:
    """Writes `provenance.json` into a folder whose other files are all there, with the sha256 of each of them."""
    told = provenance(run)
    resumed = {"changed_since_start": changed_since_start(run, told)} if run.inputs.resume_from else {}
    write_json(folder / PROVENANCE_FILE, {**told, **resumed, "files": sha256_of_files(folder)})


def tell_changes(run: Run) -> None:
    """Warns where a run goes on with another recipe, other code or on another machine than it began with."""
    if changed := changed_since_start(run, provenance(run)):
        run.inputs.report(
            f"Warning: the run goes on with another {', '.join(changed)} than it began with; {START_FILE} has what was."
        )


def changed_since_start(run: Run, told: dict[str, Any]) -> list[str]:
    """Gives what a resumed run is made of now and was not when it began; nothing is known of runs of older versions.

    Args:
        run: the run.
        told: what it is made of now.
    """
    path = run.inputs.out_dir / START_FILE
    before = read_json(path).get("provenance") if path.is_file() else None
    return [name for name in MADE_OF if isinstance(before, dict) and name in before and before[name] != told[name]]


def planned(run: Run) -> dict[str, Any]:
    """Gives what a run will do, unless its time or its patience ends first; tokens are real ones, without padding."""
    inputs, plan = run.inputs, run.plan
    lengths, targets = (each[inputs.train_rows] for each in (inputs.train.lengths, inputs.train.target_counts))
    return {
        "steps": plan.steps,
        "examples": plan.examples,
        "epochs": plan.epochs,
        "tokens": round(int(lengths.sum()) * plan.epochs),
        "target_tokens": round(int(targets.sum()) * plan.epochs),
        "validations": 1 + sum(plan.validates_after(step) or plan.saves_after(step) for step in range(plan.steps)),
        "flops": model_flops(inputs.model_config, inputs.method, lengths, int(targets.sum())) * plan.epochs,
        "ends_by": plan.ends_by,
        "rows": len(inputs.train_rows),
        "held_out_rows": len(inputs.test_rows),
        "parameters": inputs.parameters,
        "trainable_parameters": inputs.trainable_parameters,
    }


def provenance(run: Run) -> dict[str, Any]:
    """Gives what a result is made of: hashes of base, tokenizer, data and code, versions, machine, seeds, settings."""
    inputs, config = run.inputs, run.inputs.config
    return {
        "method": run.method.name,
        "base": str(inputs.checkpoint_dir),
        "tokenizer_hash": inputs.tokenizer.hash,
        "data": str(inputs.data_dir),
        "sha256": inputs.hashes,
        "recipe": recipe_code(inputs.recipe),
        "litft": own_code(),
        "seed": config.seed,
        "data_seed": inputs.train.meta.get("seed"),
        "versions": versions(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "system": system(),
        "numerics": _numerics(run),
        "config": config_to_dict(config),
    }


def versions() -> dict[str, str]:
    """Gives the versions of Python and of the packages that compute here."""
    found = {name: metadata.version(name) for name in PACKAGES}
    for name in ALSO:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found | {"python": platform.python_version()}


def system() -> dict[str, Any]:
    """Gives the machine of this process."""
    told = {"platform": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    gpus = {"gpus": torch.cuda.device_count(), "cuda": torch.version.cuda} if torch.cuda.is_available() else {}
    return told | gpus


def _numerics(run: Run) -> dict[str, Any]:
    """Gives what decides how sums are rounded, and whether they are rounded alike the next time."""
    return {
        "precision": run.inputs.config.precision,
        "quantize": run.inputs.config.quantize,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "attention": run.gpt.backend,
        "compiled": _is_compiled(run.gpt),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_products": torch.get_float32_matmul_precision(),
        "processes": run.fabric.world_size,
    }


def _is_compiled(model: GPT) -> bool:
    """Says whether a block's forward pass is one that torch.compile made."""
    return "forward" in vars(model.get_submodule("transformer.h.0"))
