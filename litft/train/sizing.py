"""`train.micro_batch_size: auto`: as many rows at once as there is memory for."""

from __future__ import annotations

import bisect
import dataclasses

from litft.checkpoint.disk import plain_size
from litft.config.io import load_yaml
from litft.config.plan import build_plan
from litft.train.counting import count_batches
from litft.train.fabric import build_fabric
from litft.train.forecast import forecast_memory, with_config
from litft.train.loss import TokenLoss
from litft.train.room import free_memory
from litft.train.setup import RUN_FILE
from litft.train.state import Inputs

USED = 0.9  # share of the free memory that a forecast may fill: an allocator cannot use all of it
MOST_ON_CPU = 4  # rows; packed, they make matrices large enough for a few cores, and more would only take memory


def size_batches(inputs: Inputs, token_loss: TokenLoss, free: int | None = None) -> Inputs:
    """Gives the inputs with a number where `train.micro_batch_size` is `auto`: the largest that fits.

    It is chosen among the divisors of the global batch, by the forecast of the largest step and validation; 1 where not
    even that fits, with a warning. A resumed run keeps the size it began with.

    Args:
        inputs: of the run, checked.
        token_loss: the recipe's.
        free: bytes that there are; None asks the device.
    """
    config = inputs.config
    if config.train.micro_batch_size != "auto":
        return inputs
    if inputs.resume_from:
        return with_size(inputs, load_yaml(inputs.resume_from.parent / RUN_FILE)["train"]["micro_batch_size"])
    device = build_fabric(config).device
    free = free_memory(device) if free is None else free
    needed: dict[int, int] = {}

    def bytes_of(size: int) -> int:
        needed[size] = bytes_needed(with_size(inputs, size), token_loss)
        return needed[size]

    rows = config.train.global_batch_size
    most = rows if device.type == "cuda" else min(rows, MOST_ON_CPU)
    sizes = [size for size in range(1, most + 1) if config.train.global_batch_size % size == 0]
    fitting = bisect.bisect_right(sizes, USED * free, key=bytes_of)
    size = sizes[max(fitting - 1, 0)]
    told = f"train.micro_batch_size is {size}: it takes {plain_size(needed.get(size) or bytes_of(size))}"
    warning = "" if fitting else "Warning: "
    inputs.report(f"{warning}{told}, and {plain_size(free)} are free.")
    return with_size(inputs, size)


def bytes_needed(inputs: Inputs, token_loss: TokenLoss) -> int:
    """Gives the bytes that a run takes at its peak."""
    config = inputs.config
    plan = build_plan(len(inputs.train_rows), config.train, config.optim, config.eval)
    return sum(forecast_memory(inputs, plan, token_loss, count_batches(inputs, plan)).values())


def with_size(inputs: Inputs, size: int) -> Inputs:
    """Gives the inputs with micro-batches of so many rows."""
    train = dataclasses.replace(inputs.config.train, micro_batch_size=size)
    return with_config(inputs, dataclasses.replace(inputs.config, train=train))
