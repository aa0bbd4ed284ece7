"""Opens what a run reads and checks that it fits, before a weight is loaded or a file of a former run is touched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litft.checkpoint.convert import read_model_config
from litft.checkpoint.disk import require_free, sha256_file
from litft.checkpoint.files import WEIGHTS_NAME, require_converted, resolve_checkpoint_dir
from litft.config.io import load_yaml
from litft.config.model import ModelConfig
from litft.config.parse import config_to_dict
from litft.config.plan import TrainPlan
from litft.config.run import RunConfig
from litft.data.batches import rows_within
from litft.data.store import TEST_FILE, TRAIN_FILE, PreparedData, check_data_fits, find_data_dir
from litft.errors import ConfigError, DataError
from litft.methods.base import Method, freeze
from litft.model.load import build_empty, check_weights
from litft.text.tokenizer import Tokenizer
from litft.train.state import Inputs, Report, find_resume, write_yaml

RUN_FILE = "run.yaml"  # every setting of a run; by it a folder is known as a run's


def open_inputs(config: RunConfig, method: Method, report: Report, needs_weights: bool = True) -> Inputs:
    """Gives everything a run reads, checked.

    Args:
        config: the run's.
        method: tried on a model without memory, so that its mistakes show now.
        report: told what was left out.
        needs_weights: False for a run from random weights, which needs only config and tokenizer.

    Raises:
        LitftError: a folder, a file or a setting that does not fit; nothing has been written then.
    """
    checkpoint_dir = resolve_checkpoint_dir(config.checkpoint_dir)
    if needs_weights:
        require_converted(checkpoint_dir)
    data_dir = find_data_dir(config.data_dir)
    out_dir = config.out_dir or Path("out") / method.name / data_dir.name
    advice = "go on with --resume auto, start afresh with --overwrite true, or name another --out_dir"
    require_free(out_dir, config.overwrite or bool(config.resume), RUN_FILE, advice, (checkpoint_dir, data_dir))
    tokenizer = Tokenizer(checkpoint_dir)
    _require_held_out(data_dir)
    train, test = (PreparedData.load(data_dir / name) for name in (TRAIN_FILE, TEST_FILE))
    check_data_fits(train, tokenizer, checkpoint_dir)
    model_config = read_model_config(checkpoint_dir)
    limit = _length_limit(config, model_config, report)
    train_rows, test_rows = rows_within(train, limit), rows_within(test, limit)
    for data, rows in ((train, train_rows), (test, test_rows)):
        _check_rows(data, len(rows), limit, report)
    trial = build_empty(model_config)
    if needs_weights:
        check_weights(trial, checkpoint_dir / WEIGHTS_NAME)
    method.apply(trial)
    freeze(trial, method)
    resume = "auto" if config.resume is True else config.resume or None
    said: list[str] = []  # told once nothing can be refused any more
    resume_from = find_resume(out_dir, resume, said.append)
    if resume_from:
        check_same_run(config, resume_from.parent / RUN_FILE)
    for message in said:
        report(message)
    return Inputs(
        config=config,
        checkpoint_dir=checkpoint_dir,
        data_dir=data_dir,
        model_config=model_config,
        out_dir=out_dir,
        tokenizer=tokenizer,
        train=train,
        test=test,
        train_rows=train_rows,
        test_rows=test_rows,
        data_sha256={name: sha256_file(data_dir / name) for name in (TRAIN_FILE, TEST_FILE)},
        parameters=sum(p.numel() for p in trial.parameters()),
        trainable_parameters=sum(p.numel() for p in trial.parameters() if p.requires_grad),
        resume_from=resume_from,
        report=report,
    )


def start_out_dir(inputs: Inputs) -> None:
    """Makes the run's folder, empties it if it may be overwritten, and writes `run.yaml`."""
    if inputs.config.overwrite and inputs.out_dir.exists() and inputs.resume_from is None:
        shutil.rmtree(inputs.out_dir)
    inputs.out_dir.mkdir(parents=True, exist_ok=True)
    write_yaml(inputs.out_dir / RUN_FILE, config_to_dict(inputs.config))


def check_same_run(config: RunConfig, path: Path) -> None:
    """Refuses to go on with a run under other settings: its schedule and order would no longer be its own.

    Args:
        config: of the run that would go on.
        path: `run.yaml` of the run that was interrupted.

    Raises:
        ConfigError: naming the first setting that differs.
    """
    passing = {"resume", "overwrite", "out_dir"}  # where and how a run is taken up, not what it computes
    before, now = dict(_leaves(load_yaml(path))), dict(_leaves(config_to_dict(config)))
    for name, value in now.items():
        if name not in passing and before.get(name) != value:
            raise ConfigError(
                f"{path} has {name} {before.get(name)}, this run has {value}; a resumed run keeps its settings."
            )


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Gives the values of nested sections by their dotted names."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def describe(inputs: Inputs, plan: TrainPlan) -> str:
    """Gives the plan of a run as a small table, to be read before it starts."""
    config, optim = inputs.config, plan.optim
    tokens = int(inputs.train.lengths[inputs.train_rows].sum())
    share = inputs.trainable_parameters / inputs.parameters
    rows = [
        ("base", f"{inputs.checkpoint_dir}, {inputs.parameters:,} parameters with the method's own"),
        ("trained", f"{inputs.trainable_parameters:,} parameters ({share:.2%}), {config.precision}"),
        ("data", f"{len(inputs.train_rows):,} rows of {tokens:,} tokens; {len(inputs.test_rows):,} rows held out"),
        (
            "run",
            f"{plan.steps:,} steps of {plan.global_batch_size} examples, {plan.epochs:.2f} epochs, by {plan.ends_by}",
        ),
        ("rate", f"{optim.learning_rate:g}, {optim.schedule} after {plan.warmup_steps} steps of warmup"),
        ("validate", f"every {plan.eval_every} steps; checkpoint every {plan.save_every}"),
        ("out", f"{inputs.out_dir}"),
    ]
    return "\n".join(f"  {name:<9} {text}" for name, text in rows)


def _length_limit(config: RunConfig, model: ModelConfig, report: Report) -> int:
    """Gives the longest row in tokens; a wish above the model's context is capped, with a sentence."""
    wanted = config.train.max_seq_length or model.block_size
    if wanted > model.block_size:
        report(f"train.max_seq_length {wanted} is above the context of {model.name}; capped at {model.block_size}.")
    return min(wanted, model.block_size)


def _require_held_out(data_dir: Path) -> None:
    """Refuses data of which no row was held out.

    Raises:
        DataError: there is no test.pt.
    """
    if not (data_dir / TEST_FILE).exists():
        raise DataError(
            f"data_dir {data_dir} has no {TEST_FILE}, rows held out for validation; prepare two rows or more, with "
            "--test_split_fraction above 0."
        )


def _check_rows(data: PreparedData, count: int, limit: int, report: Report) -> None:
    """Says how many rows are too long and refuses a split without any.

    Raises:
        DataError: no row is left to train on or to validate with.
    """
    if count == 0:
        raise DataError(f"{data.path} has no row of at most {limit} tokens; prepare it again or raise the limit.")
    if count < len(data):
        report(f"{len(data) - count:,} of {len(data):,} rows of {data.path} are over {limit} tokens and left out.")
