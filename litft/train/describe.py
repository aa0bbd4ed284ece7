"""The plan of a run as a person reads it before the run starts."""

from __future__ import annotations

import math
from datetime import timedelta

import torch

from litft.config.plan import TrainPlan
from litft.config.run import RunConfig
from litft.terminal.tables import Table
from litft.train.state import Inputs

FEW_ROWS = 10
FEW_STEPS, ENOUGH_STEPS = 20, 60  # of an adapter that begins at nothing; seen on small data, no bound


def describe(inputs: Inputs, plan: TrainPlan) -> Table:
    """Gives the plan of a run as a small table, to be read before it starts."""
    config, optim = inputs.config, plan.optim
    tokens = int(inputs.train.lengths[inputs.train_rows].sum())
    share = inputs.trainable_parameters / inputs.parameters
    rows = [
        ("base", f"{inputs.checkpoint_dir}, {inputs.parameters:,} parameters{_quantized(config)}"),
        ("trained", f"{inputs.trainable_parameters:,} parameters ({share:.2%} of the base's), {config.precision}"),
        ("data", f"{len(inputs.train_rows):,} rows of {tokens:,} tokens; {len(inputs.test_rows):,} rows held out"),
        ("run", f"{plan.examples:,} examples in {_counted(plan.steps)} of up to {plan.global_batch_size}"),
        ("end", f"by {plan.ends_by}, after {plan.epochs:.2f} epochs{_or_time(config)}"),
        ("rate", f"{optim.learning_rate:g}, {optim.schedule} after {plan.warmup_steps} steps of warmup"),
        ("validate", f"every {_steps(plan.eval_every)} and before each checkpoint, every {_steps(plan.save_every)}"),
        ("out", f"{inputs.out_dir}{_taken(inputs)}"),
    ]
    if plan.export_every is not None:
        never = f" (never: the run has {plan.steps} steps)" if plan.export_every > plan.steps else ""
        every = _steps(plan.export_every)
        rows.append(("export", f"to hf-step-... every {every}{never}, {inputs.out_dir} keeps them all"))
    if plan.ends_by == "epochs" and (wanted := config.train.max_steps):
        given = f"--epochs {config.train.epochs} gives {plan.steps:,}"
        rows.append(("note", f"--max_steps {wanted:,} is not reached, as {given}; raise --epochs for more"))
    if config.precision != "32-true" and not torch.cuda.is_available():
        rows.append(("note", "bfloat16 is slow on most CPUs; --precision 32-true is often faster there"))
    if plan.steps < FEW_STEPS and plan.ends_by == "epochs":
        epochs = math.ceil(plan.epochs * ENOUGH_STEPS / plan.steps)
        rows.append(("note", f"{_counted(plan.steps)} may teach little; --epochs {epochs} makes about {ENOUGH_STEPS}"))
    if len(inputs.test_rows) < FEW_ROWS:
        rows.append(("note", f"rows held out: only {len(inputs.test_rows)}, whose loss says little"))
    return Table("The run", rows)


def _taken(inputs: Inputs) -> str:
    """Says in a plan what the run itself would refuse."""
    config = inputs.config
    if not config.dry_run or config.overwrite or config.resume or not inputs.out_dir.exists():
        return ""
    return "; a run is there already, so --resume auto, --overwrite true or another --out_dir is needed"


def _steps(count: int) -> str:
    """Writes a number of steps behind "every"."""
    return "step" if count == 1 else f"{count:,} steps"


def _counted(steps: int) -> str:
    """Writes a number of steps."""
    return "1 step" if steps == 1 else f"{steps:,} steps"


def _or_time(config: RunConfig) -> str:
    """Says when a run ends at the latest."""
    limit = config.train.time_limit(config.processes)
    return "" if limit is None else f", or by {limit[0]}, {timedelta(seconds=round(limit[1]))} from now"


def _quantized(config: RunConfig) -> str:
    """Says how the base is kept, where that is not in its precision."""
    return "" if config.quantize == "none" else f", its blocks in {config.quantize}"
