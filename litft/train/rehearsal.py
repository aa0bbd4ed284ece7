"""The largest micro-batch of a run first: where memory does not do, that shows at the start and not in hours."""

from __future__ import annotations

from collections.abc import Callable

import torch

from litft.data.batches import MicroBatch, collate
from litft.errors import TrainingError
from litft.train.counting import count_batches
from litft.train.state import Run


def rehearse(run: Run, backward: Callable[[MicroBatch], object]) -> None:
    """Computes the largest micro-batch once, for nothing.

    Weights, optimizer and the generators of chance stay as they were. Where the optimizer steps in the backward pass
    nothing is computed.

    Args:
        run: of this process; all processes must call this together.
        backward: computes the gradient of a micro-batch.

    Raises:
        TrainingError: there is too little memory; naming the rows.
    """
    if run.in_backward is not None:
        return
    data, batching, device = run.inputs.train, run.inputs.batching, run.fabric.device
    batch = collate(data, count_batches(run.inputs, run.plan).longest, batching).to(device)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            backward(batch)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{batch.tokens:,} tokens at once, the rows {list(batch.rows)} of train.pt, are too many for the memory of "
            f"{device}; lower train.micro_batch_size ({batching.micro_batch_size}), or ask litft plan what would help."
        ) from error
    run.model.zero_grad(set_to_none=True)
