"""Where a run computes: the one place that builds a Fabric.

Dtypes are ours: weights are loaded in the precision asked for and adapters stay float32, so Fabric is told `32-true`
unless it must open autocast. (Its own bf16-true would cast adapters too.)

Fabric starts the processes, or finds those that torchrun or SLURM started, and connects them. What they share stands in
parallel.py, how weights are cut into parts in parts.py.
"""

from __future__ import annotations

import atexit
import logging
import os
import subprocess
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import nn

from litft.config.run import RunConfig
from litft.errors import ConfigError, StoppedElsewhereError
from litft.train.watch import open_watch

# How long a process waits for another: longer than the first one writes a checkpoint, validates or exports alone.
TIMEOUT = timedelta(minutes=30)
LAST_SECONDS = 10.0  # for processes that Fabric started to end by themselves, once the first one ends


class Copies(DDPStrategy):
    """DDP without torch's wrapper: each process holds the whole model.

    Gradients are added over the processes once a window, by `Parts.sum_gradients`. The wrapper would do it while the
    last backward pass runs, but wants each parameter used in each pass, which experts and uneven windows do not do.
    """

    def setup_module(self, module: nn.Module) -> Any:
        """Gives the model as it is."""
        return module


def build_fabric(config: RunConfig) -> Fabric:
    """Gives a started Fabric on the devices of the run, seeded alike in each process.

    Args:
        config: its precision, seed, devices, nodes and strategy.
    """
    # oneDNN compiles a kernel for each shape of a bfloat16 product, 0.7 MB each, and packed rows have many shapes.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")  # its own 1,024
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would tell of each process that it connects
    fabric = Fabric(
        accelerator="auto",
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=_strategy(config),
        precision="bf16-mixed" if config.precision == "bf16-mixed" else "32-true",
    )
    try:
        fabric.launch()
        if config.processes > 1:
            _connect(fabric)
    except dist.DistError as error:  # the first one ended before all were connected
        raise StoppedElsewhereError(str(error)) from error
    fabric.seed_everything(config.seed, verbose=False)
    return fabric


def _connect(fabric: Fabric) -> None:
    """Lets processes tell each other words and counts, and watch each other."""
    strategy, started = cast(Any, fabric.strategy), getattr(fabric.strategy.launcher, "procs", [])
    # What goes apart from tensors: no GPU waits for it.
    strategy.words = dist.new_group(backend="gloo", timeout=TIMEOUT)
    children = list(started)
    started.clear()  # Fabric's own watch would end this process, too, before it can say why
    atexit.register(_end_started, children)
    strategy.watch = open_watch(fabric, children)
    if strategy.watch:
        atexit.register(strategy.watch.close)  # before the others are waited for


def _strategy(config: RunConfig) -> Any:
    """Gives Fabric's strategy for a run; `spread` cuts the weights, so that Fabric has nothing left to cut."""
    if config.processes == 1:
        return "auto"
    if config.strategy == "ddp":
        return Copies(timeout=TIMEOUT)
    # Both sizes: left alone, Fabric makes the processes of a node tensor parallel and cuts nothing.
    return ModelParallelStrategy(
        lambda module, mesh: module, data_parallel_size=config.processes, tensor_parallel_size=1, timeout=TIMEOUT
    )


def require_devices(config: RunConfig) -> None:
    """Refuses a number of processes that is not the one started, or more than there are GPUs.

    Raises:
        ConfigError: naming both numbers.
    """
    for name, found in (("torchrun", TorchElasticEnvironment), ("SLURM", SLURMEnvironment)):
        count = found().world_size() if found.detect() and (name == "torchrun" or config.processes > 1) else None
        if count is not None and count != config.processes:
            raise ConfigError(
                f"{name} started {count} processes, but devices x num_nodes is {config.devices} x {config.num_nodes}; "
                "make them equal."
            )
    there = torch.cuda.device_count()
    if torch.cuda.is_available() and config.devices > there:
        raise ConfigError(f"devices is {config.devices}, but this machine shows {there} GPUs; lower it.")


def _end_started(processes: list[subprocess.Popen[bytes]]) -> None:
    """Waits for the processes that this one started; those that hang in a call to it, which has failed, are killed."""
    for process in processes:
        try:
            process.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
