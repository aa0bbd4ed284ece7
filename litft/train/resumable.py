"""The optimizer's state and the generators of chance as named tensors, out of a run and back into it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning_fabric import Fabric
from torch import Tensor

from litft.train.parallel import gather
from litft.train.state import Run


def optimizer_state(run: Run) -> dict[str, Tensor]:
    """Flattens what this process holds of the optimizer's state to `name/key` tensors, by parameter name."""
    names = {parameter: name for name, parameter in run.parts.named_parameters()}
    state = run.optimizer.optimizer.state
    return {f"{names[p]}/{key}": value for p, values in state.items() for key, value in values.items()}


def owner(name: str) -> str:
    """Gives the parameter to which a `name/key` of the optimizer's state belongs."""
    return name.rpartition("/")[0]


def load_optimizer_state(run: Run, tensors: Mapping[str, Tensor]) -> None:
    """Puts `name/key` tensors back beside their parameters."""
    state = run.optimizer.optimizer.state
    for full, tensor in tensors.items():
        part, key = run.parts.parts[owner(full)], full.rpartition("/")[2]
        own = part.rows(tensor) if tensor.shape == part.parameter.shape else tensor
        # A copy: what is mapped goes with its file, which is removed in its turn.
        state[part.own][key] = own.to("cpu" if key == "step" else part.own.device, copy=True)


def rng_state(fabric: Fabric) -> dict[str, Tensor]:
    """Gives the state of torch's generators as bytes, of each process: `cpu` and `cuda` of the first, then `cpu.1`."""
    state = {"cpu": torch.get_rng_state()}
    if fabric.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(fabric.device)
    every = enumerate(gather(fabric, state))
    return {f"{name}.{rank}" if rank else name: value for rank, states in every for name, value in states.items()}


def load_rng_state(fabric: Fabric, states: Mapping[str, Tensor]) -> None:
    """Puts this process's generators back; one that was not there when they were saved keeps its own."""
    ending = f".{fabric.global_rank}" if fabric.global_rank else ""
    if f"cpu{ending}" in states:
        torch.set_rng_state(states[f"cpu{ending}"])
    if f"cuda{ending}" in states and fabric.device.type == "cuda":
        torch.cuda.set_rng_state(states[f"cuda{ending}"], fabric.device)
