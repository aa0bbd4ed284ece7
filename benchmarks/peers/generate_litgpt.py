"""litgpt's generation, for `benchmarks/generate.py`: convert CHECKPOINT, or CHECKPOINT PROMPT_TOKENS COUNT...

Runs in an environment of its own, without litft. Loads, and answers with so many tokens for each count, as its
`generate` command does, but for text.
Source: litgpt 0.5.13, `litgpt/generate/base.py`.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from pathlib import Path

import lightning as L
import torch
from litgpt.config import Config
from litgpt.generate.base import generate
from litgpt.model import GPT
from litgpt.scripts.convert_hf_checkpoint import convert_hf_checkpoint
from litgpt.utils import load_checkpoint


def measure(checkpoint: Path, prompt_tokens: int, *counts: int) -> dict[str, object]:
    """Gives the seconds of loading, and of each answer."""
    ids = torch.randint(3, 500, (prompt_tokens,), generator=torch.Generator().manual_seed(0))

    def answered(count: int) -> float:
        start = time.perf_counter()
        told = generate(model, ids, prompt_tokens + count, temperature=0.0)
        seconds = time.perf_counter() - start
        assert len(told) == prompt_tokens + count
        for block in model.transformer.h:
            block.attn.kv_cache.reset_parameters()
        return seconds

    start = time.perf_counter()
    fabric = L.Fabric(devices=1, accelerator="cpu", precision="bf16-true")
    with fabric.init_module(empty_init=True):
        model = GPT(Config.from_file(checkpoint / "model_config.yaml"))
    with fabric.init_tensor():
        model.max_seq_length = prompt_tokens + max(counts)
        model.set_kv_cache(batch_size=1)
    model.eval()
    model = fabric.setup_module(model)
    load_checkpoint(fabric, model, checkpoint / "lit_model.pth")
    load_seconds = time.perf_counter() - start
    return {
        "load_seconds": load_seconds,
        "answer_seconds": [answered(count) for count in counts],
        "versions": {name: metadata.version(name) for name in ("litgpt", "torch")},
    }


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert_hf_checkpoint(Path(sys.argv[2]), model_name="tiny-llama-1.1b")
    else:
        print(json.dumps(measure(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
