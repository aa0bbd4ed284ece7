"""Which of the processes of a run this one is, before they know each other: what is said to a person is said once, from
the first line on. Knows no torch.
"""

from __future__ import annotations

import os

# What says a process's number, by who started it: torchrun; Fabric, or a person with one process to a node; srun.
# Sources: the manuals of torchrun and srun; `LightningEnvironment` of lightning-fabric.
_NUMBERS = (("RANK",), ("NODE_RANK", "LOCAL_RANK"), ("SLURM_PROCID",))


def is_first(processes: int) -> bool:
    """Says whether this process speaks and writes for its run.

    Args:
        processes: of the run; one alone is the first, whatever started it.
    """
    if processes == 1:
        return True
    for names in _NUMBERS:
        found = [int(os.environ[name]) for name in names if os.environ.get(name, "").isdecimal()]
        if found:
            return not any(found)
    return True
