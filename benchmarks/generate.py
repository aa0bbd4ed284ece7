"""How fast litft generates on a CPU with one text at a time, beside `litgpt generate` and transformers' `generate`.

Makes a model of TinyLlama's shape with random weights, 2.2 GB in bfloat16. Every way runs in a process of its own, all
of them in turn: it loads the model, reads a prompt of random tokens and answers greedily. Told are tokens a second of
decoding (behind the first) and of the prompt, the seconds of loading and from there to the first token, and memory. The
limit is the bytes of the weights that a token reads against the memory's rate, measured in each round.
Prints JSON. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ours.shapes import llama
from prepare import machine

import litft.demo
from finetune import PEERS, timed
from finetune import litft as litft_command

SHAPE = llama(2048, 22, 32, 5632, num_key_value_heads=4)  # Source: config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0
TINY = llama(64, 2, 4, 128, vocab_size=512, num_key_value_heads=2)
NAME = "tiny-llama-1.1b"
OURS = Path(__file__).parent / "ours" / "generate.py"
FORMS = ("bnb.int8", "bnb.nf4")
# Tokens of the answers before the long one: a second token lays weights out, and three answers tell the prompt's time.
BEFORE = (1, 2, 1, 1, 1)

Run = dict[str, Any]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is measured")
    parser.add_argument("--prompt_tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="of the answer")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every process (default: all cores)")
    for peer in ("litgpt", "transformers"):
        parser.add_argument(f"--{peer}_python", help=f"the Python of an environment with {peer}")
    parser.add_argument("--ways", default="", help="only those that this regular expression finds")
    parser.add_argument("--tiny", action="store_true", help="try it with a very small model")
    parser.add_argument("--work_dir", type=Path, help="where 7 GB may be written; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="a file for the result, which is printed anyway")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS=str(given.threads), HF_HUB_OFFLINE="1")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.work_dir or Path(temporary)) / NAME
        sizes = make_model(folder, given)
        commands = commands_of(folder, given)
        rounds = [{way: measured(each, given) for way, each in commands.items()} for _ in range(given.rounds)]
    told = {"machine": machine(), "threads": given.threads, "rounds": given.rounds, **sizes}
    told |= {
        "prompt_tokens": given.prompt_tokens,
        "tokens": given.tokens,
        **summarize(rounds, sizes["bytes_per_token"]),
    }
    result = json.dumps(told, indent=2)
    print(result)
    if given.out:
        given.out.write_text(result + "\n", encoding="utf-8")


def make_model(folder: Path, given: argparse.Namespace) -> dict[str, int]:
    """Makes the model in each way's form, where it is not there; gives its bytes, and those that a token reads."""
    config = TINY if given.tiny else SHAPE
    if not (folder / "hf").exists():
        (folder / "litft").mkdir(parents=True)
        for file in (Path(litft.demo.__file__).parent / "model").glob("*token*"):
            shutil.copyfile(file, folder / "litft" / file.name)
        (folder / "litft" / "config.json").write_text(json.dumps(config), encoding="utf-8")
        timed([sys.executable, str(OURS.parent / "shapes.py"), str(folder / "litft")])
        flags: Run = {"checkpoint_dir": folder / "litft", "out_dir": folder / "hf"}
        litft_command("convert", "to_hf", certificate="tensors", **flags)
        if given.litgpt_python:
            timed([given.litgpt_python, str(PEERS / "generate_litgpt.py"), "convert", str(folder / "hf")])
    size = (folder / "litft" / "lit_model.safetensors").stat().st_size
    return {"bytes": size, "bytes_per_token": size - 2 * config["vocab_size"] * config["hidden_size"]}


def commands_of(folder: Path, given: argparse.Namespace) -> dict[str, list[str]]:
    """Gives the ways, and the command of each."""
    numbers = [str(number) for number in (given.prompt_tokens, *BEFORE, given.tokens)]
    mine, hf = [sys.executable, str(OURS)], str(folder / "hf")
    commands = {"memory": [*mine, "memory", str(folder / "litft"), "tiny" if given.tiny else "whole"]}
    ways = {"litft": [*mine, "none", str(folder / "litft"), *numbers]}
    for peer in ("litgpt", "transformers"):
        if python := getattr(given, f"{peer}_python"):
            ways[peer] = [python, str(PEERS / f"generate_{peer}.py"), hf, *numbers]
    ways |= {f"litft, {form}": [*mine, form, str(folder / "litft"), *numbers] for form in FORMS}
    return commands | {way: command for way, command in ways.items() if re.search(given.ways, way)}


def measured(command: Sequence[str], given: argparse.Namespace) -> Run:
    """Runs a command; gives what it prints, its memory, and tokens a second of the prompt and of decoding."""
    run = timed(command)
    if "answer_seconds" not in run:
        return run
    first, _, *reads, whole = run["answer_seconds"]
    read = statistics.median(reads)
    rates = {"prefill": given.prompt_tokens / read, "decode": (given.tokens - 1) / (whole - read)}
    return {**run, "first_seconds": first, **rates}


def summarize(rounds: Sequence[Mapping[str, Run]], size: int) -> dict[str, Any]:
    """Gives the limit, the medians of each way, and litft's rate to that of each other way."""
    memory = [each["memory"] for each in rounds]
    limits = [each["bytes_per_second"] / size for each in memory]
    ways = {way: summarize_way([each[way] for each in rounds], memory, limits) for way in rounds[0] if way != "memory"}
    return {
        "memory_gb_per_second": [round(each["bytes_per_second"] / 1e9, 1) for each in memory],
        "read_file_seconds": [round(each["read_seconds"], 2) for each in memory],
        "limit_tokens_per_second": [round(limit, 1) for limit in limits],
        "ways": ways,
        "litft_to": {
            way: middle([each["litft"]["decode"] / each[way]["decode"] for each in rounds])
            for way in ways
            if "litft" in ways and way != "litft"
        },
    }


def summarize_way(runs: Sequence[Run], memory: Sequence[Run], limits: Sequence[float]) -> dict[str, Any]:
    """Gives the medians of one way; of its ratios to what the same round measured, the median of the rounds."""
    waits = [run["load_seconds"] + run["first_seconds"] for run in runs]
    return {
        "decode_tokens_per_second": middle([run["decode"] for run in runs], 1),
        "all_decode_tokens_per_second": [round(run["decode"], 1) for run in runs],
        "of_the_limit": middle([run["decode"] / limit for run, limit in zip(runs, limits, strict=True)]),
        "prefill_tokens_per_second": middle([run["prefill"] for run in runs], 0),
        **{key: middle([run[key] for run in runs]) for key in ("load_seconds", "first_seconds", "process_seconds")},
        "load_and_first_to_reading": middle([a / b["read_seconds"] for a, b in zip(waits, memory, strict=True)]),
        "peak_rss_mib": middle([run["rss_mib"] for run in runs], 0),
        "peak_anonymous_mib": middle([run["anonymous_mib"] for run in runs], 0),
        "versions": runs[0]["versions"],
    }


def middle(values: Sequence[float], digits: int = 2) -> float:
    """Gives the median, rounded."""
    return round(statistics.median(values), digits)


if __name__ == "__main__":
    main()
