"""What `benchmarks/generate.py` asks of one process: FORM FOLDER PROMPT_TOKENS COUNT..., or memory FOLDER tiny|whole.

The first has litft answer with so many tokens, once for each count, with the weights of a folder kept in a form such as
`none` or `bnb.nf4`. The second gives the rate at which the memory is read, and the seconds of reading the file with the
weights. Both print JSON.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

PIECE = 16 * 2**20


def generation(form: str, folder: Path, prompt_tokens: int, *counts: int) -> dict[str, Any]:
    """Gives the seconds of loading, and of each answer."""
    from litft.api import LLM
    from litft.generate.request import Request
    from litft.generate.sample import Sampling

    ids = torch.randint(3, 500, (prompt_tokens,), generator=torch.Generator().manual_seed(0)).tolist()

    def answered(count: int) -> float:
        start = time.perf_counter()
        answer = llm.answer(Request(tuple(ids), count, Sampling()))
        assert len(answer.tokens) == count
        return time.perf_counter() - start

    start = time.perf_counter()
    llm = LLM.load(folder, "bf16-true", "cpu", form)
    load_seconds = time.perf_counter() - start
    return {
        "load_seconds": load_seconds,
        "answer_seconds": [answered(count) for count in counts],
        "versions": {"torch": metadata.version("torch")},
    }


def memory(folder: Path, count: int) -> dict[str, float]:
    """Gives the bytes a second of the best of five sums over `count` numbers, and the seconds of reading the file."""
    numbers, found = torch.ones(count), []
    for _ in range(5):
        start = time.perf_counter()
        numbers.sum()
        found.append(time.perf_counter() - start)
    buffer = bytearray(PIECE)
    start = time.perf_counter()
    with (folder / "lit_model.safetensors").open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return {"bytes_per_second": numbers.nbytes / min(found), "read_seconds": time.perf_counter() - start}


if __name__ == "__main__":
    what, where, *numbers = sys.argv[1:]
    if what == "memory":
        print(json.dumps(memory(Path(where), 2**20 if numbers == ["tiny"] else 2**27)))
    else:
        print(json.dumps(generation(what, Path(where), *map(int, numbers))))
