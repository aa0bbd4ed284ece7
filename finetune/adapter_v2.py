"""Finetune with LLaMA-Adapter v2: `python finetune/adapter_v2.py --checkpoint_dir DIR --data_dir DIR`.

`litft finetune adapter_v2` runs the same file. The run, top to bottom; the loss is at the end.
To try an idea, copy this file and change it.
"""

from __future__ import annotations

if __name__ == "__main__":  # help and mistakes come before the heavy imports below
    from litft.cli import run_recipe

    run_recipe("adapter_v2", __file__)

from typing import Any

from torch import Tensor

from litft.config.plan import build_plan
from litft.config.run import AdapterRun
from litft.methods.adapter import AdapterV2
from litft.methods.base import freeze
from litft.train.describe import describe
from litft.train.fabric import build_fabric
from litft.train.finish import finish
from litft.train.loop import build_run, fit
from litft.train.loss import cross_entropy
from litft.train.optim import build_optimizer
from litft.train.parts import load_base, spread
from litft.train.planning import plan_run
from litft.train.setup import open_inputs, start_out_dir
from litft.train.sizing import size_batches
from litft.train.state import Report


def main(config: AdapterRun, report: Report) -> dict[str, Any]:
    """Runs it.

    Args:
        config: what `--help` lists.
        report: told the plan, the validations and where the result lies.

    Returns:
        The numbers of `summary.json`; of a dry run those of the plan.
    """
    inputs = size_batches(open_inputs(config, AdapterV2(config.adapter), report), token_loss)
    method = inputs.method
    plan = build_plan(len(inputs.train_rows), inputs.config.train, config.optim, config.eval)
    report(describe(inputs, plan))
    if config.dry_run:
        return plan_run(inputs, plan, token_loss)

    start_out_dir(inputs)
    fabric = build_fabric(config)
    model = load_base(inputs, fabric)
    method.apply(model)
    freeze(model, method)
    parts = spread(model, inputs, fabric)  # over the devices, if there are several
    optimizer = build_optimizer(parts.named_parameters(), config.optim)

    run = build_run(inputs, fabric, plan, parts, optimizer)
    return finish(run, fit(run, token_loss))


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each target token, (N, V) and (N,) -> (N,), in nats; the loop divides their sum by their count."""
    return cross_entropy(logits, targets)
