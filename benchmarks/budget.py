"""Whether a run of so many hours ends in that time: a day at a thousandth of its length, on the demo's model and data.

Runs `litft finetune lora --max_time 86.4` with more epochs than time, and prints as JSON how long it took, how often it
validated and saved, and its last learning rate.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prepare import machine

import litft.demo

DAY_IN_THOUSANDTHS = 86.4


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=DAY_IN_THOUSANDTHS, help="the run's time")
    parser.add_argument("--out", type=Path, help="a file for the result, which is printed anyway")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measured = run(Path(temporary), given.seconds)
    result = json.dumps({"machine": machine(), **measured}, indent=2)
    print(result)
    if given.out:
        given.out.write_text(result + "\n", encoding="utf-8")


def run(folder: Path, seconds: float) -> dict[str, Any]:
    """Prepares and runs; gives what it came to."""
    shipped, model, out = Path(litft.demo.__file__).parent, folder / "model", folder / "out"
    model.mkdir()
    for path in (shipped / "model").iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    litft_command("convert", "from_hf", checkpoint_dir=model)
    rows = shipped / "data" / "train.json"
    litft_command("prepare", "alpaca", checkpoint_dir=model, data_file=rows, destination_path=folder / "data")
    started = time.time()
    paths = {"checkpoint_dir": model, "data_dir": folder / "data", "out_dir": out}
    litft_command("finetune", "lora", config=shipped / "lora.yaml", max_time=seconds, epochs=10_000, **paths)
    ended = time.time()
    # Written when the checks were done, and at the very end.
    took = (out / "summary.json").stat().st_mtime - (out / "run.yaml").stat().st_mtime
    return {
        "budget_seconds": seconds,
        "run_seconds": round(took, 3),
        "share_of_budget": round(took / seconds, 4),
        "process_seconds": round(ended - started, 3),  # with imports and checks
        **ending(out),
    }


def ending(out: Path) -> dict[str, Any]:
    """Reads from a run's folder how it ended."""
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    with (out / "logs" / "metrics.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rates = [float(line["learning_rate"]) for line in lines if line["learning_rate"]]
    return {
        "stopped_by": summary["stopped_by"],
        "steps": summary["steps"],
        "validations": sum(1 for line in lines if line["val_loss"]),
        "highest_rate": max(rates),
        "last_rate": rates[-1],
        "first_val_loss": summary["first_val_loss"],
        "val_loss": summary["val_loss"],
    }


def litft_command(*words: str, **flags: object) -> None:
    """Runs a command of ours."""
    typed = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "litft", *words, *typed], check=True)


if __name__ == "__main__":
    main()
