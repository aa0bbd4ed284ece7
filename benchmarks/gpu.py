"""What litft does on one GPU, part by part: kernels, LoRA, QLoRA, full finetuning, generation, weights cut over GPUs.

Models have real shapes and random weights, rows have real lengths and random tokens, so that nothing need be fetched.
Every run is the real recipe in a process of its own; one that fails, for lack of memory say, is written down and the
next one begins. A part ends by itself after --seconds, the most telling runs first. With --tiny all of it runs on a CPU
in a minute or two, to see that it would run. Prints JSON; utilisation is model FLOPs against a bfloat16 matrix product
measured in the same process.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ours.shapes import ON_GPU, llama
from prepare import machine

import litft.demo

OURS = Path(__file__).parent / "ours"
DEMO_TOKENIZER = Path(litft.demo.__file__).parent / "model"
LAST_SECONDS = 25  # with less left no further run is begun

# Tokens of prompts and of answers at 0, 10, ... 100% of the rows, Llama 2's tokenizer and Alpaca's frame; drawn apart.
# Source: 3,000 rows of tatsu-lab/alpaca (52k) and the first exchanges of GAIR/lima's train split.
LENGTHS = {
    "alpaca": ((39, 44, 46, 48, 50, 53, 61, 70, 75, 85, 345), (3, 10, 15, 21, 32, 51, 70, 89, 109, 142, 647)),
    "lima": (
        (39, 47, 50, 55, 62, 76, 98, 128, 169, 210, 1086),
        (21, 170, 282, 324, 359, 400, 453, 503, 594, 725, 2068),
    ),
}
ROWS, TINY_ROWS, LONGEST = 1024, 16, 2048

COMMON = {
    "precision": "bf16-true",
    "train.max_seq_length": 2048,
    "train.global_batch_size": 64,
    "train.micro_batch_size": 2,
    "train.epochs": 100,
    "train.save_interval": 100000,
    "eval.interval": 100000,
    "eval.prompts": 0,
    "optim.lr_warmup_steps": 2,
}
TINY = {"train.max_seq_length": 64, "train.global_batch_size": 4, "train.max_steps": 3}
LORA = {"lora.r": 8, "lora.alpha": 16, "lora.dropout": 0.05, "lora.targets": "q,v"}
PLAIN = {"train.compile": "none", "train.attention": "grouped"}
BLOCKS = {"train.checkpoint": "block"}


@dataclass(frozen=True)
class Job:
    """One run of a recipe."""

    model: str
    rows: str = "alpaca"
    method: str = "lora"
    flags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As it stands in the result."""
        flags = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.flags.items())
        return f"{self.method} {self.model} {self.rows} {flags}".strip()


SMALL, LARGE = "llama2-7b", "llama3.1-8b"
NF4 = {**BLOCKS, "quantize": "bnb.nf4", "optim.name": "adamw"}
JOBS: dict[str, tuple[Job, ...]] = {
    "lora": (
        Job(SMALL),
        Job(SMALL, flags=BLOCKS),
        Job(LARGE),
        Job(SMALL, flags={"train.compile": "none"}),
        Job(SMALL, flags=PLAIN),
        Job(SMALL, rows="lima"),
        Job(SMALL, flags={"train.attention": "flex"}),
        Job(LARGE, rows="lima"),
        Job(LARGE, flags=PLAIN),
        Job(SMALL, flags={"train.pack": "padded"}),
        Job(SMALL, flags={"train.checkpoint": "mlp"}),
    ),
    "qlora": (
        Job(SMALL, flags=NF4),
        Job(LARGE, flags=NF4),
        Job(SMALL, flags={**NF4, "quantize": "bnb.int8"}),
        Job(SMALL, rows="lima", flags=NF4),
        Job(SMALL, flags={**NF4, "quantize": "bnb.nf4-dq", "train.micro_batch_size": 1}),
    ),
    "full": (
        Job(LARGE, method="full", flags={**BLOCKS, "optim.name": "adamw8bit"}),
        Job(LARGE, method="full", flags={**BLOCKS, "optim.name": "adafactor", "optim.in_backward": "true"}),
        Job(SMALL, method="full", flags={**BLOCKS, "optim.name": "adafactor"}),
        Job(SMALL, method="full", rows="lima", flags={**BLOCKS, "optim.name": "adamw8bit"}),
        Job(SMALL, method="full", flags={**PLAIN, **BLOCKS, "optim.name": "adafactor"}),
    ),
    "fsdp": tuple(
        Job(SMALL, method=method, flags={**more, "devices": 2, "strategy": strategy})
        for method, strategy, more in (("lora", "fsdp", {}), ("lora", "ddp", {}), ("full", "fsdp", BLOCKS))
    ),
}
INSIDE = ("kernels", "generate")  # parts that are one process of their own, ours/device.py


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="all", choices=("all", *INSIDE, *JOBS), help="which; all in turn by default")
    parser.add_argument("--ways", default="", help="only the runs in whose name this regular expression is found")
    parser.add_argument("--seconds", type=float, default=520, help="of each part, about; then no run is begun")
    parser.add_argument("--steps", type=int, default=4, help="that are measured of each run, after two that are not")
    parser.add_argument("--alpaca", type=Path, help="a train.pt of `litft prepare`: its lengths for those above")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, on whatever device there is")
    parser.add_argument("--work_dir", type=Path, help="for some MB of rows; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="a file for the result, written after each run; it is printed anyway")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(given, given.work_dir or Path(temporary))
    print(json.dumps(result, indent=2))


def measure(given: argparse.Namespace, work_dir: Path) -> dict[str, Any]:
    """Goes through the parts and gives the result."""
    result: dict[str, Any] = {"machine": machine(), "tiny": given.tiny}
    for part in (*INSIDE, *JOBS) if given.part == "all" else (given.part,):
        ends, runs = time.monotonic() + given.seconds, result.setdefault(part, {})
        if part in INSIDE:
            command = [sys.executable, str(OURS / "device.py"), part, *(["--tiny"] if given.tiny else [])]
            runs.update(called([*command, "--seconds", f"{given.seconds - LAST_SECONDS:.0f}"], ends))
        for job in JOBS.get(part, ()):
            if re.search(given.ways, job.name):
                runs[job.name] = run(job, given, work_dir, ends)
                written(result, given.out)
        written(result, given.out)
    return result


def written(result: Mapping[str, Any], path: Path | None) -> None:
    """Writes what is known so far: a later run may be the last."""
    if path:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def run(job: Job, given: argparse.Namespace, work_dir: Path, ends: float) -> dict[str, Any]:
    """Runs some steps of one recipe."""
    if ends - time.monotonic() < LAST_SECONDS:
        return {"skipped": "no time left"}
    model_dir, data_dir = make_model(job, given, work_dir), make_rows(job, given, work_dir)
    out_dir = work_dir / "run"
    shutil.rmtree(out_dir, ignore_errors=True)
    flags = {**COMMON, **(LORA if job.method == "lora" else {}), **job.flags, **(TINY if given.tiny else {})}
    flags |= {"checkpoint_dir": model_dir, "data_dir": data_dir, "out_dir": out_dir}
    steps = ["--warmup", "1", "--steps", "1"] if given.tiny else ["--warmup", "2", "--steps", str(given.steps)]
    command = [sys.executable, str(OURS / "steps.py"), "--method", job.method, "--random", *steps]
    return called([*command, *(f"--{name}={value}" for name, value in flags.items())], ends)


def called(command: list[str], ends: float) -> dict[str, Any]:
    """Runs a command until it prints its result, or, where it fails or takes too long, says how it ended."""
    started = time.monotonic()
    try:
        left = max(ends - started, 1.0)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=left)
    except subprocess.TimeoutExpired:
        return {"ended": "out of time", "process_seconds": round(time.monotonic() - started, 1)}
    seconds = round(time.monotonic() - started, 1)
    said = [line for line in done.stderr.splitlines() if "Attention runs on" in line or "not compiled" in line]
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    if done.returncode or not lines:
        memory = "OutOfMemoryError" in done.stderr or "for the memory of" in done.stderr
        return {
            "ended": "out of memory" if memory else "failed",
            "said": done.stderr[-1500:],
            "process_seconds": seconds,
        }
    found: dict[str, Any] = json.JSONDecoder().raw_decode(lines[-1])[0]  # several processes may share a line
    return {**found, "process_seconds": seconds, **({"said": said} if said else {})}


def make_model(job: Job, given: argparse.Namespace, work_dir: Path) -> Path:
    """Gives a folder that describes a model and holds a tokenizer; weights are made on the device."""
    folder = work_dir / "models" / job.model
    folder.mkdir(parents=True, exist_ok=True)
    config = llama(64, 2, 4, 128, vocab_size=4096) if given.tiny else ON_GPU[job.model].hf_config
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(DEMO_TOKENIZER / name, folder / name)
    return folder


def make_rows(job: Job, given: argparse.Namespace, work_dir: Path) -> Path:
    """Gives a folder of prepared rows of random tokens."""
    from ours.rows import write_rows

    folder = work_dir / "rows" / job.rows
    if not folder.exists():
        source = given.alpaca if job.rows == "alpaca" else None
        count, longest = (TINY_ROWS, TINY["train.max_seq_length"]) if given.tiny else (ROWS, LONGEST)
        write_rows(folder, DEMO_TOKENIZER, source or LENGTHS[job.rows], count, int(longest))
    return folder


if __name__ == "__main__":
    main()
