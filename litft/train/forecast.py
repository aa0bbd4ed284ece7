"""The memory that a run will need, told before it starts: that of its largest step and of a validation.

They are the loop's own, run on shapes alone (`memory.py`). Loads no weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

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
from litft.train.resumable import optimizer_state
from litft.train.room import has_room_for_copy
from litft.train.state import Inputs, Run

BLOCKS_ALIKE = 4  # that a forecast keeps: two at the ends, one that stands for many, and one beside it


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
        batches: the largest is tried, and the largest validation.

    Returns:
        Among the parts `checkpoint copy` where checkpoints are written beside the steps, 0 where that copy is not on
        the run's device; where the steps wait, a save writes one tensor after the other and takes no more.
    """
    trace = MemoryTrace(inputs.model_config.padded_vocab_size)
    short, repeated, times = shorten(inputs)
    run = shape_run(short, plan, trace)
    mark_blocks(run, trace)
    held_out = split_rows(inputs.test, inputs.test_rows.tolist(), inputs.batching.times(VALIDATION_ROWS))
    with trace:
        make_optimizer_state(run.optimizer.optimizer)
        train_step(run, batches.largest_step, 0.0, token_loss)
        validate(run.fabric, run.model, inputs.test, held_out[0], inputs.batching.times(VALIDATION_ROWS), token_loss)
    trace.name("optimizer", _state_tensors(run.optimizer))
    trace.repeat(repeated, times, tensors_of(run, repeated))
    return trace.peak() | checkpoint_copy(run, repeated, times)


def make_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Takes the first step of each parameter, of a gradient of zero; one by one, as a run may never hold all."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            parameter.grad = None


def shorten(inputs: Inputs) -> tuple[Inputs, int, int]:
    """Gives a run of fewer blocks, of which one stands for many: a model of 32 has seldom more than two kinds.

    Returns:
        The inputs; which block stands for others; for how many, itself included, 1 where the model stays whole.
    """
    config = inputs.model_config
    model = build_empty(config)
    inputs.method.apply(model)
    freeze(model, inputs.method)
    kinds = [
        (config.window_of(layer), [(name, p.shape, p.requires_grad) for name, p in block.named_parameters()])
        for layer, block in enumerate(_blocks(model))
    ]
    first = next(layer for layer in range(len(kinds)) if all(kind == kinds[-1] for kind in kinds[layer:]))
    kept, is_trained = first + BLOCKS_ALIKE, any(trained for *_, trained in kinds[-1][1])
    if kept >= config.n_layer or not is_trained:
        return inputs, 0, 1
    short = dataclasses.replace(inputs, model_config=dataclasses.replace(config, n_layer=kept))
    return short, kept - 2, config.n_layer - kept + 1


def mark_blocks(run: Run, trace: MemoryTrace) -> None:
    """Has the trace told where the work of each block begins, forward and backward."""
    blocks = _blocks(run.gpt)

    def entering(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
            trace.enter(layer)
            if args[0].requires_grad:  # once its gradient is whole, that of this block is behind
                below = layer - 1 if layer else None
                _once_whole(args[0], lambda: trace.enter(below))

        return enter

    def leave(_: nn.Module, args: tuple[Any, ...]) -> None:
        trace.enter(None)
        if args[0].requires_grad:
            _once_whole(args[0], lambda: trace.enter(len(blocks) - 1))

    for layer, block in enumerate(blocks):
        block.register_forward_pre_hook(entering(layer))
    # Not when the last block ends: what went into it is let go a moment later, as that of each block is in its work.
    run.gpt.get_submodule("transformer.ln_f").register_forward_pre_hook(leave)
    if run.in_backward is None:
        run.optimizer.optimizer.register_step_pre_hook(lambda *_: trace.enter(None))


def _once_whole(tensor: Tensor, work: Callable[[], None]) -> None:
    """Does something once the gradient of this tensor is there."""
    tensor.register_hook(lambda gradient: work())  # type: ignore[no-untyped-call]


def tensors_of(run: Run, layer: int) -> list[Tensor]:
    """Gives what a block holds, and what the optimizer keeps of it."""
    block, state = _blocks(run.gpt)[layer], run.optimizer.optimizer.state
    own = [part.own for name, part in run.parts.parts.items() if name.startswith(f"transformer.h.{layer}.")]
    kept = [value for part in own for value in state.get(part, {}).values() if isinstance(value, Tensor)]
    return [*block.parameters(), *block.buffers(), *kept]


def _blocks(model: GPT) -> list[nn.Module]:
    """Gives the blocks, the lowest first."""
    return list(model.get_submodule("transformer.h").children())


def checkpoint_copy(run: Run, repeated: int, times: int) -> dict[str, int]:
    """Gives what the copy that a step checkpoint is written from takes on the run's device, if there is one.

    Args:
        run: which has taken a step, so that the optimizer's state is there.
        repeated, times: the block that stands for so many.
    """
    train, device = run.inputs.config.train, run.fabric.device

    def size(tensors: Mapping[str, Tensor]) -> int:
        like = f"transformer.h.{repeated}."
        return sum(tensor.nbytes * (times if name.startswith(like) else 1) for name, tensor in tensors.items())

    n_bytes = size(run.parts.state(run.method)) + size(optimizer_state(run))
    weights = size(dict(run.parts.named_parameters()))
    if run.plan.save_every >= run.plan.steps or not train.save_async or not has_room_for_copy(n_bytes, weights, device):
        return {}
    return {"checkpoint copy": n_bytes if device.type == "cpu" else 0}


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
