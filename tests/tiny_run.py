"""A tiny model, data and run, made of the project's own parts, for tests of the training engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tiny_text import write_checkpoint
from torch.distributed.fsdp import FSDPModule

from litft.checkpoint.disk import sha256_file
from litft.checkpoint.files import load_model_config, save_model_config
from litft.checkpoint.tensors import save_safetensors, tensor_specs
from litft.config.optim import OptimConfig
from litft.config.plan import build_plan
from litft.config.run import AdapterConfig, LoRAConfig, RunConfig
from litft.config.train import EvalConfig, TrainConfig
from litft.data.store import save_prepared
from litft.methods.adapter import Adapter, AdapterV2
from litft.methods.base import Full, Method, freeze
from litft.methods.lora import LoRA
from litft.model.load import build_random
from litft.text.tokenizer import Tokenizer
from litft.train.fabric import build_fabric
from litft.train.loop import build_run
from litft.train.optim import build_optimizer
from litft.train.parts import load_base, spread
from litft.train.setup import open_inputs, start_out_dir
from litft.train.state import Run

CPU = torch.device("cpu")
# Whole numbers, and weights that a process did not use: since torch 2.13.
CUTS_ALL = hasattr(FSDPModule, "set_reduce_scatter_unused_params")
SIZES = {"n_layer": 2, "n_head": 4, "n_query_groups": 2, "n_embd": 16, "intermediate_size": 24, "block_size": 64}
LORA = LoRAConfig(r=4, alpha=8, dropout=0.1, targets=("q", "k", "v", "proj", "mlp", "head"))


def methods() -> dict[str, Method]:
    """Gives one of each method, everything it can train included."""
    adapter = AdapterConfig(prompt_length=3, start_layer=1)
    return {"full": Full(), "lora": LoRA(LORA), "adapter": Adapter(adapter), "adapter_v2": AdapterV2(adapter)}


def variants() -> dict[str, LoRA]:
    """Gives LoRA's variants, on every weight."""
    plain = dataclasses.replace(LORA, dropout=0.0)
    return {
        "rslora": LoRA(dataclasses.replace(plain, scaling="rank_stabilised")),
        "dora": LoRA(dataclasses.replace(plain, dora=True)),
        "pissa": LoRA(dataclasses.replace(plain, init="pissa")),
        "pissa_fast": LoRA(dataclasses.replace(plain, init="pissa_fast")),
        "pissa_dora": LoRA(dataclasses.replace(plain, init="pissa", dora=True)),
    }


def make_world(folder: Path, rows: int = 24, seed: int = 3, tokenizer_hash: str | None = None, **config: Any) -> Path:
    """Makes `model/` (random weights) and `data/` (random rows of 5 to 30 tokens, the second half of each a target)."""
    model_dir, data_dir = folder / "model", folder / "data"
    write_checkpoint(model_dir)
    save_model_config(model_dir, dataclasses.replace(load_model_config(model_dir), **{**SIZES, **config}))
    model = build_random(load_model_config(model_dir), "32-true", CPU, seed)
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    save_safetensors(model_dir / "lit_model.safetensors", weights.items(), tensor_specs(weights))
    data_dir.mkdir()
    tokenizer = Tokenizer(model_dir)
    generator = torch.Generator().manual_seed(seed)
    for name, count in (("train.pt", rows), ("test.pt", 6)):
        lengths = torch.randint(5, 31, (count,), generator=generator)
        offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
        total = int(offsets[-1])
        ids = torch.randint(3, tokenizer.vocab_size, (total,), generator=generator)
        within = torch.cat([torch.arange(length) / length for length in lengths.tolist()])
        save_prepared(
            data_dir / name,
            input_ids=ids,
            target_mask=within >= 0.5,
            offsets=offsets,
            source=torch.zeros(count),
            meta={"tokenizer": {"hash": tokenizer_hash or tokenizer.hash}, "source_names": ["random"]},
        )
    write_manifest(data_dir)
    return folder


def write_manifest(data_dir: Path) -> None:
    """Says what train.pt is, as the end of a preparation does; again where a test has changed it."""
    digest = sha256_file(data_dir / "train.pt")
    (data_dir / "manifest.yaml").write_text(f"sources: {{}}\nfiles: {{train.pt: {{sha256: {digest}}}}}\n")


def make_config(world: Path, **changes: Any) -> RunConfig:
    """Gives a short float32 run on a world; `changes` are dotted leaves with `__` for the dot."""
    sections: dict[str, dict[str, Any]] = {
        "train": {"global_batch_size": 8, "micro_batch_size": 2, "epochs": 4, "save_interval": 1000},
        "optim": {"learning_rate": 1e-2, "lr_warmup_steps": 2},
        "eval": {"interval": 1000, "prompts": 1, "max_new_tokens": 4},
    }
    top: dict[str, Any] = {"precision": "32-true", "out_dir": world / "out"}
    for name, value in changes.items():
        section, _, leaf = name.partition("__")
        (sections[section] if leaf else top)[leaf or section] = value
    return RunConfig(
        checkpoint_dir=world / "model",
        data_dir=world / "data",
        train=TrainConfig(**sections["train"]),
        optim=OptimConfig(**sections["optim"]),
        eval=EvalConfig(**sections["eval"]),
        **top,
    )


def open_run(config: RunConfig, method: Method, report: Callable[[str], None] = lambda message: None) -> Run:
    """Assembles a run as the recipes do."""
    inputs = open_inputs(config, method, report)
    method = inputs.method
    start_out_dir(inputs)
    fabric = build_fabric(config)
    model = load_base(inputs, fabric)
    method.apply(model)
    freeze(model, method)
    parts = spread(model, inputs, fabric)
    optimizer = build_optimizer(parts.named_parameters(), config.optim)
    plan = build_plan(len(inputs.train_rows), config.train, config.optim, config.eval)
    return build_run(inputs, fabric, plan, parts, optimizer)


def with_step_limit(run: Run, steps: int) -> Run:
    """Gives the same run cut off after some steps, its schedule unchanged, as a kill would leave it."""
    return dataclasses.replace(run, plan=dataclasses.replace(run.plan, steps=steps, ends_by="killed"))
