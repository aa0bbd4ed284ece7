"""Two processes that compute a gradient together: `python -m litft.check JOB`.

Started by the check of processes, with the environment that torchrun makes for a node. One process imports all that is
needed and becomes two before anything is computed. The first one writes the gradient.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from litft.check.bench import Bench
from litft.config import run as runs
from litft.config.io import dump_yaml, load_yaml
from litft.config.parse import build_config, config_to_dict
from litft.config.run import NEEDS_WHOLE_WEIGHTS, FullRun, RunConfig
from litft.data.batches import Batching

JOB_FILE, GRADIENT_FILE = "job.yaml", "gradient.safetensors"
KINDS = ("FullRun", "LoRARun", "AdapterRun")


def write_job(bench: Bench) -> Path:
    """Writes what both processes are to do, and gives the file."""
    path = bench.scratch / JOB_FILE
    kind = next(name for name in KINDS if isinstance(bench.config, getattr(runs, name)))
    fields = {field.name for field in dataclasses.fields(getattr(runs, kind))}
    config = {name: value for name, value in config_to_dict(bench.config).items() if name in fields}
    values: dict[str, Any] = {"method": bench.method_name, "recipe": str(bench.recipe), "rows": bench.rows}
    path.write_text(dump_yaml({**values, "kind": kind, "config": config}), encoding="utf-8")
    return path


def work(path: Path) -> None:
    """Computes this process's share, adds it to the other's, and writes the sum."""
    job = load_yaml(path)
    config: RunConfig = build_config(getattr(runs, job["kind"]), job["config"], str(path))
    bench = Bench(job["method"], config, Path(job["recipe"]), path.parent, job["rows"])
    train = dataclasses.replace(bench.inputs.config.train, neftune_alpha=0.0)
    together: dict[str, Any] = {"num_nodes": 2, "strategy": strategy_of(config), "train": train}
    run = bench.assemble("two", dropout=False, **together)
    gradient = bench.gradient(Batching(len(bench.rows), bench.longest, packed=True), run)
    if run.fabric.is_global_zero:
        save_file(gradient.of, path.with_name(GRADIENT_FILE))


def strategy_of(config: RunConfig) -> str:
    """Gives the strategy that the run would have with several processes; on one machine nothing is copied by nodes."""
    if isinstance(config, FullRun) and config.optim.name in NEEDS_WHOLE_WEIGHTS:
        return "ddp"
    return "ddp" if config.strategy == "ddp" else "fsdp"


def work_as_two(path: Path) -> int:
    """Does the work as two processes, and gives the exit code of both."""
    second = os.fork()
    rank = "0" if second else "1"
    os.environ.update(RANK=rank, GROUP_RANK=rank)
    work(path)
    return os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) if second else 0
