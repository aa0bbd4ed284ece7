"""The gradient of a window does not depend on how its rows are split into micro-batches."""

from __future__ import annotations

from litft.check.bench import Bench
from litft.check.finding import Check, NotSoError, within
from litft.data.batches import Batching

TOLERANCE = 1e-4
WHY = "of its norm, or of a loss: float32 sums in another order"


def run(bench: Bench) -> str:
    """Compares the gradient of rows one by one with those of two at once and of all."""
    sizes = sorted({2, len(bench.rows)})
    if not any(gradient.any() for gradient in bench.apart.of.values()):
        raise NotSoError("the gradient is zero: nothing would be learned from these rows")
    gaps = {size: bench.apart.gap(bench.gradient(Batching(size, bench.longest, packed=False))) for size in sizes}
    return within({f"gradient of {size} rows at once": gap for size, gap in gaps.items()}, TOLERANCE, WHY)


CHECK = Check("micro-batches", "the gradient is the same however a window is split", run)
