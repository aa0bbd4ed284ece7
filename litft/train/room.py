"""How much memory there is, and whether a copy of what a run trains has room beside the run. Knows no model."""

from __future__ import annotations

import os
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
SMALL_COPY = 2**26  # bytes that no run notices
COPY_OF_WEIGHTS = 0.25  # share of the weights' bytes: the most that a copy beside them, on a CPU, may add
COPY_OF_FREE = 0.5  # share of the CPU's free memory that a copy of what lies on GPUs may take


def free_memory(device: torch.device) -> int:
    """Gives the bytes that a run can have on a device: free ones of a GPU, available ones of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if MEMINFO.exists():  # Linux
        found = dict(line.split(":") for line in MEMINFO.read_text(encoding="utf-8").splitlines())
        return int(found["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def has_room_for_copy(n_bytes: int, weights_bytes: int, device: torch.device) -> bool:
    """Says whether a step checkpoint may be copied and written while the training goes on.

    On a CPU the copy stands beside what it is of, so a full finetune, whose copy would double its memory, writes at
    once. What lies on a GPU is copied into the CPU's memory, where it is the only one.

    Args:
        n_bytes: of the copy: what is trained, and the optimizer's state.
        weights_bytes: of all weights of the model.
        device: where the run computes.
    """
    if device.type == "cuda":
        return n_bytes <= COPY_OF_FREE * free_memory(torch.device("cpu"))
    return n_bytes <= max(SMALL_COPY, COPY_OF_WEIGHTS * weights_bytes)
