"""transformers' generation, for `benchmarks/generate.py`: CHECKPOINT PROMPT_TOKENS COUNT...

Runs in an environment of its own, without litft. Answers with so many tokens for each count.
Source: transformers 5.23, `generation/utils.py`.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata

import torch
from transformers import AutoModelForCausalLM


def measure(checkpoint: str, prompt_tokens: int, *counts: int) -> dict[str, object]:
    """Gives the seconds of loading, and of each answer."""
    ids = torch.randint(3, 500, (1, prompt_tokens), generator=torch.Generator().manual_seed(0))

    def answered(count: int) -> float:
        length = {"min_new_tokens": count, "max_new_tokens": count}
        start = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **length)
        return time.perf_counter() - start

    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()
    load_seconds = time.perf_counter() - start
    return {
        "load_seconds": load_seconds,
        "answer_seconds": [answered(count) for count in counts],
        "versions": {name: metadata.version(name) for name in ("transformers", "torch")},
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
