"""What `benchmarks/gpu.py` asks of one process: whether kernels compute what they should, how fast, and generation.

`python device.py kernels|generate [--tiny] [--seconds N]` prints JSON. What a kernel cannot do is written down as a
sentence; a group of measurements that fails ends with its message and the next one begins.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.config.model import ModelConfig
from litft.config.run import LoRAConfig
from litft.methods.base import freeze
from litft.methods.lora import LoRA
from litft.model.attention import KVCache
from litft.model.documents import Documents
from litft.model.gpt import GPT
from litft.model.kernels import BACKENDS, GROUPED, find_fault
from litft.model.load import build_random
from litft.train.kernels import compile_fault

LLAMA2 = ModelConfig(
    name="llama2-7b", family="llama", n_layer=32, n_head=32, n_embd=4096, n_query_groups=32, head_size=128,
    intermediate_size=11008, vocab_size=32000, padded_vocab_size=32000, block_size=4096,
)  # fmt: skip
LLAMA3 = dataclasses.replace(
    LLAMA2, name="llama3.1-8b", n_query_groups=8, intermediate_size=14336, vocab_size=128256, padded_vocab_size=128256
)
# Source: config.json of google/gemma-2-2b, mistralai/Mistral-7B-v0.1 and mosaicml/mpt-7b, as far as attention goes.
GEMMA2 = dataclasses.replace(
    LLAMA2, name="gemma2-2b", n_head=8, n_query_groups=4, head_size=256, n_embd=2304, attention_softcap=50.0,
    attention_scale=256**-0.5, sliding_window=4096, full_attention_layers=tuple(range(1, 32, 2)),
)  # fmt: skip
MISTRAL = dataclasses.replace(LLAMA3, name="mistral-7b", sliding_window=4096)
MPT = dataclasses.replace(LLAMA2, name="mpt-7b", positions="alibi", n_query_groups=32)
MODELS = (LLAMA2, LLAMA3, GEMMA2, MISTRAL, MPT)
SMALL = dataclasses.replace(
    LLAMA3, n_layer=2, n_head=4, n_query_groups=2, n_embd=64, head_size=16, intermediate_size=96, vocab_size=256,
    padded_vocab_size=256, block_size=512,
)  # fmt: skip
DOCUMENTS = ((61, 1), (95, 3), (130, 9), (180, 4), (512, 1))  # lengths of Alpaca's kind, and how many of each
TEXTS = ((40, -1), (33, -1), (17, -1), (6, -1))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seconds", type=float, default=500)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(json.dumps(PARTS[given.part](device, given.tiny, time.monotonic() + given.seconds)))


def kernels(device: torch.device, tiny: bool, ends: float) -> dict[str, Any]:
    """Gives whether each kernel is right, for heads of several models, and how long it takes."""
    from ours.steps import matmul_gflops

    repeats = 1 if tiny else 15
    steps: dict[str, Callable[[], Any]] = {
        "matmul_bf16_gflops": lambda: matmul_gflops(device, repeats),
        "gradient": lambda: gradients(device),
        "compiled": lambda: compiled(device),
        "right": lambda: right(device, MODELS[:2] if tiny else MODELS),
        "milliseconds": lambda: speeds(device, (SMALL,) if tiny else (LLAMA2, LLAMA3, GEMMA2), 16 if tiny else 1),
        "copy_gb_per_second": lambda: copy_rate(device, 2**20 if tiny else 2**30),
    }
    if tiny:  # a compiler takes longer than all the rest
        del steps["compiled"]
    return {"device": name_of(device)} | {name: tried(step, ends) for name, step in steps.items()}


def tried(step: Callable[[], Any], ends: float) -> Any:
    """Gives what a step gives, or why it gives nothing."""
    if time.monotonic() > ends:
        return "no time left"
    try:
        return step()
    except (RuntimeError, ValueError, TypeError, AttributeError, ImportError) as error:
        return f"{type(error).__name__}: {str(error)[:300]}"


def name_of(device: torch.device) -> str:
    """Names the device."""
    return torch.cuda.get_device_name() if device.type == "cuda" else device.type


def right(device: torch.device, models: Sequence[ModelConfig]) -> dict[str, Any]:
    """Gives for each model and kernel `right`, or what is wrong."""
    found: dict[str, Any] = {}
    for config in models:
        config = dataclasses.replace(config, n_layer=2)
        for dtype in (torch.bfloat16, torch.float32):
            for name, backend in BACKENDS.items():
                said = backend.lacks(config, dtype) or find_fault(backend, config, device, dtype) or "right"
                found[f"{config.name} {str(dtype).partition('.')[2]} {name}"] = said
    return found


def gradients(device: torch.device) -> dict[str, float]:
    """Gives how far float32 gradients are apart, by their norm: packed and padded, this device and a CPU, kernels."""
    model = prepared(SMALL, torch.float32, device)
    there, packed = prepared(SMALL, torch.float32, torch.device("cpu")), gradient(model, device, TEXTS)
    found = {
        "packed, padded": apart(packed, gradient(model, device, None)),
        "here, on a CPU": apart(packed, gradient(there, torch.device("cpu"), TEXTS)),
    }
    reduced = prepared(SMALL, torch.bfloat16, device)
    plain = gradient(reduced, device, TEXTS)
    found["bfloat16, float32"] = apart(plain, packed)
    for name, backend in BACKENDS.items():
        if device.type == "cuda" and backend.lacks(SMALL, torch.bfloat16) is None:
            reduced.attend_by(name)
            found[f"{name} in bfloat16, float32"] = apart(gradient(reduced, device, TEXTS), packed)
    return found


def compiled(device: torch.device) -> dict[str, Any]:
    """Gives what is wrong with compiled blocks, and how far their gradients are from plain ones, in float32."""
    model, plain = (prepared(SMALL, torch.float32, device) for _ in range(2))
    fault = compile_fault(model, device)
    model.compile_blocks()
    return {"fault": fault, "apart": apart(gradient(model, device, TEXTS), gradient(plain, device, TEXTS))}


def prepared(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> GPT:
    """Gives a model with LoRA, the same on each device."""
    model, method = build_random(config, "32-true", torch.device("cpu"), 0), LoRA(LoRAConfig(dropout=0.0))
    torch.manual_seed(0)
    method.apply(model)
    freeze(model, method)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.02)
        elif not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    return model.to(device).train()


def gradient(model: GPT, device: torch.device, documents: Sequence[tuple[int, int]] | None) -> Tensor:
    """Gives the gradient of all that is trained, for four texts: packed, or padded where `documents` is None."""
    generator = torch.Generator().manual_seed(0)
    lengths = [length for length, _ in TEXTS]
    rows = [torch.randint(SMALL.vocab_size, (length,), generator=generator) for length in lengths]
    wanted = [torch.randn(length, SMALL.n_embd, generator=generator).to(device) for length in lengths]
    model.zero_grad()
    if documents:
        hidden = model(torch.cat(rows)[None].to(device), documents=documents)
        parts = torch.split(hidden[0], lengths)
    else:
        hidden = model(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device))
        parts = tuple(line[:length] for line, length in zip(hidden, lengths, strict=True))
    sum((part.float() * each).sum() for part, each in zip(parts, wanted, strict=True)).backward()  # type: ignore[union-attr]
    return torch.cat([each.grad.flatten().cpu() for each in model.parameters() if each.grad is not None])


def apart(one: Tensor, other: Tensor) -> float:
    """Gives the distance of two gradients as a share of the second."""
    return float((one - other).norm() / other.norm())


def speeds(device: torch.device, models: Sequence[ModelConfig], divided: int) -> dict[str, Any]:
    """Gives milliseconds of attention, forward and backward, of packed rows of some thousand tokens."""
    lengths = [max(length // divided, 1) for length, count in DOCUMENTS for _ in range(count)]
    found: dict[str, Any] = {}
    for config in models:
        for copies in (1, 2) if divided > 1 else (1, 4):
            for name in (GROUPED, *BACKENDS):
                label = f"{config.name} {copies * sum(lengths)} tokens {name}"
                work = attention(config, name, lengths * copies, device)
                found[label] = work if isinstance(work, str) else tried(partial(median_ms, work, device), math.inf)
    return found


def attention(config: ModelConfig, name: str, lengths: list[int], device: torch.device) -> Callable[[], Any] | str:
    """Gives one pass of a backend, forward and backward; a sentence where it cannot do it here."""
    dtype = torch.bfloat16
    lacks = None if name == GROUPED else BACKENDS[name].lacks(config, dtype)
    if lacks or (name != GROUPED and device.type == "cpu"):
        return lacks or "needs a GPU"
    with torch.device("meta"):
        model = GPT(dataclasses.replace(config, n_layer=1))
    model.attend_by(name)
    shapes = [(1, count, sum(lengths), config.head_size) for count in (config.n_head, *[config.n_query_groups] * 2)]
    q, k, v = (torch.randn(shape, dtype=dtype, device=device, requires_grad=True) for shape in shapes)
    layer, window = model.get_submodule("transformer.h.0.attn"), model.windows[0]

    def work() -> Any:
        documents = Documents([(length, -1) for length in lengths], device)
        context = model.context(window, documents.positions, dtype, None, documents)
        return torch.autograd.grad(layer.attend(q, k, v, context).sum(), (q, k, v))  # type: ignore[operator]

    return work


def median_ms(work: Callable[[], Any], device: torch.device, repeats: int = 7) -> float:
    """Gives the median of some calls, after one that is not measured."""
    found = []
    for _ in range(repeats + 1):
        waited(device)
        start = time.perf_counter()
        work()
        waited(device)
        found.append((time.perf_counter() - start) * 1e3)
    return round(sorted(found[1:])[repeats // 2], 3)


def waited(device: torch.device) -> None:
    """Returns once the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def copy_rate(device: torch.device, size: int) -> float:
    """Gives the bytes read and written a second by a copy, in GB."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return round(2 * size / median_ms(lambda: target.copy_(source), device) / 1e6, 1)


def generate(device: torch.device, tiny: bool, ends: float) -> dict[str, Any]:
    """Gives tokens a second of greedy decoding, one text and several, and the share of the memory's rate."""
    models = (SMALL,) if tiny else (LLAMA2, LLAMA3)
    steps = {config.name: partial(decoding, config, device, tiny) for config in models}
    return {"device": name_of(device)} | {name: tried(step, ends) for name, step in steps.items()}


@torch.no_grad()
def decoding(config: ModelConfig, device: torch.device, tiny: bool) -> dict[str, Any]:
    """Measures one model."""
    prompt, count = (8, 4) if tiny else (128, 64)
    model = build_random(config, "bf16-true", device, 0).eval()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    rate = copy_rate(device, 2**20 if tiny else 2**30) * 1e9
    found: dict[str, Any] = {"weight_gb": round(weights / 1e9, 2)}
    for texts in (1, 16):
        cache = KVCache(config, texts, prompt + count + 1, device, torch.bfloat16)
        model(torch.full((texts, prompt), 5, device=device), cache)
        token = torch.full((texts, 1), 7, device=device)
        token = model.head(model(token, cache))[:, -1:].argmax(-1)
        waited(device)
        start = time.perf_counter()
        for _ in range(count - 1):
            token = model.head(model(token, cache))[:, -1:].argmax(-1)
        waited(device)
        seconds = (time.perf_counter() - start) / (count - 1)
        found[f"{texts} texts, tokens_per_second"] = round(texts / seconds, 1)
        found[f"{texts} texts, share of memory rate"] = round(weights / seconds / rate, 3)
    return found


PARTS: dict[str, Callable[[torch.device, bool, float], dict[str, Any]]] = {"kernels": kernels, "generate": generate}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # where `ours` is
    main()
