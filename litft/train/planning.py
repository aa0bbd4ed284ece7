"""`litft plan` and `--dry_run true`: what a run will be and need, told before it starts. Writes nothing.

Without `--measure true` no weight is loaded and no time is told, since a time that was not measured is a guess.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from litft.checkpoint.disk import plain_size
from litft.config.plan import TrainPlan
from litft.config.run import FullRun, RunConfig
from litft.data.batches import rows_of_window, split_rows
from litft.methods.base import Full, freeze
from litft.methods.merged import inner_method
from litft.terminal.tables import Table, plain_time
from litft.train.counting import Batches, count_batches
from litft.train.evaluate import validate
from litft.train.fabric import build_fabric
from litft.train.finish import peak_memory_bytes
from litft.train.flops import model_flops
from litft.train.forecast import alone, forecast_memory, with_config
from litft.train.loop import VALIDATION_ROWS, build_run, train_step
from litft.train.loss import TokenLoss
from litft.train.optim import build_optimizer
from litft.train.parts import BUCKET_BYTES, load_base, spread
from litft.train.room import free_memory
from litft.train.state import Inputs, Run


def plan_run(inputs: Inputs, plan: TrainPlan, token_loss: TokenLoss) -> dict[str, Any]:
    """Reports what a run will need, and gives the numbers.

    Args:
        inputs: of the run, checked.
        plan: of the run.
        token_loss: the recipe's.

    Returns:
        Counts, bytes, FLOPs; with `measure` seconds and measured bytes too.
    """
    config, inputs = inputs.config, dataclasses.replace(inputs, config=alone(inputs.config))
    device = build_fabric(inputs.config).device
    batches = count_batches(inputs, plan)
    memory = forecast_memory(inputs, plan, token_loss, batches)
    numbers = _counts(inputs, plan, batches)
    if plan.save_every < plan.steps:
        numbers["saves_beside_steps"] = "checkpoint copy" in memory
    numbers |= {"memory": memory, "memory_bytes": sum(memory.values()), "free_bytes": free_memory(device)}
    numbers["fits"] = numbers["memory_bytes"] <= numbers["free_bytes"]
    numbers |= bounds_of_processes(config, inputs, memory)
    if not numbers["fits"]:
        numbers["to_fit"] = changes_to_fit(inputs, plan, token_loss, numbers["free_bytes"])
    if inputs.config.measure:
        numbers |= measure(inputs, plan, token_loss, batches)
    inputs.report(_table(numbers, device.type))
    return numbers


def _counts(inputs: Inputs, plan: TrainPlan, batches: Batches) -> dict[str, Any]:
    """Gives steps, tokens and work of the whole run; an epoch that was counted stands for the others."""
    share = plan.examples / batches.examples
    lengths = inputs.train.lengths[inputs.train_rows]
    epoch_targets = int(inputs.train.target_counts[inputs.train_rows].sum())
    flops = model_flops(inputs.model_config, inputs.method, lengths, epoch_targets)
    return {
        "parameters": inputs.parameters,
        "trainable_parameters": inputs.trainable_parameters,
        "steps": plan.steps,
        "micro_batches": round(batches.micro_batches * share),
        "tokens": round(batches.tokens * share),
        "target_tokens": round(batches.targets * share),
        "padding_share": batches.padding / batches.positions,
        "packed_share": batches.positions / (batches.micro_batches * inputs.batching.tokens),
        "flops": flops * plan.epochs,
    }


def bounds_of_processes(config: RunConfig, inputs: Inputs, memory: dict[str, int]) -> dict[str, Any]:
    """Gives what each of several processes takes at least; nothing for a process alone.

    That is the memory of a process alone, less what the others hold of the weights that are cut. What a process gathers
    of the others' parts while it computes, two blocks or more, is on top and not forecast.

    Args:
        config: its processes and strategy.
        inputs: of the run.
        memory: of a process alone, by part, at its peak.
    """
    if config.processes == 1:
        return {}
    each = sum(memory.values()) - memory.get("checkpoint copy", 0)  # which the first process has, if any
    if config.strategy == "ddp":
        return {"processes": config.processes, "cut_into": 1, "at_least_bytes": each}
    cut_into = config.devices if config.strategy == "hybrid" else config.processes
    cut = memory.get("weights", 0) + memory.get("quantisation", 0)
    if isinstance(inner_method(inputs.method), Full):
        cut += memory.get("gradients", 0) + memory.get("optimizer", 0)
    else:
        cut -= 4 * inputs.trainable_parameters  # float32 beside the base; each process holds all of them
    return {"processes": config.processes, "cut_into": cut_into, "at_least_bytes": each - cut + cut // cut_into}


def changes_to_fit(inputs: Inputs, plan: TrainPlan, token_loss: TokenLoss, free: int) -> str:
    """Names the change of settings, or the changes together, with which a run would fit, and what it would take then.

    Args:
        inputs, plan, token_loss: as in `plan_run`.
        free: bytes that there are.
    """
    named: list[str] = []
    n_bytes = 0
    for name, config in _smaller(inputs.config):
        named.append(name)
        changed = with_config(inputs, config)
        n_bytes = sum(forecast_memory(changed, plan, token_loss, count_batches(changed, plan)).values())
        if n_bytes <= free:
            return f"it would fit with {' '.join(named)}: {plain_size(n_bytes)}"
    if not named:
        return "no setting makes it smaller; shorten the rows (--max_seq_length) or take a smaller model"
    return f"not even with {' '.join(named)}: {plain_size(n_bytes)}; shorten the rows or take a smaller model"


def _smaller(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    """Gives changes that save memory, each on top of those before: first those that change no result."""
    if config.train.micro_batch_rows > 1:
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, micro_batch_size=1))
        yield "--micro_batch_size 1", config
    if config.train.checkpoint != "block":
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, checkpoint="block"))
        yield "--train.checkpoint block", config
    if config.precision != "bf16-true":
        config = dataclasses.replace(config, precision="bf16-true")
        yield "--precision bf16-true", config
    if config.quantize == "none" and not isinstance(config, FullRun) and find_spec("bitsandbytes"):
        config = dataclasses.replace(config, quantize="bnb.nf4")
        yield "--quantize bnb.nf4", config


def measure(inputs: Inputs, plan: TrainPlan, token_loss: TokenLoss, batches: Batches) -> dict[str, Any]:
    """Loads the weights, takes the largest step and then the first one of the run, and validates on some rows.

    Args:
        inputs, plan, token_loss: as in `plan_run`.
        batches: of the run.

    Returns:
        `seconds` of the whole run by these times, `step_seconds`, and `measured_bytes`.
    """
    run = real_run(inputs, plan)
    train_step(run, batches.largest_step, 0.0, token_loss)
    seed = inputs.config.seed if inputs.config.train.shuffle else None
    rows = rows_of_window(inputs.train_rows, plan.window(0), seed)
    batching = inputs.batching.times(VALIDATION_ROWS)
    held_out = split_rows(inputs.test, inputs.test_rows.tolist(), batching)[0]
    started = time.perf_counter()
    train_step(run, rows, 0.0, token_loss)
    trained = time.perf_counter()
    validate(run.fabric, run.model, inputs.test, held_out, batching, token_loss)
    validated = time.perf_counter()
    train_share = batches.tokens * plan.examples / batches.examples / int(inputs.train.lengths[rows].sum())
    test_share = int(inputs.test.lengths[inputs.test_rows].sum()) / int(inputs.test.lengths[held_out].sum())
    validations = 1 + sum(plan.validates_after(step) or plan.saves_after(step) for step in range(plan.steps))
    seconds = (trained - started) * train_share + (validated - trained) * test_share * validations
    return {"seconds": seconds, "step_seconds": trained - started, "measured_bytes": peak_memory_bytes()}


def real_run(inputs: Inputs, plan: TrainPlan) -> Run:
    """Assembles a run as the recipes do, with its weights, in this process alone."""
    config = inputs.config
    fabric = build_fabric(config)
    model = load_base(inputs, fabric)
    inputs.method.apply(model)
    freeze(model, inputs.method)
    parts = spread(model, inputs, fabric)
    run = build_run(inputs, fabric, plan, parts, build_optimizer(parts.named_parameters(), config.optim))
    run.model.train()
    return run


def _table(numbers: dict[str, Any], device: str) -> Table:
    """Gives the numbers to be read."""
    parts = sorted(numbers["memory"].items(), key=lambda item: -item[1])
    fits = "it fits" if numbers["fits"] else f"it does not fit; {numbers['to_fit']}"
    rows = [
        ("tokens", f"{numbers['tokens']:,}, of them {numbers['target_tokens']:,} targets"),
        ("batches", f"{numbers['micro_batches']:,}; {numbers['padding_share']:.1%} of their positions are padding"),
        ("work", f"{numbers['flops']:.3g} FLOPs in the model"),
        ("memory", f"{plain_size(numbers['memory_bytes'])} of tensors at the peak"),
        ("", ", ".join(f"{name} {plain_size(size)}" for name, size in parts if size)),
        ("free", f"{plain_size(numbers['free_bytes'])}: {fits}"),
    ]
    if "processes" in numbers:
        rows.append(("each of", _of_processes(numbers)))
    if numbers.get("saves_beside_steps") is False:
        rows.append(("save", "the steps wait for each checkpoint: a copy of what is trained would take too much"))
    if "seconds" in numbers:
        rows.append(("time", f"{_hours(numbers['seconds'])} by a step measured here, {numbers['step_seconds']:.2f} s"))
        what = "on the GPU" if device == "cuda" else "by the process, its libraries included"
        rows.append(("measured", f"{plain_size(numbers['measured_bytes'])} taken {what}"))
    else:
        rows.append(("time", "--measure true loads the weights and times a step"))
    return Table("What it needs", rows)


def _of_processes(numbers: dict[str, Any]) -> str:
    """Says what is known of several processes, and what is not."""
    count, size = numbers["processes"], plain_size(numbers["at_least_bytes"])
    if numbers["cut_into"] == 1:
        return f"{count} processes: as much, as it holds a copy, and up to {plain_size(BUCKET_BYTES)} to send gradients"
    return (
        f"{count} processes: at least {size}, with the weights cut into {numbers['cut_into']} parts; what one gathers "
        "of the others' parts while it computes is not forecast. The lines above are of a process alone"
    )


def _hours(seconds: float) -> str:
    """Gives a time to be read."""
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else plain_time(seconds)
