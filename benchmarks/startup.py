"""How long help and start-up take: litft beside litgpt, TRL and torchtune.

    python benchmarks/startup.py --out benchmarks/results/startup.json --times 5 \
        --litgpt VENV/bin --trl VENV/bin --torchtune VENV/bin

`help` is the first help of a program, `finetune_help` that of a finetuning command. `finetune_import` and
`generate_import` are a run's own start: Python and all that the recipe imports, before it reads its configuration.
Programs take turns, each is started once before, and medians are told; each peer has a virtual environment of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from prepare import machine

THREADS = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "100"}
# torchtune's recipes are files that are run by their path.
RECIPE = "import pathlib, runpy, torchtune; folder = pathlib.Path(torchtune.__file__).parents[1] / 'recipes'; "
RECIPE += "runpy.run_path(str(folder / '{}.py'), run_name='recipe')"
# The words behind a program's folder, by what is measured.
WORDS = {
    "litft": {
        "help": ["litft", "--help"],
        "finetune_help": ["litft", "finetune", "lora", "--help"],
        "finetune_import": ["python", "-c", "import litft.recipes.lora"],
        "generate_import": ["python", "-c", "import litft.answer.prompt"],
    },
    "litgpt": {
        "help": ["litgpt", "--help"],
        "finetune_help": ["litgpt", "finetune_lora", "--help"],
        "finetune_import": ["python", "-c", "import litgpt.finetune.lora"],
        "generate_import": ["python", "-c", "import litgpt.generate.base"],
    },
    "trl": {
        "help": ["trl", "--help"],
        "finetune_help": ["trl", "sft", "--help"],
        "finetune_import": ["python", "-c", "from trl import SFTConfig, SFTTrainer"],
    },
    "torchtune": {
        "help": ["tune", "--help"],
        "finetune_help": ["tune", "run", "--help"],
        "finetune_import": ["python", "-c", RECIPE.format("lora_finetune_single_device")],
        "generate_import": ["python", "-c", RECIPE.format("generate")],
    },
}


def measure(folder: Path, words: list[str]) -> float:
    """Gives the seconds that a program takes from its start to its end.

    Raises:
        RuntimeError: it failed, or is not there.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [str(folder / words[0]), *words[1:]], capture_output=True, text=True, env=os.environ | THREADS
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{folder / words[0]} {' '.join(words[1:])} failed: {done.stderr.strip()[-300:]}")
    return seconds


def versions(folder: Path) -> dict[str, str]:
    """Gives the versions of what is measured in a virtual environment."""
    names = ("litft", "litgpt", "trl", "torchtune", "torch", "transformers", "lightning-fabric", "lightning")
    code = "import json; from importlib import metadata as m; found = {}\n"
    code += f"for name in {names}:\n    try: found[name] = m.version(name)\n    except m.PackageNotFoundError: pass\n"
    done = subprocess.run([folder / "python", "-c", f"{code}print(json.dumps(found))"], capture_output=True, text=True)
    return json.loads(done.stdout)


def compare(folders: dict[str, Path], times: int) -> dict[str, dict[str, object]]:
    """Gives, for each measure, every program's seconds, their median, and it in litft's.

    Args:
        folders: of each program's commands.
        times: that each is started, after once before.
    """
    found: dict[str, dict[str, object]] = {}
    for what in WORDS["litft"]:
        programs = [name for name in folders if what in WORDS[name]]
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for turn in range(times + 1):
            for name in programs:
                each = measure(folders[name], WORDS[name][what])
                if turn:  # the first one reads files that no cache holds yet
                    seconds[name].append(round(each, 3))
                print(f"{what} {name} {turn}: {each:.3f} s", file=sys.stderr)
        medians = {name: statistics.median(each) for name, each in seconds.items()}
        found[what] = {
            "words": {name: " ".join(WORDS[name][what]) for name in programs},
            "seconds": seconds,
            "median_seconds": medians,
            "times_litft": {name: round(each / medians["litft"], 1) for name, each in medians.items()},
        }
    return found


def main() -> None:
    """Measures and writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--times", type=int, default=5, help="how often each program is started")
    for name in ("litgpt", "trl", "torchtune"):
        parser.add_argument(f"--{name}", type=Path, help=f"the bin folder of a virtual environment with {name}")
    told = vars(parser.parse_args())
    folders = {"litft": Path(sys.executable).parent}
    folders |= {name: told[name] for name in WORDS if told.get(name) is not None}
    results = {
        "machine": machine(),
        "threads": 1,
        "times": told["times"],
        "versions": {name: versions(folder) for name, folder in folders.items()},
        "results": compare(folders, told["times"]),
    }
    told["out"].write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for what, each in results["results"].items():
        print(what, json.dumps(each["median_seconds"]))


if __name__ == "__main__":
    main()
