"""The command as a user types it, in processes of its own: killed, asked to stop, and bereft of one of its two."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tiny_runs import World, differences, fresh, hurt, words

LONGEST_SECONDS = 120


def begin(command: list[str]) -> subprocess.Popen[str]:
    """Starts `litft` with these words."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "litft", *command]
    return subprocess.Popen(start, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen[str]) -> str:
    """Waits for its end, and gives what it said."""
    return process.communicate(timeout=LONGEST_SECONDS)[0]


def strike_command(world: World, number: int, chance: random.Random) -> list[str]:
    """Sends a signal to `litft finetune lora` in the midst of its steps, goes on, and says what was lost."""
    out_dir = fresh(world.folder / "struck")
    command = words(world.folder, "lora", out_dir)
    process = begin(command)
    _wait_for_step(out_dir, process)
    time.sleep(chance.uniform(0, 0.4 * world.seconds["lora"]))
    process.send_signal(number)
    said, faults = end(process), hurt(out_dir)
    wanted = {signal.SIGKILL: -9, signal.SIGINT: 130}.get(signal.Signals(number), 0)
    if process.returncode not in (wanted, 0):
        faults.append(f"it ended with {process.returncode}: {said[-500:]}")
    if not (out_dir / "summary.json").exists():
        end(begin(command))
    elif not (out_dir / "report.html").exists():
        end(begin(["report", str(out_dir)]))
    return faults + differences(world.straight("lora"), out_dir, had_to_save=number != signal.SIGKILL)


def lose_real_process(world: World, chance: random.Random) -> list[str]:
    """Kills the second process that `--devices 2` starts, and says what of the end was not as promised."""
    out_dir = fresh(world.folder / "struck")
    process = begin(words(world.folder, "lora", out_dir, devices=2, strategy="ddp"))
    _wait_for_step(out_dir, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    time.sleep(chance.uniform(0, 0.1 * world.seconds["lora"]))
    struck = time.monotonic()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    said, took = end(process), time.monotonic() - struck
    if (out_dir / "summary.json").exists():
        return []
    faults = hurt(out_dir)
    if process.returncode != 2 or "Process 1 of 2 was ended by SIGKILL" not in said:
        faults.append(f"it ended with {process.returncode}: {said[-500:]}")
    return faults + ([f"it took {took:.1f} s to end"] if took > 20 else [])


def _wait_for_step(out_dir: Path, process: subprocess.Popen[str]) -> None:
    """Waits until a run has taken its first step."""
    metrics = out_dir / "logs" / "metrics.csv"
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
        time.sleep(0.01)
