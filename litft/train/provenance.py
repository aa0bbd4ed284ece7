"""What a run is made of, and what it means to do: written before its first step, and beside its result."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

import torch

from litft.checkpoint.disk import write_json
from litft.train.flops import model_flops
from litft.train.state import Run

START_FILE = "start.json"
PACKAGES = ("litft", "torch", "lightning-fabric", "tokenizers", "sentencepiece", "safetensors")


def write_start(run: Run) -> None:
    """Writes `start.json`, so that the report of a run that was killed can say what it was and how far it came."""
    values = {"method": run.method.name, "plan": planned(run), "provenance": provenance(run)}
    write_json(run.inputs.out_dir / START_FILE, values)


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
    """Gives what a result is made of: hashes of base, tokenizer and data, versions, machine, seed."""
    inputs = run.inputs
    return {
        "base": str(inputs.checkpoint_dir),
        "tokenizer_hash": inputs.tokenizer.hash,
        "data": str(inputs.data_dir),
        "sha256": inputs.hashes,
        "seed": inputs.config.seed,
        "versions": {name: metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "system": _system(),
    }


def _system() -> dict[str, Any]:
    """Gives the machine of this process."""
    told = {"platform": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    gpus = {"gpus": torch.cuda.device_count(), "cuda": torch.version.cuda} if torch.cuda.is_available() else {}
    return told | gpus
