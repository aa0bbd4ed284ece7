"""Two processes that share a window have the gradient of one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import load_file

from litft.check.bench import Bench, Gradient
from litft.check.checks.micro_batches import WHY
from litft.check.finding import CannotTellError, Check, NotSoError, within
from litft.check.worker import GRADIENT_FILE, write_job

TOLERANCE = 1e-4
LONGEST_SECONDS = 600.0


def run(bench: Bench) -> str:
    """Starts two processes on the CPU, as torchrun would two nodes, and compares their gradient with that of one."""
    if not hasattr(os, "fork") or not dist.is_available() or not dist.is_gloo_available():
        raise CannotTellError("processes cannot be started here, or torch has no gloo, by which they talk on a CPU")
    if bench.config.optim.in_backward:
        raise CannotTellError("optim.in_backward steps before processes could add up their gradients, and is refused")
    path = write_job(bench)
    said = _run_two(path)
    found = path.with_name(GRADIENT_FILE)
    if not found.is_file():
        raise NotSoError(f"the two processes broke off: {said}")
    gap = bench.apart.gap(Gradient(load_file(found), {}))
    return within({"gradient, over gloo": gap}, TOLERANCE, WHY)


def _run_two(job: Path) -> str:
    """Runs both to their end; gives the last line that they said."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = str(listening.getsockname()[1])
    node = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "litft-check"}
    quiet = {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    shared = {**os.environ, **node, **quiet, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "litft.check", str(job)]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=shared, start_new_session=True, **pipes) as started:
        try:
            said = started.communicate(timeout=LONGEST_SECONDS)[1]
        except subprocess.TimeoutExpired:
            return f"they did not end in {LONGEST_SECONDS:.0f} s"
        finally:
            _end_all(started.pid)
    return str(said.decode(errors="replace").strip().rpartition("\n")[2])


def _end_all(group: int) -> None:
    """Kills what is left of the two, as after Ctrl-C; nothing where both have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


CHECK = Check("processes", "two processes that share a window have the gradient of one", run)
