"""Opens what a run reads and checks that it fits, before a weight is loaded or a file of a former run is touched."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from litft.checkpoint.convert import read_model_config
from litft.checkpoint.disk import read_json, remove_folder, remove_unfinished, require_free, sha256_file, weights_sha256
from litft.checkpoint.files import WEIGHTS_NAME, require_converted, resolve_checkpoint_dir
from litft.checkpoint.held import hold_folder
from litft.config.io import load_yaml
from litft.config.leaves import told_leaves
from litft.config.model import ModelConfig
from litft.config.optim import OptimConfig
from litft.config.parse import config_to_dict
from litft.config.processes import is_first
from litft.config.run import RunConfig
from litft.data.batches import build_batching, rows_within
from litft.data.store import TEST_FILE, TRAIN_FILE, PreparedData, check_data_fits, check_hashes, find_data_dir
from litft.data.vocabulary import tokenizer_dir
from litft.errors import ConfigError, DataError, TrainingError
from litft.methods.base import Method, freeze
from litft.methods.new_tokens import with_new_tokens
from litft.model.load import build_empty, check_weights
from litft.model.quantize import check_quantize
from litft.text.tokenizer import Tokenizer
from litft.train.export import require_exportable
from litft.train.fabric import require_devices
from litft.train.log_csv import last_step
from litft.train.loggers import Start, require_loggers
from litft.train.optim import build_optimizer
from litft.train.state import Inputs, Report, write_yaml
from litft.train.step_folders import find_resume

TIME_BOUNDS = ("max_time", "max_gpu_hours")  # a run that one of these ended may go on with more time
RUN_FILE = "run.yaml"  # every setting of a run; by it a folder is known as a run's


def open_inputs(config: RunConfig, method: Method, report: Report, needs_weights: bool = True) -> Inputs:
    """Gives everything a run reads, checked.

    Args:
        config: the run's.
        method: what the recipe chose; tried on a model without memory, so that its mistakes show now.
        report: told what was left out.
        needs_weights: False for a run from random weights, which needs only config and tokenizer.

    Raises:
        LitftError: a folder, a file or a setting that does not fit; nothing has been written then.
    """
    check_quantize(config.quantize)
    checkpoint_dir = resolve_checkpoint_dir(config.checkpoint_dir)
    if needs_weights:
        require_converted(checkpoint_dir)
    data_dir = find_data_dir(config.data_dir)
    out_dir = _open_place(config, method, data_dir, checkpoint_dir)
    tokens_from = tokenizer_dir(data_dir, checkpoint_dir)
    tokenizer = Tokenizer(tokens_from)
    train, test, hashes = _open_data(data_dir)
    method = with_new_tokens(method, train.meta)
    model_config = read_model_config(checkpoint_dir)
    _check_packing(config, model_config)
    limit = _length_limit(config, model_config, report)
    train_rows, test_rows = rows_within(train, limit), rows_within(test, limit)
    for data, rows in ((train, train_rows), (test, test_rows)):
        check_data_fits(data, tokenizer, checkpoint_dir)
        _check_rows(data, len(rows), limit, report)
        _check_ids(data, model_config, tokenizer)
    if config.train.shuffle and train.meta.get("order", "shuffled") != "shuffled":
        report(f"{train.path} is in the order of {train.meta['order']}; --train.shuffle false would keep it.")
    weights = checkpoint_dir / WEIGHTS_NAME if needs_weights else None
    parameters, trainable = _try_method(method, model_config, weights, config.optim)
    resume_from = _open_resume(config, out_dir, report)
    if weights and not config.dry_run:  # which would read all of it, and write the sum beside it
        hashes["base"] = weights_sha256(weights)
    inputs = Inputs(
        config=config,
        checkpoint_dir=checkpoint_dir,
        method=method,
        tokenizer_dir=tokens_from,
        data_dir=data_dir,
        model_config=model_config,
        out_dir=out_dir,
        tokenizer=tokenizer,
        train=train,
        test=test,
        train_rows=train_rows,
        test_rows=test_rows,
        batching=build_batching(config.train, train, limit),
        hashes=hashes,
        parameters=parameters,
        trainable_parameters=trainable,
        resume_from=resume_from,
        report=report,
        recipe=Path(sys._getframe(1).f_code.co_filename),  # who called this
    )
    require_exportable(inputs)
    return inputs


def _try_method(method: Method, model_config: ModelConfig, weights: Path | None, optim: OptimConfig) -> tuple[int, int]:
    """Applies method and optimizer to a model without memory, after a look at the header of its weights.

    Returns:
        Parameters of the base, and parameters that are trained.
    """
    trial = build_empty(model_config)
    if weights:
        check_weights(trial, weights)
    parameters = sum(parameter.numel() for parameter in trial.parameters())
    method.apply(trial)
    freeze(trial, method)
    build_optimizer(trial.named_parameters(), optim)
    return parameters, sum(parameter.numel() for parameter in trial.parameters() if parameter.requires_grad)


def start_out_dir(inputs: Inputs) -> None:
    """Makes the run's folder, empties it if it may be overwritten, opens loggers, and writes `run.yaml`.

    The first process does.

    Raises:
        TrainingError: a logger does not take the run; no new folder stays.
        ConfigError: another run writes there; nothing of it is touched.
    """
    if not is_first(inputs.config.processes):
        return
    inputs.out_dir.mkdir(parents=True, exist_ok=True)
    hold_folder(inputs.out_dir, "wait until that run has ended, or name another --out_dir")
    if inputs.config.overwrite and inputs.resume_from is None:
        _empty(inputs.out_dir)
    remove_unfinished(inputs.out_dir)
    is_new = not {path.name for path in inputs.out_dir.iterdir()} - {RUN_FILE}
    # First of all: whatever kills the run from here on, the folder is known as a run's.
    write_yaml(inputs.out_dir / RUN_FILE, config_to_dict(inputs.config))
    try:
        inputs.loggers.begin(inputs.config.logger, _start(inputs), inputs.report)
    except TrainingError:
        if is_new:
            shutil.rmtree(inputs.out_dir)
        raise


def _empty(out_dir: Path) -> None:
    """Removes a former run: first that it has ended, last of all by what it is known as a run's."""
    (out_dir / "summary.json").unlink(missing_ok=True)
    for path in out_dir.iterdir():
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        elif path.name != RUN_FILE:
            path.unlink()


def _start(inputs: Inputs) -> Start:
    """Gives what loggers are told of the run before its first step."""
    resumed = inputs.resume_from
    return Start(
        out_dir=inputs.out_dir,
        settings=config_to_dict(inputs.config),
        data_dir=inputs.data_dir,
        hashes=inputs.hashes,
        from_step=None if resumed is None else int(resumed.name.removeprefix("step-")),
        last_step=last_step(inputs.out_dir) if resumed else -1,
        log_model=inputs.config.log_model,
    )


def choose_out_dir(config: RunConfig, method: str, data_dir: Path) -> Path:
    """Gives the run's folder: the one named, that of the checkpoint to go on from, or out/METHOD/DATA.

    Args:
        config: of the run.
        method: its name.
        data_dir: the prepared data, as `find_data_dir` found it.

    Raises:
        ConfigError: the checkpoint to go on from is of another run than lies in out_dir.
    """
    own = Path(config.resume).parent if isinstance(config.resume, str) and config.resume != "auto" else None
    out_dir = config.out_dir or own or Path("out") / method / data_dir.name
    if own and out_dir.resolve() != own.resolve():
        raise ConfigError(f"--resume {config.resume} is of the run in {own}, not of out_dir {out_dir}; leave one out.")
    return out_dir


def _open_place(config: RunConfig, method: Method, data_dir: Path, checkpoint_dir: Path) -> Path:
    """Gives the run's folder, once it may be written and the devices and loggers are there.

    Raises:
        ConfigError: naming what is not so.
    """
    require_loggers(config.logger)
    out_dir = choose_out_dir(config, method.name, data_dir)
    if not config.dry_run:  # which may plan for another machine
        require_devices(config)
    if is_first(config.processes):  # the others find what it has begun to write
        advice = "go on with --resume auto, start afresh with --overwrite true, or name another --out_dir"
        replaces = config.overwrite or config.dry_run or bool(config.resume)
        require_free(out_dir, replaces, RUN_FILE, advice, (checkpoint_dir, data_dir))
    return out_dir


def _open_resume(config: RunConfig, out_dir: Path, report: Report) -> Path | None:
    """Gives the step folder to go on from, if the run is to go on and may.

    Raises:
        ConfigError: the run in out_dir has ended, or had other settings.
        CheckpointError: the given step folder is damaged.
    """
    if not config.resume or not is_first(config.processes):  # the first of several processes tells the others
        return None
    summary = out_dir / "summary.json"
    if summary.exists() and read_json(summary).get("stopped_by") not in TIME_BOUNDS:
        raise ConfigError(
            f"The run in {out_dir} has ended, there is nothing to resume; start afresh with --overwrite true, or name "
            "another --out_dir."
        )
    said: list[str] = []  # told once nothing can be refused any more
    resume_from = find_resume(out_dir, "auto" if config.resume is True else config.resume, said.append)
    before = (resume_from.parent if resume_from else out_dir) / RUN_FILE
    if resume_from or before.exists():
        check_same_run(config, before)
    for message in said:
        report(message)
    return resume_from


def check_same_run(config: RunConfig, path: Path) -> None:
    """Refuses to go on with a run under other settings: its schedule and order would no longer be its own.

    Args:
        config: of the run that would go on.
        path: `run.yaml` of the run that was interrupted.

    Raises:
        ConfigError: naming the first setting that differs.
    """
    # Where, how and how long a run is taken up; not what it computes.
    passing = {
        "devices",
        "num_nodes",
        "strategy",
        "cpu_offload",
        "resume",
        "overwrite",
        "out_dir",
        "dry_run",
        "measure",
        "sweep_jobs",
        "logger",
        "log_model",
        "train.max_time",
        "train.max_gpu_hours",
        "train.save_async",
        "train.export_interval",
    }
    before, now = dict(told_leaves(load_yaml(path))), dict(told_leaves(config_to_dict(config)))
    for name, value in now.items():
        if (name, value) == ("train.micro_batch_size", "auto"):
            continue  # it keeps the size that it began with
        if name not in passing and before.get(name) != value:
            raise ConfigError(
                f"{path} has {name} {before.get(name)}, this run has {value}; a resumed run keeps its settings."
            )


def _check_packing(config: RunConfig, model: ModelConfig) -> None:
    """Refuses to share beginnings between rows in which they would be rotated differently.

    Raises:
        ConfigError: naming the rotation.
    """
    scaling = model.rope_scaling
    if config.train.pack == "shared_prefix" and scaling and scaling.kind in ("longrope", "dynamic"):
        raise ConfigError(
            f"train.pack is shared_prefix, but the rotation of {model.name} is {scaling.kind}: how a beginning is "
            "rotated depends on how long its row is; use packed."
        )


def _length_limit(config: RunConfig, model: ModelConfig, report: Report) -> int:
    """Gives the longest row in tokens; a wish above the model's context is capped, with a sentence."""
    wanted = config.train.max_seq_length or model.block_size
    if wanted > model.block_size:
        report(f"train.max_seq_length {wanted} is above the context of {model.name}; capped at {model.block_size}.")
    return min(wanted, model.block_size)


def _open_data(data_dir: Path) -> tuple[PreparedData, PreparedData, dict[str, str]]:
    """Gives the rows to train on, those held out, and the sha256 of their files.

    Raises:
        DataError: there is no test.pt, or a file is not what it was when it was prepared.
    """
    if not (data_dir / TEST_FILE).exists():
        raise DataError(
            f"data_dir {data_dir} has no {TEST_FILE}, rows held out for validation; prepare two rows or more, with "
            "--test_split_fraction above 0."
        )
    hashes = {name: sha256_file(data_dir / name) for name in (TRAIN_FILE, TEST_FILE)}
    check_hashes(data_dir, hashes)
    train, test = (PreparedData.load(data_dir / name) for name in hashes)
    return train, test, hashes


def _check_rows(data: PreparedData, count: int, limit: int, report: Report) -> None:
    """Says how many rows are too long and refuses a split without any.

    Raises:
        DataError: no row is left to train on or to validate with.
    """
    if count == 0:
        raise DataError(f"{data.path} has no row of at most {limit} tokens; prepare it again or raise the limit.")
    if count < len(data):
        report(f"{len(data) - count:,} of {len(data):,} rows of {data.path} are over {limit} tokens and left out.")


def _check_ids(data: PreparedData, model: ModelConfig, tokenizer: Tokenizer) -> None:
    """Refuses token ids for which the model has no embedding.

    Raises:
        DataError: naming the largest id and the rows of the embedding.
    """
    largest = int(data.input_ids.max())
    rows = max(model.padded_vocab_size, tokenizer.vocab_size if data.meta.get("new_tokens") else 0)
    if largest >= rows:
        raise DataError(
            f"{data.path} holds the token id {largest}, but {model.name} has {model.padded_vocab_size} embeddings; "
            "prepare the data with this model."
        )
