"""One of two processes that share a quantised model by `fully_shard`: `python sharded_quantized.py MODEL MEETING RANK`.

Gradients must be those of one process that holds the whole model, and each process must hold half of each weight.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from litft.config.run import LoRAConfig
from litft.methods.base import freeze, trainable_state
from litft.methods.lora import LoRA
from litft.model.gpt import GPT
from litft.model.load import load_model

IDS = torch.arange(3, 19).view(2, 8)  # a row for each process


def build(model_dir: Path, form: str) -> GPT:
    """Gives a model with adapters beside quantised weights, moved from their start."""
    model, method = load_model(model_dir, "32-true", torch.device("cpu"), form), LoRA(LoRAConfig(r=2, dropout=0.0))
    torch.manual_seed(0)
    method.apply(model)
    freeze(model, method)
    for tensor in trainable_state(model, method).values():
        tensor += 0.1 * torch.randn_like(tensor)
    return model


def compare(model_dir: Path, rank: int, form: str) -> None:
    """Does one backward pass whole and one shared, and compares them."""
    whole, shared = build(model_dir, form), build(model_dir, form)
    mesh = init_device_mesh("cpu", (2,))
    for block in shared.transformer["h"]:
        fully_shard(block, mesh=mesh)
    fully_shard(shared, mesh=mesh)
    whole(IDS).pow(2).sum().backward()
    shared(IDS[rank : rank + 1]).pow(2).sum().backward()
    name = "transformer.h.1.mlp.up.weight"
    held = shared.get_parameter(name)
    assert isinstance(held, DTensor) and not held.dtype.is_floating_point
    assert 2 * held.to_local().numel() == whole.get_parameter(name).numel()
    for name, parameter in whole.named_parameters():
        if parameter.grad is not None:
            found = shared.get_parameter(name).grad
            assert isinstance(found, DTensor)
            torch.testing.assert_close(2 * found.full_tensor(), parameter.grad, atol=1e-5, rtol=1e-5)  # FSDP averages


if __name__ == "__main__":
    model, meeting, number = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(number), world_size=2)
    for form in ("bnb.nf4-dq", "bnb.int8"):
        compare(Path(model), int(number), form)
    dist.destroy_process_group()
