"""Rows that stand end to end have the losses and the gradient that each has alone."""

from __future__ import annotations

from litft.check.bench import Bench
from litft.check.checks.micro_batches import TOLERANCE, WHY
from litft.check.finding import Check, within
from litft.data.batches import Batching


def run(bench: Bench) -> str:
    """Compares the rows one by one with all of them in one row."""
    packed = bench.gradient(Batching(len(bench.rows), bench.longest, packed=True))
    gaps = {"loss of a row": bench.apart.loss_gap(packed), "gradient": bench.apart.gap(packed)}
    return within(gaps, TOLERANCE, WHY)


CHECK = Check("packed", "a row packed with others has the loss that it has alone", run)
