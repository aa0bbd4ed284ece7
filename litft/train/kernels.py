"""How the blocks of a run are computed on its device: which kernel attends to documents, and whether torch compiles.

What could be wrong on a machine that nobody has tried is compared first, on a few small documents; where it differs
from plain torch, or does not run, the run goes on without it and says so. Knows no rows and no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from litft.config.run import RunConfig
from litft.model.documents import Documents
from litft.model.gpt import GPT, Block, BlockForward, Compiler, compiled_forward
from litft.model.kernels import TOLERANCE, TRIAL_LENGTHS, choose_attention
from litft.train.parallel import is_cut

Report = Callable[[str], None]


def choose_kernels(model: GPT, config: RunConfig, fabric: Fabric, report: Report) -> None:
    """Sets how the model attends to documents and whether its blocks are compiled, as the config says.

    Args:
        model: with the method applied and frozen what is not trained; its weights on the device, unless they are to be
            cut.
        config: train.attention, train.compile and the precision.
        fabric: of the run.
        report: told what is not used, and why.
    """
    device = fabric.device
    dtype = torch.float32 if config.precision == "32-true" else torch.bfloat16
    model.attend_by(choose_attention(model.config, config.train.attention, device, dtype, report))
    by_itself = config.train.compile == "auto" and device.type == "cuda" and not is_cut(fabric)
    if config.quantize != "none":  # each product of such a layer would cut what is compiled in two
        if config.train.compile == "block":
            report(f"The blocks are not compiled: they are quantised ({config.quantize}).")
    elif is_cut(fabric) and config.train.compile == "block":  # nothing is there yet to try it with
        report("The blocks are not compiled: their weights are cut over several devices.")
    elif config.train.compile == "block" or by_itself:
        with fabric.autocast():
            fault = compile_fault(model, device)
        if fault is None:
            model.compile_blocks()
        else:
            report(f"The blocks are not compiled: {fault}; --train.compile none leaves this trial out.")


def compile_fault(model: GPT, device: torch.device, backend: Compiler = "inductor") -> str | None:
    """Compares the last block, compiled, with itself, on a few small documents, forward and gradients.

    Torch too can be wrong: 2.11 traces autograd functions with a backward of their own to wrong gradients.

    Args:
        model: its weights on the device.
        device: of the run.
        backend: of torch.compile.

    Returns:
        What is wrong; None where nothing is.
    """
    block = cast(Block, cast(nn.ModuleList, model.transformer["h"])[-1])
    was_training = model.training
    model.train()
    dropouts = {module: module.p for module in block.modules() if isinstance(module, nn.Dropout)}
    for module in dropouts:  # which would draw other numbers when it is compiled
        module.p = 0.0
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            found = _trial(model, block, compiled_forward(block, backend), device)
            right = _trial(model, block, block.forward, device)
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError, ImportError, OSError) as error:
        return f"torch.compile fails here ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"
    finally:
        model.train(was_training)
        for module, chance in dropouts.items():
            module.p = chance
    for value, other in zip(found, right, strict=True):
        share = float((value.float() - other.float()).norm() / other.float().norm().clamp(min=1e-12))
        if not share <= TOLERANCE[other.dtype if other.dtype in TOLERANCE else torch.float32]:
            return f"on a trial its result is off by {share:.2g} of its size"
    return None


def _trial(model: GPT, block: Block, forward: BlockForward, device: torch.device) -> Sequence[Tensor]:
    """Gives what a block makes of a few documents, and the gradients of its input and of what is trained in it."""
    documents = Documents([(length, -1) for length in TRIAL_LENGTHS], device)
    dtype = next(parameter.dtype for parameter in model.transformer["wte"].parameters())
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(1, sum(TRIAL_LENGTHS), model.config.n_embd, generator=generator)
    x = drawn.to(device, dtype).requires_grad_()
    with torch.enable_grad():
        context = model.context(model.windows[-1], documents.positions, dtype, None, documents)
        y = forward(x, context)
        trained = [parameter for parameter in block.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(y, [x, *trained], torch.ones_like(y), allow_unused=True)
    return [y.detach(), *(gradient for gradient in gradients if gradient is not None)]
