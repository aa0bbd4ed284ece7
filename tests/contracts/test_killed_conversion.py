"""A conversion as a process: killed, it leaves nothing that looks whole; it needs the memory that it says it needs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

WIDTH, INNER, VOCAB = 1024, 256, 60_000  # 246 MB in bfloat16: long enough to be met while it is written
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": VOCAB,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
BLOCK = {
    **{f"self_attn.{part}_proj": [WIDTH, WIDTH] for part in "qkvo"},
    **{f"mlp.{part}_proj": [INNER, WIDTH] for part in ("gate", "up")},
    "mlp.down_proj": [WIDTH, INNER],
    "input_layernorm": [WIDTH],
    "post_attention_layernorm": [WIDTH],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of zeros, which as a file with holes takes no space."""
    shapes: dict[str, list[int]] = {f"model.layers.0.{name}.weight": shape for name, shape in BLOCK.items()}
    shapes |= {
        "model.norm.weight": [WIDTH],
        "model.embed_tokens.weight": [VOCAB, WIDTH],
        "lm_head.weight": [VOCAB, WIDTH],
    }
    header, place = {}, 0
    for name, shape in shapes.items():
        n_bytes = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + n_bytes]}
        place += n_bytes
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + place)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def convert(folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "litft", "convert", "from_hf", "--checkpoint_dir", str(folder)]
    # A shell has what it starts in the background ignore Ctrl-C, and so would all that these tests start there.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, preexec_fn=heard)


def finish(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    return said


def when_half_written(process: subprocess.Popen[str], folder: Path, number: int) -> None:
    """Sends a signal as soon as there is something of the new weights."""
    temporary = folder / f".lit_model.safetensors.{process.pid}.tmp"
    while not (temporary.exists() and temporary.stat().st_size > 1_000_000):
        assert process.poll() is None, "it ended before it was met"
        time.sleep(0.001)
    os.kill(process.pid, number)
    process.communicate(timeout=60)


def test_a_killed_conversion_is_made_again(folder: Path) -> None:
    sources = sorted(folder.iterdir())
    killed = convert(folder)
    when_half_written(killed, folder, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    left = folder / f".lit_model.safetensors.{killed.pid}.tmp"
    assert sorted(folder.iterdir()) == [left, *sources]
    assert "Converted 10 tensors" in finish(convert(folder))
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "lit_model.safetensors",
        "lit_model.safetensors.sha256",
        "model.safetensors",
        "model_config.yaml",
    ]
    with safe_open(folder / "lit_model.safetensors", framework="pt") as weights:
        assert len(weights.keys()) == 10
    assert "is converted already" in finish(convert(folder))


def test_a_killed_second_conversion_leaves_the_first(folder: Path) -> None:
    finish(convert(folder))
    made = folder / "lit_model.safetensors"
    before = made.stat()
    os.utime(folder / "config.json")
    killed = convert(folder)
    when_half_written(killed, folder, signal.SIGKILL)
    assert made.stat() == before
    assert "Converted" in finish(convert(folder))
    assert not list(folder.glob(".*"))


def test_ctrl_c_leaves_nothing(folder: Path) -> None:
    sources = sorted(folder.iterdir())
    stopped = convert(folder)
    when_half_written(stopped, folder, signal.SIGINT)
    assert stopped.returncode == 130
    assert sorted(folder.iterdir()) == sources


def test_the_file_of_a_running_conversion_is_left_alone(folder: Path) -> None:
    """Only what belongs to no process any more is removed."""
    ours = folder / f".lit_model.safetensors.{os.getpid()}.tmp"
    ours.touch()
    finish(convert(folder))
    assert ours.exists()


def test_it_needs_no_torch(folder: Path) -> None:
    """Bytes are moved as they are; importing torch would take longer than copying a gigabyte."""
    code = "import sys; sys.modules['torch'] = None; from litft.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "convert", "from_hf", "--checkpoint_dir", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Converted 10 tensors" in done.stderr, done.stderr


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_it_needs_no_more_memory_than_it_says(folder: Path, kind: str) -> None:
    if kind == "bin":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    running, peak_bytes = convert(folder), 0
    while running.poll() is None:
        found = re.search(r"RssAnon:\s*(\d+) kB", Path(f"/proc/{running.pid}/status").read_text())
        peak_bytes = max(peak_bytes, int(found[1]) * 1024 if found else 0)  # one that has just ended has no memory
        time.sleep(0.002)
    told = re.search(r"at most ([\d.]+) MB of memory", finish(running))
    largest_bytes = 2 * VOCAB * WIDTH
    assert told and peak_bytes < float(told[1]) * 1e6 <= largest_bytes + 300e6 + 1e5
    assert peak_bytes > 10e6, "nothing was measured"
