"""The memory that a run will need, told before it starts: that of its largest step and of a validation.

They are the loop's own, run on shapes alone (`memory.py`). Loads no weights.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from litft.config.plan import TrainPlan
from litft.config.run import RunConfig
from litft.data.batches import build_batching, split_rows
from litft.methods.base import freeze
from litft.model.gpt import GPT
from litft.model.load import DTYPES, build_empty
from litft.model.quantize import QuantizedLinear, apply_quantize
from litft.train.counting import Batches
from litft.train.evaluate import validate
from litft.train.fabric import build_fabric
from litft.train.loop import VALIDATION_ROWS, build_run, train_step
from litft.train.loss import TokenLoss
from litft.train.memory import MemoryTrace, empty_weights, name_gradients
from litft.train.optim import build_optimizer
from litft.train.parts import Parts
from litft.train.state import Inputs, Run

MEMINFO = Path("/proc/meminfo")


def with_config(inputs: Inputs, config: RunConfig) -> Inputs:
    """Gives the same inputs under another size of micro-batches, precision or the like."""
    batching = build_batching(config.train, inputs.train, inputs.batching.max_seq_length)
    return dataclasses.replace(inputs, config=config, batching=batching)


def forecast_memory(inputs: Inputs, plan: TrainPlan, token_loss: TokenLoss, batches: Batches) -> dict[str, int]:
    """Gives the bytes of each part at the peak of the run: weights, gradients, optimizer, activations, logits, ...

    Args:
        inputs: of the run; its weights are not read.
        plan: of the run.
        token_loss: the recipe's.
        batches: the largest is tried, and the largest validation; a save writes one tensor after the other and takes no
            more.
    """
    trace = MemoryTrace(inputs.model_config.padded_vocab_size)
    run = shape_run(inputs, plan, trace)
    held_out = split_rows(inputs.test, inputs.test_rows.tolist(), inputs.batching.times(VALIDATION_ROWS))
    with trace:
        train_step(run, batches.longest[-1:], 0.0, token_loss)  # makes the optimizer's state
        train_step(run, batches.largest_step, 0.0, token_loss)
        validate(run.fabric, run.model, inputs.test, held_out[0], inputs.batching.times(VALIDATION_ROWS), token_loss)
    trace.name("optimizer", _state_tensors(run.optimizer))
    return trace.peak()


def shape_run(inputs: Inputs, plan: TrainPlan, trace: MemoryTrace) -> Run:
    """Assembles a run as the recipes do, of tensors that have no data; only under `trace` can it be used."""
    config = inputs.config
    fabric = build_fabric(config)
    model = build_empty(inputs.model_config).to(DTYPES[config.precision])
    if config.quantize != "none":
        apply_quantize(model, config.quantize)
        for layer in model.modules():
            if isinstance(layer, QuantizedLinear):
                with trace:  # one by one, as they are loaded
                    layer.quantize(torch.empty(layer.weight.shape, dtype=layer.weight.dtype, device=fabric.device))
    empty_weights(model, trace, fabric.device)
    with trace:
        inputs.method.apply(model)
        freeze(model, inputs.method)
        parts = Parts(model, fabric)
        optimizer = build_optimizer(parts.named_parameters(), config.optim)
    trace.name("weights", model.parameters())
    trace.name("quantisation", _scales(model))
    name_gradients(model, trace)
    model.train()
    return build_run(inputs, fabric, plan, parts, optimizer)


def alone(config: RunConfig) -> RunConfig:
    """Gives the same run in one process."""
    return dataclasses.replace(config, devices=1, num_nodes=1, strategy="auto", cpu_offload=False)


def _scales(model: GPT) -> Iterator[Tensor]:
    """Gives what quantised layers keep beside their weights."""
    for layer in model.modules():
        if isinstance(layer, QuantizedLinear):
            yield from layer.buffers(recurse=False)


def _state_tensors(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Gives the tensors that an optimizer keeps."""
    for values in optimizer.state.values():
        yield from (value for value in values.values() if isinstance(value, Tensor))


def free_memory(device: torch.device) -> int:
    """Gives the bytes that a run can have on a device: free ones of a GPU, available ones of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if MEMINFO.exists():  # Linux
        found = dict(line.split(":") for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        return int(found["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
