"""`litft prepare`: a dataset's files, a tokenizer and a prompt style become train.pt, test.pt and manifest.yaml.

Every row is accounted for, the same input gives the same bytes, and a destination is either whole or marked unfinished
by a missing manifest. Knows no model but its context length and the number of its embedding rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.convert import read_model_config
from litft.checkpoint.disk import sha256_file
from litft.checkpoint.files import resolve_checkpoint_dir
from litft.config.prepare import DEFAULT_LENGTH, Preparations, PrepareConfig
from litft.data.augment import read_paraphrases
from litft.data.flow import Setting, keep_rows
from litft.data.gather import SHOWN_REASONS, Gathering, refuse_origin
from litft.data.kept import Kept, Part
from litft.data.ledger import LENGTH_BINS, Ledger, Manifest
from litft.data.paths import place_of
from litft.data.publish import publish, refuse_taken
from litft.data.reading.hub import file_labels, find_files
from litft.data.reading.local import folder_faults
from litft.data.sources import SOURCES
from litft.data.store import FORMAT, MANIFEST_FILE, TEST_FILE, TRAIN_FILE
from litft.data.summary import first_row, next_steps, summary
from litft.data.vocabulary import extend_tokenizer
from litft.errors import DataError, did_you_mean
from litft.text.conversation import dialogue
from litft.text.encoding import encode_conversation, stop_ids
from litft.text.style_files import load_style, style_named
from litft.text.tokenizer import Tokenizer

Report = Callable[[str], None]

# Above this share of rows dropped or cut, the user is told how to keep them.
LOUD_SHARE = 0.1


def prepare(dataset: str, config: Preparations, report: Report = lambda message: None) -> Manifest:
    """Makes prepared data out of a dataset.

    Args:
        dataset: a name of `SOURCES`.
        config: what to read, how, and where to write.
        report: takes each message for the user.

    Returns:
        What was written, as in manifest.yaml.

    Raises:
        DataError: the rows cannot be read or used, or the destination is taken; nothing is written then.
        CheckpointError, TokenizerError, ConfigError: the model, its tokenizer or the prompt style cannot be used.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _prepare(settle(dataset, config, Path(scratch)), Path(scratch), report)


def _prepare(setting: Setting, scratch: Path, report: Report) -> Manifest:
    """Reads, encodes, splits, writes and says what became of the rows."""
    config = setting.config
    gathering = gathering_of(setting)
    ledger = gathering.ledger
    kept = keep_rows(setting, gathering)
    gathering.refuse_rejected()
    _refuse_nothing(setting, kept, ledger)
    ledger.lengths = kept.lengths(setting.max_seq_length, LENGTH_BINS)
    parts = _parts(kept, config)
    ledger.rows_kept_train, ledger.rows_kept_test = (
        len(parts[name]["source"]) if name in parts else 0 for name in (TRAIN_FILE, TEST_FILE)
    )
    ends = set(stop_ids(setting.tokenizer, setting.style))
    _count_tokens(ends, parts.values(), ledger)
    _report_reading(setting, gathering, report)
    manifest = Manifest(
        setting.destination,
        {**settings_of(setting), **place_of(config.checkpoint_dir)},
        {setting.source.name: {**files_of(gathering), "origin": gathering.origin, "found": gathering.found}},
        {setting.source.name: ledger},
    )
    tokenizer = scratch if setting.new_tokens else None
    manifest.files.update(publish(setting.destination, parts, _meta(setting), manifest.to_dict(), tokenizer))
    _report(setting, ledger, parts, report)
    report(first_row(setting.tokenizer, ends, parts[TRAIN_FILE]))
    if config.part:
        report(f"Next: litft prepare join --data_dirs {setting.destination},... when all {config.part[1]} are there")
    else:
        report(next_steps(setting.destination, parts, config.checkpoint_dir))
    return manifest


def _parts(kept: Kept, config: Preparations) -> dict[str, Part]:
    """Gives the rows of each file; what is held out of shards is chosen when they are joined."""
    if config.part:
        return {TRAIN_FILE: kept.whole()}
    files = zip((TRAIN_FILE, TEST_FILE), kept.split(config.test_split_fraction, config.seed), strict=True)
    return {name: part for name, part in files if len(part["source"])}


def settle(dataset: str, config: Preparations, scratch: Path) -> Setting:
    """Finds all that a preparation needs, and refuses what cannot go well, before anything is read.

    Args:
        dataset, config: as `prepare` takes them.
        scratch: takes the tokenizer if it gets new tokens.

    Raises:
        DataError, CheckpointError, TokenizerError, ConfigError: as `prepare`.
    """
    if dataset not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise DataError(f'No dataset "{dataset}"; there are {known}.{did_you_mean(dataset, SOURCES)}')
    refuse_origin(f"the dataset {dataset}", SOURCES[dataset].origin, config)
    if config.score_field is not None and not SOURCES[dataset].has_fields:
        raise DataError(f"score_field is {config.score_field}, but rows of {dataset} have no fields; leave it away.")
    destination = destination_of(dataset, config)
    refuse_taken(destination, config.overwrite)
    checkpoint_dir = resolve_checkpoint_dir(config.checkpoint_dir)
    model = read_model_config(checkpoint_dir)
    new_tokens = extend_tokenizer(checkpoint_dir, scratch, config.add_tokens, model) if config.add_tokens else None
    tokenizer = Tokenizer(scratch if new_tokens else checkpoint_dir)
    named = config.prompt_style
    style = load_style(checkpoint_dir) if named is None else style_named(named, tokenizer)
    encode_conversation(tokenizer, style, dialogue("Hi", "Hello"))  # refuses a style that this tokenizer cannot write
    max_seq_length = min(config.max_seq_length, model.block_size)
    frames = () if config.paraphrases is None else read_paraphrases(config.paraphrases)
    return Setting(config, SOURCES[dataset], destination, model, tokenizer, style, max_seq_length, new_tokens, frames)


def destination_of(dataset: str, config: Preparations) -> Path:
    """Says where prepared data goes."""
    shard = "-{}-of-{}".format(*config.part) if config.part else ""
    return (config.destination_path or Path("data") / f"{dataset}{shard}").expanduser()


def gathering_of(setting: Setting) -> Gathering:
    """Finds the files to read.

    Raises:
        DataError: they are not there, or cannot be fetched.
    """
    config = setting.config
    paths = find_files(setting.source, config.data_file, _revision(config))
    if setting.source.choose is not None:
        paths = setting.source.choose(paths, **config.options())
    return Gathering(setting.source, paths, config)


def _refuse_nothing(setting: Setting, kept: Kept, ledger: Ledger) -> None:
    """Refuses to write an empty training set."""
    if not len(kept):
        raise DataError(
            f"Nothing is left to train on: {ledger.rows_dropped} of {ledger.rows_read} rows are longer than "
            f"{setting.max_seq_length} tokens (max_seq_length); {_length_advice(setting)}."
        )


def _length_advice(setting: Setting) -> str:
    """Says which flags keep long rows."""
    ways = []
    if setting.config.too_long in ("drop", "truncate_prompt"):
        ways.append("--too_long truncate_response keeps the beginning of their answers")
    if setting.max_seq_length < setting.model.block_size:
        ways.append(f"--max_seq_length may go up to {setting.model.block_size}")
    return ", ".join(ways) or f"{setting.model.name} reads no more than {setting.model.block_size} tokens"


def _count_tokens(ends: Collection[int], parts: Iterable[dict[str, Tensor]], ledger: Ledger) -> None:
    """Counts tokens, and answers that end, in what will be written."""
    stopping, stops = 0, torch.tensor(sorted(ends))
    for part in parts:
        targets = int(part["target_mask"].count_nonzero())
        ledger.target_tokens += targets
        ledger.prompt_tokens += len(part["input_ids"]) - targets
        stopping += int(torch.isin(part["input_ids"][part["offsets"][1:] - 1], stops).sum())
    ledger.stop_token_fraction = stopping / (ledger.rows_kept_train + ledger.rows_kept_test)


def _meta(setting: Setting) -> dict[str, Any]:
    """Gives what a finetuning must know of its data."""
    tokenizer = setting.tokenizer
    return {
        "litft_version": _version(),
        "dataset": setting.source.name,
        "source_names": [setting.source.name],
        "checkpoint": setting.model.name,
        "tokenizer": {"hash": tokenizer.hash, "class": tokenizer.kind, "vocab_size": tokenizer.vocab_size},
        "new_tokens": setting.new_tokens.to_dict() if setting.new_tokens else None,
        "prompt_style": setting.style.to_dict(),
        "max_seq_length": setting.max_seq_length,
        "train_on": setting.config.train_on,
        "seed": setting.config.seed,
        **({"score": {"kind": f"column {setting.config.score_field}"}} if setting.config.score_field else {}),
    }


def settings_of(setting: Setting) -> dict[str, Any]:
    """Gives all that decides the ids and the split, for the manifest."""
    config = setting.config
    names = ("too_long", "test_split_fraction", "max_rejected_fraction", *(["shard"] if config.part else []))
    changes = {"option_orders": config.option_orders, "paraphrases": list(setting.frames)}
    return {"format": FORMAT, **_meta(setting), **{name: getattr(config, name) for name in names}, **changes}


def files_of(gathering: Gathering) -> dict[str, Any]:
    """Says which files a source is, and what is asked of them."""
    source, paths, config = gathering.source, gathering.paths, gathering.config
    is_local = config.data_file is not None
    hashes = [sha256_file(path) for path in paths]
    return {
        "files": [{"file": name, "sha256": hash} for name, hash in zip(file_labels(paths), hashes, strict=True)],
        "options": {
            name: list(value) if isinstance(value, tuple) else value for name, value in config.options().items()
        },
        "repo_id": None if is_local else source.repo_id,
        "revision": None if is_local else _revision(config),
        "licence": source.licence,
    }


def _revision(config: Preparations) -> str | None:
    """Gives the commit to read of a published dataset; a file of the user's own has none."""
    return config.revision if isinstance(config, PrepareConfig) else None


def _version() -> str:
    """Gives litft's version; a checkout that was never installed has none."""
    try:
        return metadata.version("litft")
    except metadata.PackageNotFoundError:
        return "not installed"


def _report_reading(setting: Setting, gathering: Gathering, report: Report) -> None:
    """Tells the user what the files turned out to be, and what of them was not read."""
    for found in gathering.found:
        report(found)
    if setting.source.unused is None:
        return
    field = setting.config.score_field
    for path in gathering.paths:
        if sentence := setting.source.unused(path, used=[field] if field else [], **setting.config.options()):
            report(sentence)


def _report(setting: Setting, ledger: Ledger, parts: Mapping[str, Part], report: Report) -> None:
    """Tells the user what became of the rows."""
    told = summary(ledger, parts.values(), setting.model, setting.max_seq_length)
    report(f"{setting.source.name} -> {setting.destination}, prompt style {setting.style.name}\n{told}")
    firsts = list(ledger.rejected.first_of.values())
    for row in firsts[:SHOWN_REASONS]:
        more = ledger.rejected.reasons[row.reason] - 1
        report(f"rejected {row.place}: {row.reason}" + (f", as {more:,} more" if more else ""))
    if len(firsts) > SHOWN_REASONS:
        report(f"rejected for {len(firsts) - SHOWN_REASONS:,} other reasons too; {MANIFEST_FILE} counts them")
    for reason, count in ledger.rejected.left_out.most_common(SHOWN_REASONS):
        report(f"left out {count:,} times: {reason}")
    for note, count in ledger.notes.most_common():
        report(f"in {count:,} rows: {note}")
    if setting.config.option_orders:
        report(
            f"{ledger.rows_copied:,} of {ledger.rows_read:,} rows have copies with their options in other orders; the "
            "others have no options, or an answer that does not name one of them."
        )
    _warn(setting, ledger, report)


def _warn(setting: Setting, ledger: Ledger, report: Report) -> None:
    """Tells the user what was prepared, but may not be what was wanted."""
    for fault in folder_faults(setting.source, setting.config.data_file):
        report(f"WARNING: {fault}")
    asked = setting.config.max_seq_length
    if setting.max_seq_length < asked != DEFAULT_LENGTH:
        report(
            f"max_seq_length {asked} is more than the context of {setting.model.name}; {setting.max_seq_length} tokens "
            "are used."
        )
    encoded = ledger.rows_kept_train + ledger.rows_kept_test + ledger.rows_duplicate + ledger.rows_dropped
    for count, what in ((ledger.rows_dropped, "left out"), (ledger.rows_cut, "cut")):
        if count:
            report(
                f"{'WARNING: ' if count > LOUD_SHARE * encoded else ''}{count} of {encoded} rows "
                f"({count / encoded:.0%}) are longer than {setting.max_seq_length} tokens and were {what}, the first "
                f"of them {ledger.first_too_long[what]}; {_length_advice(setting)}."
            )
    if ledger.prompts_not_served:
        report(
            f"WARNING: before {ledger.prompts_not_served} of {ledger.found.total()} answers a server feeds another "
            "prompt than the one that is trained, so the model may answer worse than its loss says: the chat template "
            "writes its generation prompt (add_generation_prompt) otherwise than a conversation goes on. Mend the "
            "template and name it with --prompt_style FILE.jinja, or take a style by its name."
        )
