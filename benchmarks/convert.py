"""How long a conversion takes, and how much memory, beside `cp` of the same bytes and beside litgpt.

Makes a random checkpoint of TinyLlama-1.1B's shape (2.2 GB of bfloat16 in three shards) and runs, in turn: `cp` of the
shards, `litft convert from_hf`, and litgpt's conversion where a Python that has it is given. Prints JSON.
Linux only: memory is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

# Source: config.json of TinyLlama/TinyLlama-1.1B-Chat-v1.0
HF_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SHARD_BYTES = 800_000_000
POLL_SECONDS = 0.005
LITGPT = "import sys; from pathlib import Path; from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint"
LITGPT += "; convert_hf_checkpoint(Path(sys.argv[1]), model_name='tiny-llama-1.1b')"

Run = dict[str, float]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work_dir", type=Path, help="where 7 GB may be written; default: a temporary folder")
    parser.add_argument("--rounds", type=int, default=5, help="how often each command runs")
    parser.add_argument("--litgpt_python", help="the Python of an environment with litgpt")
    parser.add_argument("--out", type=Path, help="a file for the result, which is printed anyway")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work_dir = given.work_dir or Path(temporary)
        folder = make_checkpoint(work_dir / "tiny-llama-1.1b")
        runs = [run_round(folder, work_dir / "copy", given.litgpt_python) for _ in range(given.rounds)]
        result = json.dumps(summarize(folder, runs), indent=2)
    print(result)
    if given.out:
        given.out.write_text(result + "\n", encoding="utf-8")


def tensor_shapes() -> dict[str, tuple[int, ...]]:
    """Gives the Hugging Face tensors of the model, in the order of its shards."""
    width, inner, vocab = (HF_CONFIG[key] for key in ("hidden_size", "intermediate_size", "vocab_size"))
    kv_rows = width // HF_CONFIG["num_attention_heads"] * HF_CONFIG["num_key_value_heads"]
    block = {
        "input_layernorm": (width,),
        "mlp.down_proj": (width, inner),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "post_attention_layernorm": (width,),
        "self_attn.k_proj": (kv_rows, width),
        "self_attn.o_proj": (width, width),
        "self_attn.q_proj": (width, width),
        "self_attn.v_proj": (kv_rows, width),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, width)}
    for index in range(HF_CONFIG["num_hidden_layers"]):
        shapes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in block.items()}
    return {**shapes, "model.norm.weight": (width,), "lm_head.weight": (vocab, width)}


def make_checkpoint(folder: Path) -> Path:
    """Writes the random checkpoint, unless it is there already; its index comes last."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    shards = list(split(tensor_shapes()))
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {key: torch.empty(shape, dtype=torch.bfloat16).normal_() for key, shape in shapes.items()}
        save_file(tensors, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(shapes, name)
    (folder / "config.json").write_text(json.dumps(HF_CONFIG), encoding="utf-8")
    Tokenizer(WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>")).save(str(folder / "tokenizer.json"))
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8")
    return folder


def split(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Divides tensors, in order, into shards of at most SHARD_BYTES."""
    shard: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if shard and 2 * sum(map(torch.Size.numel, map(torch.Size, (*shard.values(), shape)))) > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def run_round(folder: Path, copy: Path, litgpt_python: str | None) -> dict[str, Run]:
    """Runs every command once."""
    shards = sorted(folder.glob("model-*.safetensors"))
    runs = {}
    level(shards, copy)
    copy.mkdir()
    runs["cp"] = timed(["cp", *map(str, shards), str(copy)], [copy / shard.name for shard in shards])
    shutil.rmtree(copy)
    convert = [sys.executable, "-m", "litft", "convert", "from_hf", "--checkpoint_dir", str(folder)]
    made = folder / "lit_model.safetensors"
    made.unlink(missing_ok=True)
    level(shards, copy)
    runs["litft"] = timed(convert, [made])
    runs["litft_start"] = timed(convert, [])  # it finds that all is done: what is left is the start of the process
    made.unlink()
    if litgpt_python:
        made = folder / "lit_model.pth"
        level(shards, copy)
        runs["litgpt"] = timed([litgpt_python, "-c", LITGPT, str(folder)], [made])
        runs["litgpt_start"] = timed([litgpt_python, "-c", LITGPT.rpartition(";")[0]], [])
        made.unlink()
    return runs


def level(shards: Sequence[Path], copy: Path) -> None:
    """Copies the shards and removes the copy, so that each command meets the same: shards and free pages in memory.

    On a virtual machine the first use of memory that was long free takes several times as long as all the copying.
    """
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    os.sync()
    subprocess.run(["cp", *map(str, shards), str(copy)], check=True)
    shutil.rmtree(copy)


def timed(command: Sequence[str], written: Sequence[Path]) -> Run:
    """Runs a command and gives its wall seconds, those of a sync of what it wrote, and its peak anonymous memory."""
    peak_bytes, stop = [0], threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    watcher = threading.Thread(target=watch, args=(process.pid, stop, peak_bytes))
    watcher.start()
    said = process.communicate()[1]
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}: {said.decode(errors='replace')}")
    return {"seconds": seconds, "sync_seconds": sync(written), "peak_mb": peak_bytes[0] / 1e6}


def watch(pid: int, stop: threading.Event, peak_bytes: list[int]) -> None:
    """Notes the most anonymous memory that a process has at any moment; pages of mapped files do not count."""
    while not stop.wait(POLL_SECONDS):
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return  # it has ended
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                peak_bytes[0] = max(peak_bytes[0], int(line.split()[1]) * 1024)


def sync(paths: Sequence[Path]) -> float:
    """Waits until files are on the disk and gives the seconds that took."""
    start = time.perf_counter()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - start


def summarize(folder: Path, runs: Sequence[Mapping[str, Run]]) -> dict[str, Any]:
    """Gives medians and ratios; a ratio is the median of those of the rounds, as a disk is not always equally fast."""
    result: dict[str, Any] = {
        "machine": machine(folder),
        "bytes": sum(path.stat().st_size for path in folder.glob("model-*.safetensors")),
        "largest_tensor_mb": max(2 * torch.Size(shape).numel() for shape in tensor_shapes().values()) / 1e6,
        "rounds": len(runs),
    }
    for name in runs[0]:
        result[name] = {key: round(median(run[name][key] for run in runs), 2) for key in runs[0][name]}
        result[name]["all_seconds"] = [round(run[name]["seconds"], 2) for run in runs]
    for name in {"litft", "litgpt"} & set(runs[0]):
        result[f"{name}_to_cp"] = {
            "whole command": ratio(runs, name),
            "whole command, both with the sync of what they wrote": ratio(runs, name, synced=True),
            "without the start of the process": ratio(runs, name, less=f"{name}_start"),
        }
    return result


def ratio(runs: Sequence[Mapping[str, Run]], name: str, synced: bool = False, less: str | None = None) -> float:
    """Gives how many times as long as `cp` a command takes."""
    ratios = []
    for run in runs:
        parts = ("seconds", "sync_seconds") if synced else ("seconds",)
        seconds = sum(run[name][part] for part in parts) - (run[less]["seconds"] if less else 0.0)
        ratios.append(seconds / sum(run["cp"][part] for part in parts))
    return round(median(ratios), 2)


def median(values: Iterator[float] | Sequence[float]) -> float:
    """Gives the middle one."""
    return statistics.median(values)


def machine(folder: Path) -> dict[str, Any]:
    """Names the hardware, without the names of a host or a folder."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    ram = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "ram_gb": round(ram * 1024 / 1e9, 1),
        "disk": disk_kind(folder),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def disk_kind(folder: Path) -> str:
    """Gives the file system under a folder, and whether its disk turns."""
    device = folder.stat().st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    flags = [path for path in (block / "queue/rotational", block / "../queue/rotational") if path.is_file()]
    turns = {"0": "solid state or virtual", "1": "rotating or virtual"}.get(
        flags[0].read_text().strip() if flags else "", "kind unknown"
    )
    mounts = [line.split()[1:3] for line in _lines("/proc/mounts")]
    within = [(point, kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return f"{max(within, key=lambda mount: len(mount[0]))[1]}, {turns}"


def _lines(path: str) -> list[str]:
    """Gives the lines of a file of the kernel's."""
    return Path(path).read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    main()
