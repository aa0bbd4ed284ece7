"""A few steps of litft's own recipe in this process, for `benchmarks/finetune.py`: their time, memory and profile.

The recipe is the real one, from its `main` to the loop. With `--random` its base gets random weights on the device
instead of those of a file. Flags that are not named here are the recipe's. Prints JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import litft.train.loop
from litft.checkpoint.convert import read_model_config
from litft.cli import find_command
from litft.config.parse import parse_config
from litft.model.gpt import GPT
from litft.model.load import DTYPES, build_empty, load_model
from litft.model.quantize import QuantizedLinear, apply_quantize
from litft.train.flops import model_flops
from litft.train.setup import open_inputs
from litft.train.state import Run

# Words in the name of an operation, and the group it counts to; the first that fits.
GROUPS = (
    ("optimizer", ("_foreach", "_fused_adam", "Optimizer", "clip_grad", "norm")),
    ("attention", ("scaled_dot_product", "flash", "bmm", "CausalAttention", "_softmax")),
    ("matmul", ("::mm", "::addmm", "::matmul", "::linear", "mkldnn_linear")),
    ("moving", ("copy_", "::cat", "index", "gather", "scatter", "clone", "embedding", "split", "_to_copy", "fill_")),
    ("dropout", ("bernoulli", "dropout")),
    ("elementwise", ("::mul", "::add", "::sub", "::div", "::neg", "silu", "gelu", "pow", "rsqrt", "exp", "::sum")),
)
HEAD = "head"
DIMENSIONS_OF_ATTENTION = 4  # (B, H, T, D): nothing else has as many, so this holds rotary positions too
TOP = 25


class EnoughError(Exception):
    """All steps that were asked for are done."""


class Steps:
    """Stands for `train_step` in the loop: lets some steps pass, measures some, and ends the run."""

    def __init__(self, warmup: int, count: int, profiled: bool) -> None:
        self.original, self.warmup, self.count, self.done = litft.train.loop.train_step, warmup, count, 0
        self.seconds = 0.0
        self.sums = dict.fromkeys(("tokens", "target_tokens", "padding_tokens"), 0)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self.profiler = profile(activities=activities, record_shapes=True) if profiled else None
        self.run: Run | None = None

    def __call__(self, run: Run, *others: Any) -> Any:
        """Does one step."""
        self.run = run
        if self.profiler and self.done == self.warmup:
            self.profiler.start()
        start = now(run)
        result = self.original(run, *others)
        seconds = now(run) - start
        self.done += 1
        if self.done > self.warmup:
            self.seconds += seconds
            self.sums = {name: value + getattr(result, name) for name, value in self.sums.items()}
        if self.done == self.warmup + self.count:
            if self.profiler:
                self.profiler.stop()
            raise EnoughError
        return result


def now(run: Run) -> float:
    """Gives the time, once the device has done all it was given."""
    if run.fabric.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", default="lora", help="which recipe")
    parser.add_argument("--random", action="store_true", help="give the base random weights; none are read")
    parser.add_argument("--warmup", type=int, default=1, help="steps that are not measured")
    parser.add_argument("--steps", type=int, default=2, help="steps that are")
    parser.add_argument("--profile", action="store_true", help="profile them and print a table")
    parser.add_argument("--matmul", action="store_true", help="measure only a matrix product")
    given, flags = parser.parse_known_args()
    rate = matmul_gflops(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if given.matmul:
        print(json.dumps({"gflops": rate}))
        return
    steps = Steps(given.warmup, given.steps, given.profile)
    train(given.method, flags, given.random, steps)
    result = summarize(steps)
    rates = {"tokens_per_second": result["tokens"] / result["seconds"]}
    rates["utilisation"] = result["model_flops"] / result["seconds"] / (rate * 1e9)
    print(json.dumps({"gflops": rate, **result, **rates}))


def train(method: str, flags: Sequence[str], random: bool, steps: Steps) -> None:
    """Runs the recipe until the steps are done."""
    flags = [*flags, *(["--init", "random"] if random and method == "full" else [])]
    command, rest = find_command(["finetune", method, *flags])
    module, _, name = command.config.partition(":")
    config = parse_config(getattr(importlib.import_module(module), name), rest, sys.argv[0], "")
    recipe = importlib.import_module(f"litft.recipes.{method}")
    if random and method != "full":
        replace(open_inputs, partial(open_inputs, needs_weights=False))
        replace(load_model, random_model)
    replace(litft.train.loop.train_step, steps)
    try:
        recipe.main(config, partial(print, file=sys.stderr))
    except EnoughError:
        return
    raise SystemExit("The run ended before all steps were done; give it more rows or epochs.")


def replace(original: object, other: object) -> None:
    """Puts something in the place of a function of litft's, wherever it was imported."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "litft":
            module.__dict__.update({key: other for key, value in vars(module).items() if value is original})


def random_model(
    checkpoint_dir: Path, precision: str, device: torch.device, quantize: str = "none", reader: Any = None
) -> GPT:
    """Does what `load_model` does, with random weights, tensor by tensor."""
    model = build_empty(read_model_config(checkpoint_dir))
    if quantize != "none":
        apply_quantize(model, quantize)
    torch.manual_seed(0)
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        layer = model.get_submodule(owner)
        weight = torch.empty(parameter.shape, dtype=DTYPES[precision], device=device)
        weight = weight.normal_(0.0, 0.02) if parameter.ndim > 1 else weight.fill_(leaf == "weight")
        if isinstance(layer, QuantizedLinear) and leaf == "weight":
            layer.quantize(weight)
        else:
            setattr(layer, leaf, nn.Parameter(weight, requires_grad=parameter.requires_grad))
    model.tie_weights()
    return model.eval()


def matmul_gflops(device: torch.device, repeats: int = 15) -> float:
    """Gives the rate of bfloat16 matrix products, the median of some."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds) / 1e9


def summarize(steps: Steps) -> dict[str, Any]:
    """Gives counts, times and memory, and prints the profile."""
    assert steps.run
    embedding = steps.run.gpt.get_parameter("transformer.wte.weight").numel()
    result: dict[str, Any] = {
        "steps": steps.count,
        "seconds": steps.seconds,
        **steps.sums,
        "positions": steps.sums["tokens"] + steps.sums["padding_tokens"],
        "parameters_without_input_embedding": steps.run.inputs.parameters - embedding,
        "trainable_parameters": steps.run.inputs.trainable_parameters,
        "model_flops": flops_of(steps),
        "attention": steps.run.gpt.backend,
        "compiled": "forward" in vars(steps.run.gpt.get_submodule("transformer.h.0")),
    }
    if torch.cuda.is_available():
        result["gpu"] = torch.cuda.get_device_name()
        result["peak_allocated_mib"] = torch.cuda.max_memory_allocated() / 2**20
        result["peak_reserved_mib"] = torch.cuda.max_memory_reserved() / 2**20
    if steps.profiler:
        result["profile"] = print_profile(steps.profiler, steps.run.gpt.config.padded_vocab_size)
    return result


def flops_of(steps: Steps) -> float:
    """Gives the model FLOPs of the measured steps: those of all rows, by the share of their tokens."""
    assert steps.run
    inputs = steps.run.inputs
    lengths, targets = inputs.train.lengths[inputs.train_rows], inputs.train.target_counts[inputs.train_rows]
    whole = model_flops(inputs.model_config, inputs.method, lengths, int(targets.sum()))
    return whole * steps.sums["tokens"] / int(lengths.sum())


def print_profile(profiler: profile, vocab_size: int) -> dict[str, float]:
    """Prints where the time of the steps went; gives the share of each group.

    An operation counts to the head where one of its tensors is as long as the vocabulary.
    """
    groups: dict[str, float] = {}
    operations: dict[tuple[str, str], list[float]] = {}  # microseconds and calls
    for event in profiler.key_averages(group_by_input_shape=True):
        spent, group = time_of(event), group_of(event, vocab_size)
        groups[group] = groups.get(group, 0.0) + spent
        before = operations.get((group, event.key), [0.0, 0.0])
        operations[group, event.key] = [before[0] + spent, before[1] + event.count]
    total = sum(groups.values())
    lines = [f"{spent / total:7.1%}  {group}" for group, spent in sorted(groups.items(), key=lambda pair: -pair[1])]
    lines += ["", "  share    calls  group        operation"]
    ordered = sorted(operations.items(), key=lambda pair: -pair[1][0])
    for (group, name), (spent, calls) in ordered[:TOP]:
        lines.append(f"{spent / total:7.1%} {calls:8.0f}  {group:<12} {name[:80]}")
    print("\n".join(lines), file=sys.stderr)
    return {group: round(spent / total, 4) for group, spent in groups.items()}


def time_of(event: Any) -> float:
    """Gives the microseconds of an operation itself: of the GPU where there is one."""
    return float(event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total)


def group_of(event: Any, vocab_size: int) -> str:
    """Gives what an operation is for, by the shapes it is given and by its name."""
    shapes: Iterable[Any] = [shape for shape in event.input_shapes if isinstance(shape, list)]
    if any(vocab_size in shape for shape in shapes) and "embedding" not in event.key:
        return HEAD
    if any(len(shape) >= DIMENSIONS_OF_ATTENTION for shape in shapes):
        return "attention"
    return next((group for group, words in GROUPS if any(word in event.key for word in words)), "other")


if __name__ == "__main__":
    main()
