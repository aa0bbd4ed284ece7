"""Where a run computes: the one place that builds a Fabric.

Dtypes are ours: weights are loaded in the precision asked for and adapters stay float32, so Fabric is told `32-true`
unless it must open autocast. (Its own bf16-true would cast adapters too.)
"""

from __future__ import annotations

from lightning_fabric import Fabric

from litft.config.run import RunConfig


def build_fabric(config: RunConfig) -> Fabric:
    """Gives a started Fabric on one device, seeded.

    Args:
        config: its precision and seed.
    """
    fabric = Fabric(
        accelerator="auto", devices=1, precision="bf16-mixed" if config.precision == "bf16-mixed" else "32-true"
    )
    fabric.launch()
    fabric.seed_everything(config.seed, verbose=False)
    return fabric
