"""How fast litft finetunes, and in how much memory, beside litgpt, TRL with PEFT, and torchtune.

Makes random models of real shapes and a small sample of Alpaca, and trains each model for one epoch: every way in a
process of its own, all of them in turn. A rate is real tokens (no padding) in the seconds of the training loop. FLOPs
are counted as 4 N (LoRA) or 6 N (full) for a real token, N the weights without the input embedding; what attention
adds is left out. Utilisation is that rate against a bfloat16 matrix product measured before each round.
Prints JSON. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ours.shapes import ON_CPU, ON_GPU, Workload
from prepare import machine, tree

TRAIN_ROWS, GPU_ROWS, HELD_OUT_ROWS = 96, 1024, 16
POLL_SECONDS = 0.05
PEERS, OURS = Path(__file__).parent / "peers", Path(__file__).parent / "ours"
SETTINGS = {
    "precision": "bf16-true",
    "train.save_interval": 100000,
    "eval.interval": 100000,
    "eval.prompts": 0,
    "optim.lr_warmup_steps": 2,
}
CPU_SIZE = {"train.global_batch_size": 16, "train.micro_batch_size": 4, "train.max_seq_length": 512}
GPU_SIZE = {"train.global_batch_size": 128, "train.micro_batch_size": 2, "train.max_seq_length": 2048}
LORA = {"lora.r": 8, "lora.alpha": 16, "lora.dropout": 0.05, "lora.targets": "q,v"}
BLOCKS = {"train.checkpoint": "block"}
METHODS: dict[str, dict[str, Any]] = {
    "lora": LORA,
    "full": {},
    "lora, checkpointing": {**LORA, **BLOCKS},
    "qlora, checkpointing": {**LORA, **BLOCKS, "quantize": "bnb.nf4"},
    "full, checkpointing, 8-bit AdamW": {**BLOCKS, "optim.name": "adamw8bit"},
}

Run = dict[str, Any]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpaca", type=Path, help="alpaca_data.json")
    parser.add_argument("--tokenizer", type=Path, help="a folder with Llama 2's tokenizer.json and tokenizer.model")
    parser.add_argument("--workload", help=f"which models, of {', '.join(ON_CPU)}; on a GPU of {', '.join(ON_GPU)}")
    parser.add_argument("--rows", type=int, help="how many are trained on (default: 96; on a GPU 1,024)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is measured")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every process (default: all cores)")
    for peer in ("litgpt", "trl", "torchtune"):
        parser.add_argument(f"--{peer}_python", help=f"the Python of an environment with {peer}")
    parser.add_argument("--ways", default="", help="only those that this regular expression finds")
    parser.add_argument("--flags", default="", help="more flags for litft: 'train.micro_batch_size=2 optim.name=sgd'")
    parser.add_argument("--profile", action="store_true", help="print where the time of litft's steps goes instead")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: litft alone, large models")
    parser.add_argument("--lengths", choices=("alpaca", "lima"), default="alpaca", help="the rows on a GPU")
    parser.add_argument("--lima", type=Path, help="LIMA's train.jsonl, for --lengths lima")
    parser.add_argument("--work_dir", type=Path, help="where 3 GB may be written; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="a file for the result, which is printed anyway")
    parser.add_argument("--table", type=Path, help="a file written by --out: print its tables and measure nothing")
    given = parser.parse_args()
    if given.table:
        print(table_of(json.loads(given.table.read_text(encoding="utf-8"))))
        return
    os.environ.update(OMP_NUM_THREADS=str(given.threads), HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(given, given.work_dir or Path(temporary))
    print(json.dumps(result, indent=2))


def measure(given: argparse.Namespace, work_dir: Path) -> dict[str, Any]:
    """Goes through the workloads and gives the result."""
    workloads = ON_GPU if given.device == "cuda" else ON_CPU
    write_rows(given, work_dir / "rows")
    result: dict[str, Any] = {"machine": machine(), "threads": given.threads, "rounds": given.rounds}
    for name in given.workload.split(",") if given.workload else workloads:
        folders = make_folders(name, workloads[name], given, work_dir)
        if given.profile or given.device == "cuda":
            runs = {method: run_steps(method, folders, given) for method in workloads[name].methods}
            result[name] = runs
        else:
            method = workloads[name].methods[0]
            commands = commands_of(name, method, folders, given)
            rounds = [run_round(commands, folders["run"]) for _ in range(given.rounds)]
            result[name] = summarize(method, folders["parameters"], rounds)
        result["load_at_end"] = round(os.getloadavg()[0], 1)
        if given.out:  # after each model: a later one may fail
            given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def write_rows(given: argparse.Namespace, folder: Path) -> None:
    """Writes a sample of rows, drawn at random: `train.json` and the held-out `val.json`."""
    if given.device == "cuda" and given.lengths == "lima":
        rows = [json.loads(line) for line in given.lima.read_text(encoding="utf-8").splitlines()]
    else:
        rows = json.loads(given.alpaca.read_text(encoding="utf-8"))
        rows = [{key: row.get(key, "") for key in ("instruction", "input", "output")} for row in rows]
    random.Random(1).shuffle(rows)
    count = given.rows or (GPU_ROWS if given.device == "cuda" else TRAIN_ROWS)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("val", rows[-HELD_OUT_ROWS:]), ("train", rows[: min(count, len(rows) - HELD_OUT_ROWS)])):
        (folder / f"{name}.json").write_text(json.dumps(chosen), encoding="utf-8")


def make_folders(name: str, workload: Workload, given: argparse.Namespace, work_dir: Path) -> dict[str, Any]:
    """Makes a model, with random weights where it is small, and its data.

    Returns:
        The folders `litft`, `hf`, `data`, `rows` and `run`, and how many `parameters` do matrix products.
    """
    folders = {kind: work_dir / kind / name for kind in ("litft", "hf", "data", "held_out")}
    folders |= {"rows": work_dir / "rows", "run": work_dir / "run"}
    folders["litft"].mkdir(parents=True, exist_ok=True)
    copy_files(given.tokenizer, folders["litft"])
    (folders["litft"] / "config.json").write_text(json.dumps(workload.hf_config), encoding="utf-8")
    dataset, length = (given.lengths, 2048) if given.device == "cuda" else ("alpaca", 512)
    for rows, folder in (("val", folders["held_out"]), ("train", folders["data"])):
        flags: Run = {"checkpoint_dir": folders["litft"], "data_file": folders["rows"] / f"{rows}.json"}
        flags |= {"destination_path": folder, "prompt_style": "alpaca", "max_seq_length": length}
        litft("prepare", dataset, test_split_fraction=0, overwrite="true", **flags)
    shutil.copyfile(folders["held_out"] / "train.pt", folders["data"] / "test.pt")
    return {**folders, **({} if given.device == "cuda" else make_weights(folders, given))}


def make_weights(folders: Mapping[str, Path], given: argparse.Namespace) -> Run:
    """Makes the random weights, in the form of each way; gives how many `parameters` do matrix products."""
    made = timed([sys.executable, str(OURS / "shapes.py"), str(folders["litft"])])
    flags: Run = {"checkpoint_dir": folders["litft"], "out_dir": folders["hf"]}
    litft("convert", "to_hf", certificate="tensors", overwrite="true", **flags)
    copy_files(given.tokenizer, folders["hf"])
    if given.litgpt_python:
        timed([given.litgpt_python, str(PEERS / "finetune_litgpt.py"), "convert", str(folders["hf"])])
    return made


def copy_files(source: Path, folder: Path) -> None:
    """Copies the files of a folder; the copies may be written over."""
    for file in source.iterdir():
        shutil.copyfile(file, folder / file.name)


def litft(*words: str, **flags: Any) -> None:
    """Runs a command of litft's."""
    timed([sys.executable, "-m", "litft", *words, *(f"--{name}={value}" for name, value in flags.items())])


def flops_of(method: str, parameters: int) -> int:
    """Gives the operations of one token; LoRA needs no gradient of the frozen weights."""
    return (6 if method.startswith("full") else 4) * parameters


def litft_flags(method: str, folders: Mapping[str, Path], given: argparse.Namespace) -> list[str]:
    """Gives the flags of a run of litft's."""
    where = {"checkpoint_dir": folders["litft"], "data_dir": folders["data"], "out_dir": folders["run"]}
    size = {**GPU_SIZE, "train.epochs": 100} if given.device == "cuda" else CPU_SIZE
    more = dict(word.split("=", 1) for word in given.flags.split())
    return [f"--{name}={value}" for name, value in {**where, **SETTINGS, **size, **METHODS[method], **more}.items()]


def commands_of(name: str, method: str, folders: Mapping[str, Path], given: argparse.Namespace) -> dict[str, list[str]]:
    """Gives the ways to finetune a model, and the command of each."""
    ours = [sys.executable, "-m", "litft", "finetune", method, *litft_flags(method, folders, given)]
    commands = {"litft": ours}
    commands |= {f"litft, {pack}": [*ours, f"--train.pack={pack}"] for pack in ("shared_prefix", "padded")}
    where = [str(folders[kind]) for kind in ("hf", "rows", "run")]
    if given.litgpt_python:
        commands["litgpt"] = [given.litgpt_python, str(PEERS / "finetune_litgpt.py"), method, *where]
    for packing in ("padded", "packed", "padding-free") if given.trl_python else ():
        commands[f"trl, {packing}"] = [given.trl_python, str(PEERS / "finetune_trl.py"), packing, method, *where]
    if given.torchtune_python and name == "llama-134m":
        commands["torchtune, packed"] = [given.torchtune_python, str(PEERS / "finetune_torchtune.py"), *where]
    return {way: command for way, command in commands.items() if re.search(given.ways, way)}


def run_round(commands: Mapping[str, Sequence[str]], out_dir: Path) -> dict[str, Run]:
    """Measures the matrix product, then runs every way once."""
    runs = {"matmul": timed([sys.executable, str(OURS / "steps.py"), "--matmul"])}
    for name, command in commands.items():
        shutil.rmtree(out_dir, ignore_errors=True)
        runs[name] = timed(command)
        if name.startswith("litft"):
            summary = json.loads((out_dir / "summary.json").read_text(encoding="utf-8"))
            runs[name] |= {"tokens": summary["tokens"], "seconds": summary["train_seconds"]}
            runs[name] |= {"positions": summary["tokens"] + summary["padding_tokens"]}
            runs[name] |= {"versions": {"torch": machine()["torch"]}}
        print(f"{name}: {rate_of(runs[name]):.1f} tokens/s, {runs[name]['rss_mib']:.0f} MiB", file=sys.stderr)
    return runs


def run_steps(method: str, folders: Mapping[str, Path], given: argparse.Namespace) -> dict[str, Any]:
    """Runs some steps of litft's recipe, profiled or on a GPU; gives the round of the median rate."""
    command = [sys.executable, str(OURS / "steps.py"), "--method", "full" if method.startswith("full") else "lora"]
    command += ["--profile"] if given.profile else ["--random", "--warmup", "3", "--steps", "5"]
    runs: list[Run] = []
    for _ in range(1 if given.profile else given.rounds):
        shutil.rmtree(folders["run"], ignore_errors=True)
        done = subprocess.run([*command, *litft_flags(method, folders, given)], stdout=subprocess.PIPE, check=False)
        if done.returncode:  # out of memory, say: the other methods are still measured
            return {"ended_with": done.returncode}
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    run = sorted(runs, key=rate_of)[len(runs) // 2]
    gflops = rate_of(run) * flops_of(method, run["parameters_without_input_embedding"]) / 1e9
    rates = {"tokens_per_second": rate_of(run), "all_tokens_per_second": [rate_of(each) for each in runs]}
    return {**run, **rates, "utilisation": gflops / run["gflops"]}


def timed(command: Sequence[str]) -> Run:
    """Runs a command; gives what it prints, its wall seconds, and the peaks of memory of its largest process in MiB."""
    peaks, stop = {"rss_mib": 0.0, "anonymous_mib": 0.0}, threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    watcher = threading.Thread(target=watch, args=(process.pid, stop, peaks))
    watcher.start()
    out, said = process.communicate()
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {process.returncode}: {said.decode(errors='replace')[-4000:]}"
        )
    lines = [line for line in out.decode().splitlines() if line.startswith('{"')]
    return {**(json.loads(lines[-1]) if lines else {}), "process_seconds": seconds, **peaks}


def watch(pid: int, stop: threading.Event, peaks: dict[str, float]) -> None:
    """Notes the most memory of any process of a tree: the kernel's own mark of all, and what of it is anonymous."""
    while not stop.wait(POLL_SECONDS):
        for each in tree(pid):
            try:
                status = Path(f"/proc/{each}/status").read_text(encoding="ascii", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in status.splitlines() if " kB" in line}
            peaks["rss_mib"] = max(peaks["rss_mib"], sizes.get("VmHWM:", 0.0))
            peaks["anonymous_mib"] = max(peaks["anonymous_mib"], sizes.get("RssAnon:", 0.0))


def summarize(method: str, parameters: int, rounds: Sequence[Mapping[str, Run]]) -> dict[str, Any]:
    """Gives medians and, of litft to each other way, the median of the ratios of the rounds."""
    flops = flops_of(method, parameters)
    rates = [each["matmul"]["gflops"] for each in rounds]
    ways = [name for name in rounds[0] if name != "matmul"]
    return {
        "method": method,
        "parameters_without_input_embedding": parameters,
        "flops_per_token": flops,
        "matmul_bf16_gflops": [round(rate) for rate in rates],
        "ways": {name: summarize_way([each[name] for each in rounds], flops, rates) for name in ways},
        "litft_to": {
            name: {
                "tokens_per_second": middle([rate_of(each["litft"]) / rate_of(each[name]) for each in rounds], 2),
                "rss": middle([each["litft"]["rss_mib"] / each[name]["rss_mib"] for each in rounds], 2),
            }
            for name in ways
            if name != "litft"
        },
    }


def summarize_way(runs: Sequence[Run], flops: int, matmul_gflops: Sequence[float]) -> dict[str, Any]:
    """Gives the medians of one way."""
    gflops = [rate_of(run) * flops / 1e9 for run in runs]
    return {
        **{key: runs[0].get(key) for key in ("tokens", "positions", "versions")},
        "tokens_per_second": middle([rate_of(run) for run in runs]),
        "all_tokens_per_second": [round(rate_of(run), 1) for run in runs],
        "seconds": [round(run["seconds"], 2) for run in runs],
        "process_seconds": [round(run["process_seconds"], 1) for run in runs],
        "peak_rss_mib": middle([run["rss_mib"] for run in runs], 0),
        "peak_anonymous_mib": middle([run["anonymous_mib"] for run in runs], 0),
        "gflops": middle(gflops),
        "utilisation": middle([mine / most for mine, most in zip(gflops, matmul_gflops, strict=True)], 3),
    }


def rate_of(run: Run) -> float:
    """Gives real tokens per second of the training loop."""
    return float(run["tokens"] / run["seconds"])


def middle(values: Sequence[float], digits: int = 1) -> float:
    """Gives the median, rounded."""
    return round(statistics.median(values), digits)


def table_of(result: Mapping[str, Any]) -> str:
    """Gives a result as Markdown: a table a model, in which ratios are litft's to a way."""
    lines = []
    for name, found in result.items():
        if not isinstance(found, dict) or "ways" not in found:
            continue
        lines += ["", f"{name}, {found['method']}:", ""]
        lines += ["| way | tokens/s | litft to it | memory, MiB | litft to it | positions | utilisation |"]
        lines += ["|---|---:|---:|---:|---:|---:|---:|"]
        for way, numbers in found["ways"].items():
            ratios = found["litft_to"].get(way, {"tokens_per_second": "", "rss": ""})
            cells = [way, f"{numbers['tokens_per_second']:.0f}", ratios["tokens_per_second"]]
            cells += [f"{numbers['peak_rss_mib']:,.0f}", ratios["rss"], f"{numbers['positions']:,}"]
            lines.append(f"| {' | '.join(map(str, cells))} | {numbers['utilisation']:.0%} |")
    return "\n".join(lines[1:])


if __name__ == "__main__":
    main()
