"""Finetune every weight: `python finetune/full.py --checkpoint_dir DIR --data_dir DIR`.

`litft finetune full` runs the same file. The run, top to bottom; the loss is at the end.
To try an idea, copy this file and change it.
"""

from __future__ import annotations

if __name__ == "__main__":  # help and mistakes come before the heavy imports below
    from litft.cli import run_recipe

    run_recipe("full", __file__)

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from litft.config.plan import build_plan
from litft.config.run import FullRun
from litft.methods.base import Full, freeze
from litft.model.load import build_random, load_model
from litft.train.fabric import build_fabric
from litft.train.finish import finish
from litft.train.loop import build_run, fit
from litft.train.optim import build_optimizer
from litft.train.setup import describe, open_inputs, start_out_dir
from litft.train.state import Report


def main(config: FullRun, report: Report) -> dict[str, Any]:
    """Runs it.

    Args:
        config: what `--help` lists.
        report: told the plan, the validations and where the result lies.

    Returns:
        The numbers of `summary.json`.
    """
    from_random = config.init == "random"
    inputs = open_inputs(config, Full(), report, needs_weights=not from_random)
    method = inputs.method
    plan = build_plan(len(inputs.train_rows), config.train, config.optim, config.eval)
    report(describe(inputs, plan))

    start_out_dir(inputs)
    fabric = build_fabric(config)
    if from_random:
        model = build_random(inputs.model_config, config.precision, fabric.device, config.seed)
    else:
        model = load_model(inputs.checkpoint_dir, config.precision, fabric.device)
    method.apply(model)
    freeze(model, method)
    optimizer = build_optimizer(model.named_parameters(), config.optim)

    run = build_run(inputs, fabric, plan, method, model, optimizer)
    return finish(run, fit(run, token_loss))


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each target token, (N, V) and (N,) -> (N,), in nats; the loop divides their sum by their count."""
    return F.cross_entropy(logits.float(), targets, reduction="none")
