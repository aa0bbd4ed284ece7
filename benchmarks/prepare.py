"""How fast `litft prepare` encodes, and in how much memory, beside the tokenizers' own libraries, litgpt and TRL.

Encodes Alpaca with a Llama 2 tokenizer (prompts and answers apart, rows in memory before the clock starts), each way in
a process of its own, all of them in turn; and prepares two synthetic JSON Lines files, from which ten million rows are
extrapolated. Prints JSON. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

# Source: config.json of meta-llama/Llama-2-7b-hf
HF_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-05,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PEERS = Path(__file__).parent / "peers" / "encode.py"
OURS, OURS_FROM_FILE = "litft", "litft, reading the file too"
RAW = ("sentencepiece in threads", "tokenizers encode_batch_fast")
LITGPT = ("litgpt, no workers", "litgpt, as it comes")
TRL = ("trl, one process", "trl, two processes")
TEN_MILLION = 10_000_000
POLL_SECONDS = 0.02

Run = dict[str, float]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpaca", type=Path, help="alpaca_data.json")
    parser.add_argument("--tokenizer", type=Path, help="a folder with Llama 2's tokenizer.json and tokenizer.model")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is measured")
    parser.add_argument("--litgpt_python", help="the Python of an environment with litgpt")
    parser.add_argument("--trl_python", help="the Python of an environment with trl")
    parser.add_argument("--synthetic", default="300000,600000", help="rows of the two synthetic files")
    parser.add_argument("--out", type=Path, help="a file for the result, which is printed anyway")
    parser.add_argument("--encode", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.encode:
        print(json.dumps(encode_with_litft(given.encode, given.alpaca, given.tokenizer)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work_dir = Path(temporary)
        checkpoint = make_checkpoint(work_dir, given.tokenizer)
        commands = commands_of(given, checkpoint, work_dir)
        runs = [{name: timed(command) for name, command in commands.items()} for _ in range(given.rounds)]
        slices = [prepare_slice(int(rows), checkpoint, work_dir) for rows in given.synthetic.split(",")]
        result = json.dumps(summarize(runs, slices), indent=2)
    print(result)
    if given.out:
        given.out.write_text(result + "\n", encoding="utf-8")


def make_checkpoint(work_dir: Path, tokenizer: Path) -> Path:
    """Writes what litft reads of a model before training: its tokenizer and its sizes."""
    folder = work_dir / "llama2"
    shutil.copytree(tokenizer, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    (folder / "config.json").write_text(json.dumps(HF_CONFIG), encoding="utf-8")
    return folder


def commands_of(given: argparse.Namespace, checkpoint: Path, work_dir: Path) -> dict[str, list[str]]:
    """Gives the ways to encode, and the command of each."""
    ours = [sys.executable, __file__, "--alpaca", str(given.alpaca), "--tokenizer", str(checkpoint), "--encode"]
    peers = {sys.executable: RAW, given.litgpt_python: LITGPT, given.trl_python: TRL}
    return {name: [*ours, name] for name in (OURS, OURS_FROM_FILE)} | {
        name: [python, str(PEERS), name, str(given.alpaca), str(checkpoint), str(work_dir)]
        for python, names in peers.items()
        for name in names
        if python
    }


def encode_with_litft(name: str, alpaca: Path, checkpoint: Path) -> Run:
    """Encodes, masks, counts and collects all rows, as `litft prepare` does before it writes."""
    from dataclasses import replace

    from litft.config.prepare import PrepareConfig
    from litft.data.flow import keep_rows
    from litft.data.prepare import gathering_of, settle

    config = PrepareConfig(checkpoint_dir=checkpoint, data_file=alpaca, prompt_style="alpaca", max_seq_length=512)
    with tempfile.TemporaryDirectory() as scratch:
        setting = settle("alpaca", config, Path(scratch))
    gathering = gathering_of(setting)
    if name == OURS:
        rows = list(setting.source.read(alpaca))
        gathering.source = replace(setting.source, read=lambda path: iter(rows))
    start = time.perf_counter()
    kept = keep_rows(setting, gathering)
    seconds = time.perf_counter() - start
    return {"rows": gathering.ledger.rows_read, "tokens": len(kept.input_ids), "seconds": seconds}


def timed(command: Sequence[str]) -> Run:
    """Runs a command; gives what it prints, its wall seconds, and its peaks of memory in MB."""
    peaks, stop = {"anonymous_mb": 0.0, "rss_mb": 0.0}, threading.Event()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    watcher = threading.Thread(target=watch, args=(process.pid, stop, peaks))
    watcher.start()
    out, said = process.communicate()
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with {process.returncode}: {said.decode(errors='replace')}")
    lines = [line for line in out.decode().splitlines() if line.startswith("{")]
    return {**(json.loads(lines[-1]) if lines else {}), "process_seconds": seconds, **peaks}


def watch(pid: int, stop: threading.Event, peaks: dict[str, float]) -> None:
    """Notes the most memory that a process and its children have at any moment; RSS counts shared pages for each."""
    while not stop.wait(POLL_SECONDS):
        sums = [memory_of(each) for each in tree(pid)]
        for key, values in zip(peaks, zip(*sums, strict=True), strict=False):
            peaks[key] = max(peaks[key], sum(values) * 1024 / 1e6)


def memory_of(pid: int) -> tuple[int, int]:
    """Gives the kilobytes of anonymous memory of a process and all that is in memory of it; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    found = {
        line.split()[0]: int(line.split()[1]) for line in status.splitlines() if line.startswith(("RssA", "VmRSS"))
    }
    return found.get("RssAnon:", 0), found.get("VmRSS:", 0)


def tree(pid: int) -> list[int]:
    """Gives a process and all processes that it started."""
    found = [pid]
    for each in found:
        try:
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def prepare_slice(rows: int, checkpoint: Path, work_dir: Path) -> Run:
    """Runs the whole command on a synthetic file."""
    file, destination = work_dir / f"{rows}.jsonl", work_dir / "prepared"
    write_synthetic(file, rows)
    command = [sys.executable, "-m", "litft", "prepare", "alpaca", "--checkpoint_dir", str(checkpoint)]
    run = timed([*command, "--data_file", str(file), "--destination_path", str(destination)])
    written = sum(path.stat().st_size for path in destination.iterdir())
    run |= {"rows": rows, "read_mb": file.stat().st_size / 1e6, "written_mb": written / 1e6}
    file.unlink()
    shutil.rmtree(destination)
    return run


def write_synthetic(path: Path, rows: int) -> None:
    """Writes rows of Alpaca's form, of invented words that are as unequally frequent as those of a language."""
    chance = random.Random(1)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 10))) for _ in range(50_000)]
    pool = chance.choices(words, [1 / (place + 1) for place in range(len(words))], k=2_000_000)

    def text(least: int, most: int) -> str:
        begin, count = chance.randrange(len(pool) - most), chance.randint(least, most)
        return " ".join(pool[begin : begin + count])

    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            row = {"instruction": f"{text(5, 15)} {number}?", "input": text(10, 10) if number % 3 == 0 else ""}
            file.write(json.dumps({**row, "output": f"{text(5, 80)}."}) + "\n")


def summarize(runs: Sequence[Mapping[str, Run]], slices: Sequence[Run]) -> dict[str, Any]:
    """Gives medians and ratios; a ratio is the median of those of the rounds, as a machine is not always as fast."""
    result: dict[str, Any] = {"machine": machine(), "rounds": len(runs), "load_at_end": round(os.getloadavg()[0], 1)}
    result["versions"] = {name: metadata.version(name) for name in ("sentencepiece", "tokenizers")}
    for name in runs[0]:
        rates = [run[name]["rows"] / run[name]["seconds"] for run in runs]
        result[name] = {
            "rows": int(runs[0][name]["rows"]),
            "tokens": int(runs[0][name]["tokens"]),
            "rows_per_second": round(statistics.median(rates)),
            "all_rows_per_second": [round(rate) for rate in rates],
            **{key: round(statistics.median(run[name][key] for run in runs)) for key in ("anonymous_mb", "rss_mb")},
        }
    for title, names, choose in (
        ("fastest raw route", RAW, max),
        ("litgpt, faster way", LITGPT, max),
        ("litgpt, as it comes", LITGPT[1:], max),
        ("trl, faster way", TRL, max),
        ("trl, one process", TRL[:1], max),
    ):
        if set(names) <= set(runs[0]):
            result[f"litft to {title}"] = ratio(runs, names, choose)
    result["synthetic"] = [{key: round(value, 1) for key, value in run.items()} for run in slices]
    if len(slices) == 2:
        result["ten_million_rows_extrapolated"] = extrapolate(*slices)
    return result


def ratio(runs: Sequence[Mapping[str, Run]], names: Sequence[str], choose: Callable[..., float]) -> float:
    """Gives how many rows litft encodes in the time in which another way, the faster of several, encodes one."""
    ratios = []
    for run in runs:
        rates = {name: run[name]["rows"] / run[name]["seconds"] for name in (OURS, *names)}
        ratios.append(rates[OURS] / choose(rates[name] for name in names))
    return round(statistics.median(ratios), 2)


def extrapolate(first: Run, second: Run) -> Run:
    """Draws the line through two files to ten million rows."""
    made: Run = {}
    for key in ("process_seconds", "anonymous_mb", "rss_mb", "written_mb"):
        slope = (second[key] - first[key]) / (second["rows"] - first["rows"])
        made[key] = round(second[key] + slope * (TEN_MILLION - second["rows"]))
    return made


def machine() -> dict[str, Any]:
    """Names the hardware, without the names of a host or a folder."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    ram = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    return {
        "cpu": next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"),
        "cores": os.cpu_count(),
        "ram_gb": round(int(ram) * 1024 / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": metadata.version("torch"),
    }


if __name__ == "__main__":
    main()
