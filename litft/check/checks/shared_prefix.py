"""What rows begin with alike may be computed once: losses and gradient stay."""

from __future__ import annotations

from litft.check.bench import Bench
from litft.check.checks.micro_batches import TOLERANCE, WHY
from litft.check.finding import CannotTellError, Check, within
from litft.data.batches import Batching, iter_micro_batches

BY_LENGTH = ("longrope", "dynamic")  # rotations that depend on how long a row is, which train.pack refuses


def run(bench: Bench) -> str:
    """Compares the rows one by one with rows that share their beginnings."""
    scaling = bench.inputs.model_config.rope_scaling
    if scaling and scaling.kind in BY_LENGTH:
        raise CannotTellError(f"the rotation is {scaling.kind}, with which train.pack shared_prefix is refused")
    batching = Batching(len(bench.rows), bench.longest, packed=True, shares=True)
    tokens = sum(sum(batch.shared) for batch in iter_micro_batches(bench.inputs.train, bench.rows, batching))
    if not tokens:
        raise CannotTellError("no two of these rows begin alike")
    shared = bench.gradient(batching)
    gaps = {"loss of a row": bench.apart.loss_gap(shared), "gradient": bench.apart.gap(shared)}
    return f"{tokens} tokens stood once for several rows; {within(gaps, TOLERANCE, WHY)}"


CHECK = Check("shared prefix", "beginnings that are computed once give what each row gives alone", run)
