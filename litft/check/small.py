"""What makes a config small enough for the bench: fewer rows and steps, and of a large model its first blocks.

Knows no check.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

from litft.checkpoint.files import WEIGHTS_NAME, copy_side_files, save_model_config
from litft.checkpoint.tensors import load_weights, save_safetensors, tensor_specs
from litft.config.loggers import OWN
from litft.config.model import ModelConfig
from litft.config.plan import build_plan
from litft.config.run import RunConfig
from litft.config.train import EvalConfig
from litft.data.batches import rows_of_window
from litft.errors import ConfigError
from litft.methods.base import Method, freeze
from litft.model.load import build_empty
from litft.train.state import Inputs

ROWS, FEWEST_ROWS, STEP_ROWS = 8, 4, 4
STEPS, SAVED_STEP = 4, 2
MOST_TOKENS = 4096  # of all rows together
WORK = {"cpu": 2e11, "cuda": 4e12}  # parameters times tokens: a gradient of them takes some seconds
LARGE = 300_000_000  # parameters; a model of more is tried with its first blocks
FEWEST_LAYERS = 2


def small(config: RunConfig, out_dir: Path) -> RunConfig:
    """Gives the config with what is measured in steps, processes and places made small; what it computes stays."""
    train = dataclasses.replace(
        config.train,
        global_batch_size=STEP_ROWS,
        micro_batch_size=STEP_ROWS // 2,
        compile="none",
        attention="grouped",
        offload_activations=False,
        epochs=STEPS * STEP_ROWS,  # enough, however few rows there are
        max_iters=None,
        max_steps=STEPS,
        max_time=None,
        max_gpu_hours=None,
        save_interval=SAVED_STEP,
        export_interval=None,
        keep=STEPS,
    )
    optim = dataclasses.replace(config.optim, in_backward=False, lr_warmup_steps=0, decay_steps=None)
    return dataclasses.replace(
        config,
        precision="32-true",
        out_dir=out_dir,
        devices=1,
        num_nodes=1,
        strategy="auto",
        cpu_offload=False,
        resume=False,
        overwrite=True,
        dry_run=True,
        measure=False,
        logger=(OWN,),
        sweep_jobs=1,
        train=train,
        optim=optim,
        eval=EvalConfig(interval=STEPS, prompts=1, max_new_tokens=4),
    )


def choose_rows(inputs: Inputs, room: float) -> list[int]:
    """Gives the first rows that the run would train on, without the longest where they are too much; in their order.

    Args:
        inputs: of the run.
        room: tokens that all rows may have.
    """
    config, lengths = inputs.config, inputs.train.lengths
    plan = build_plan(
        len(inputs.train_rows), dataclasses.replace(config.train, global_batch_size=ROWS), config.optim, config.eval
    )
    rows = rows_of_window(inputs.train_rows, plan.window(0), config.seed if config.train.shuffle else None)
    limit = min(room, MOST_TOKENS)
    while len(rows) > FEWEST_ROWS and int(lengths[rows].sum()) > limit:
        rows.remove(max(rows, key=lambda row: int(lengths[row])))
    if int(lengths[rows].sum()) > limit:
        shortest = lengths[inputs.train_rows].argsort(stable=True)[:FEWEST_ROWS]
        return cast("list[int]", inputs.train_rows[shortest].tolist())
    return rows


def shorten(inputs: Inputs) -> ModelConfig:
    """Gives the sizes of the model that is tried: all of a small one, of a large one the first blocks that train."""
    config = inputs.model_config
    if inputs.parameters <= LARGE:
        return config
    for n_layer in range(FEWEST_LAYERS, config.n_layer):
        short = dataclasses.replace(config, n_layer=n_layer)
        if _trains_last(short, inputs.method):
            return short
    return config


def _trains_last(config: ModelConfig, method: Method) -> bool:
    """Says whether a method applies to a model of so few blocks and trains the last."""
    model = build_empty(config)
    try:
        method.apply(model)
        freeze(model, method)
    except ConfigError:  # it freezes more blocks than there are, or begins above them
        return False
    last = model.get_submodule(f"transformer.h.{config.n_layer - 1}")
    return any(parameter.requires_grad for parameter in last.parameters())


def write_short(inputs: Inputs, short: ModelConfig, folder: Path) -> Path:
    """Writes a checkpoint of the first blocks, if it is not there yet."""
    source = inputs.checkpoint_dir / WEIGHTS_NAME
    if (folder / WEIGHTS_NAME).is_file():
        return folder
    copy_side_files(inputs.checkpoint_dir, folder)
    save_model_config(folder, short)
    if source.is_file():
        names = set(build_empty(short).weight_names())
        kept = {name: tensor for name, tensor in load_weights(source).items() if name in names}
        save_safetensors(folder / WEIGHTS_NAME, kept.items(), tensor_specs(kept))
    return folder


def parameters_of(config: ModelConfig) -> int:
    """Gives the parameters of a model."""
    return sum(parameter.numel() for parameter in build_empty(config).parameters())
