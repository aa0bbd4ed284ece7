"""A run that broke off and went on ends with the weights of the run that did not."""

from __future__ import annotations

import torch

from litft.check.bench import Bench
from litft.check.finding import Check, NotSoError, within
from litft.check.small import SAVED_STEP, STEPS
from litft.train.loop import fit

ON_GPU = 1e-4


def run(bench: Bench) -> str:
    """Goes on from the step checkpoint of a run that ended, as another process would, and compares the weights."""
    whole, final = bench.finished
    again = bench.assemble("resumed", resume_from=final.parent / f"step-{SAVED_STEP:08d}")
    fit(again, bench.token_loss())
    first, second = (each.parts.final_state(each.method) for each in (whole, again))
    differing = [name for name, mine in first.items() if not torch.equal(mine, second[name])]
    text = f"{SAVED_STEP} steps, a checkpoint and {STEPS - SAVED_STEP} steps against {STEPS} steps"
    if not differing:
        return f"{text}: {len(first)} tensors equal bit for bit"
    gap = max(float((second[name] - first[name]).norm() / first[name].norm().clamp(min=1e-30)) for name in differing)
    if whole.fabric.device.type == "cpu":
        raise NotSoError(f"{text}: {len(differing)} of {len(first)} tensors differ, by up to {gap:.1e} of their norm")
    return within({f"{text}, a tensor": gap}, ON_GPU, "of its norm: kernels of a GPU may add in another order")


CHECK = Check("resumed", "a run that breaks off and goes on ends as one that did not", run)
