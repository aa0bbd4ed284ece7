"""What test_distributed.py starts twice, as torchrun would: two processes that train together, two nodes of one device.

python two_processes.py WORLD
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from test_planning import allocated_bytes
from tiny_run import CUTS_ALL, make_config, methods, open_run, variants, with_step_limit
from torch import Tensor

from litft.checkpoint.disk import write_json
from litft.checkpoint.held import release_folder
from litft.errors import LitftError
from litft.train import saving
from litft.train.counting import count_batches
from litft.train.finish import finish
from litft.train.loop import backward, fit, train_step
from litft.train.parallel import own_share
from litft.train.planning import plan_run
from litft.train.state import Run

WINDOWS = ([0, 1, 2, 3, 4, 5, 6], [7], [8, 9, 10, 11, 12, 13, 14, 15])  # unequal, one process idle, equal
TOGETHER = {"num_nodes": 2}


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The recipe's."""
    return F.cross_entropy(logits.float(), targets, reduction="none")


def open_tiny(world: Path, name: str, method: str, dropout: bool = False, **changes: Any) -> Run:
    """Opens a run in WORLD/NAME, without dropout unless asked: each process has its own, which no sum could match."""
    chosen = {**methods(), **variants()}[method]
    run = open_run(make_config(world, out_dir=world / name, train__max_steps=4, **changes), chosen)
    for module in run.gpt.modules():
        if isinstance(module, torch.nn.Dropout) and not dropout:
            module.p = 0.0
    return run


def gradients(world: Path, name: str, method: str, **changes: Any) -> None:
    """Writes the gradients of three windows, and how many numbers of the model this process holds."""
    run = open_tiny(world, name, method, **changes)
    run.model.train()
    found = {}
    for index, rows in enumerate(WINDOWS):
        share = own_share(run.fabric, run.inputs.train, rows, run.inputs.batching)
        for batch in share.micro_batches:
            backward(run, batch, share.target_tokens, token_loss)
        for batch in share.idle:
            backward(run, batch, math.inf, token_loss)
        run.parts.take_gradients()
        for key, part in run.parts.parts.items():
            if part.own.requires_grad:
                own = torch.zeros_like(part.own) if part.own.grad is None else part.own.grad
                found[f"{index}/{key}"] = part.whole(own).clone()
                part.own.grad = None
    held = sum(own.numel() for _, own in run.parts.named_parameters())
    found["held"] = torch.tensor([held, sum(part.parameter.numel() for part in run.parts.parts.values())])
    if run.fabric.is_global_zero:
        save_file(found, world / name / "gradients.safetensors")


def whole_run(world: Path, name: str, method: str, **changes: Any) -> None:
    """A run to its end; what an export would read are the weights that it writes."""
    run = open_tiny(world, name, method, **changes)
    finish(run, fit(run, token_loss))
    state = run.parts.whole_state(run.method)
    if run.fabric.is_global_zero:
        final = load_file(world / name / "final" / run.method.weights_file)
        assert state.keys() == final.keys() and all(torch.equal(state[key], final[key]) for key in state)
    else:
        assert not state


def cut_run(world: Path, name: str, method: str, **changes: Any) -> None:
    """A run that is killed after its third step and has a checkpoint of the second."""
    run = open_tiny(world, name, method, train__save_interval=2, **changes)
    fit(with_step_limit(run, 3), token_loss)
    release_folder(world / name)  # as the end of its process would


def resumed_run(world: Path, name: str, method: str, **changes: Any) -> None:
    """The run of `cut_run` to its end."""
    run = open_tiny(world, name, method, train__save_interval=2, resume="auto", **changes)
    assert run.inputs.resume_from == world / name / "step-00000002"
    finish(run, fit(run, token_loss))


def not_finite(world: Path, strategy: str) -> None:
    """A window in which the second process meets a loss that is not a number."""
    name = f"broken-{strategy}"
    run = open_tiny(world, name, "lora", **TOGETHER, strategy=strategy)
    before = {key: own.clone() for key, own in run.parts.state(run.method).items()}

    def broken_loss(logits: Tensor, targets: Tensor) -> Tensor:
        return token_loss(logits, targets) * (math.nan if run.fabric.global_rank == 1 else 1.0)

    note_error(run, name, lambda: train_step(run, WINDOWS[0], 1e-3, broken_loss))
    assert all(torch.equal(before[key], own) for key, own in run.parts.state(run.method).items())


def full_disk(world: Path) -> None:
    """A checkpoint that the first process cannot write."""
    run = open_tiny(world, "disk", "full", **TOGETHER, train__save_interval=1)
    if run.fabric.is_global_zero:
        (world / "disk" / ".step-00000001.partial").write_text("a file where the folder must be")
    note_error(run, "disk", lambda: fit(run, token_loss))


def failing_writer(world: Path) -> None:
    """A disk that is full only once the first process writes beside the steps."""
    run = open_tiny(world, "writer", "lora", **TOGETHER, strategy="fsdp", train__save_interval=1)

    def full(path: Path) -> str:
        raise OSError(28, "No space left on device", str(path))

    before, saving.sha256_file = saving.sha256_file, full
    note_error(run, "writer", lambda: fit(run, token_loss))
    saving.sha256_file = before


def not_finite_run(world: Path) -> None:
    """A run in which the second process meets a loss that is not a number, after a checkpoint."""
    run, calls = open_tiny(world, "stopped", "lora", **TOGETHER, strategy="ddp", train__save_interval=1), [0]

    def broken_loss(logits: Tensor, targets: Tensor) -> Tensor:
        is_broken = run.gpt.training and run.fabric.global_rank == 1 and (world / "stopped" / "step-00000001").exists()
        calls[0] += is_broken
        return token_loss(logits, targets) * (math.nan if calls[0] else 1.0)

    note_error(run, "stopped", lambda: fit(run, broken_loss))


def note_error(run: Run, name: str, work: Callable[[], object]) -> None:
    """Writes down what this process raises."""
    try:
        work()
    except (LitftError, OSError) as error:
        path = run.inputs.out_dir.parent / f"{name}-{run.fabric.global_rank}.txt"
        path.write_text(f"{type(error).__name__}: {error}")


def memory(world: Path, name: str, method: str, **changes: Any) -> None:
    """Writes the bytes of tensors that the first process takes for two steps, and what a plan says of it."""
    run = open_tiny(world, name, method, **changes)
    batches = count_batches(run.inputs, run.plan)

    def steps() -> None:
        for _ in range(2):
            train_step(run, batches.largest_step * 2, 1e-3, token_loss)

    if not run.fabric.is_global_zero:
        steps()
        return
    said = plan_run(dataclasses.replace(run.inputs, report=lambda message: None), run.plan, token_loss)
    held = sum(own.nbytes for _, own in run.parts.named_parameters())
    write_json(world / name / "memory.json", {"measured": held + allocated_bytes(steps), **said})


def main() -> None:
    """Runs all that the tests look at."""
    world, fsdp, ddp = Path(sys.argv[1]), {**TOGETHER, "strategy": "fsdp"}, {**TOGETHER, "strategy": "ddp"}
    for method in ("lora", "full", "adapter_v2"):
        gradients(world, f"gradients-{method}-fsdp", method, **fsdp)
    for method in ("lora", "full", "pissa_dora"):
        gradients(world, f"gradients-{method}-ddp", method, **ddp)
    gradients(world, "gradients-pissa_dora-fsdp", "pissa_dora", **fsdp)
    gradients(world, "gradients-full-hybrid", "full", **TOGETHER, strategy="hybrid")
    gradients(world, "gradients-full-offload", "full", **fsdp, cpu_offload=True)
    if CUTS_ALL:
        gradients(world / "experts", "gradients-full-fsdp", "full", **fsdp)
        for method in ("lora", "pissa_dora"):
            gradients(world, f"gradients-{method}-int8", method, **fsdp, quantize="bnb.int8")
    for method, settings in (("full", fsdp), ("lora", fsdp), ("lora", ddp)):
        name = f"whole-{method}-{settings['strategy']}"
        whole_run(world, name, method, **settings, train__save_interval=2)
    whole_run(world, "at-once-full-fsdp", "full", **fsdp, train__save_interval=2, train__save_async=False)
    resumed_run(world, "one-then-two", "full", **fsdp)
    cut_run(world, "two-then-one", "full", **fsdp)
    chance = {"dropout": True, "precision": "bf16-true"}
    for method, settings in (("full", ddp), ("lora", fsdp)):
        whole_run(world, f"straight-{method}", method, **settings, **chance, train__save_interval=2)
        cut_run(world, f"resumed-{method}", method, **settings, **chance)
        resumed_run(world, f"resumed-{method}", method, **settings, **chance)
    for method, strategy in (("full", "ddp"), ("full", "fsdp"), ("lora", "fsdp")):
        memory(world / "wide", f"memory-{method}-{strategy}", method, **TOGETHER, strategy=strategy)
    not_finite(world, "ddp")
    not_finite(world, "fsdp")
    not_finite_run(world)
    full_disk(world)
    failing_writer(world)


if __name__ == "__main__":
    main()
