"""`litft prepare`: a dataset's files, a tokenizer and a prompt style become train.pt, test.pt and manifest.yaml.

Every row is accounted for, the same input gives the same bytes, and a destination is either whole or marked unfinished
by a missing manifest. Knows no model but its context length and the number of its embedding rows.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from litft.checkpoint.convert import read_model_config
from litft.checkpoint.disk import atomic_path, sha256_file
from litft.checkpoint.files import resolve_checkpoint_dir
from litft.config.io import dump_yaml
from litft.config.model import ModelConfig
from litft.config.prepare import Preparations, PrepareConfig
from litft.data.encode import Encoding, Example, example_of_ids
from litft.data.fit import fit
from litft.data.gather import SHOWN_REASONS, Gathered, gather, refuse_origin, refuse_rejected
from litft.data.kept import Kept, split_rows
from litft.data.ledger import LENGTH_BINS, Ledger, Manifest
from litft.data.reading.hub import file_labels, find_files
from litft.data.reading.rows import Rejected, Row, Source, TokenRow
from litft.data.sources import SOURCES
from litft.data.store import FORMAT, MANIFEST_FILE, TEST_FILE, TRAIN_FILE, save_prepared
from litft.data.vocabulary import extend_tokenizer, publish_tokenizer
from litft.errors import DataError, TokenizerError, did_you_mean
from litft.text.conversation import dialogue
from litft.text.encoding import Style, encode_conversation, stop_ids
from litft.text.new_tokens import NewTokens
from litft.text.style_files import load_style, style_named
from litft.text.tokenizer import Tokenizer

Report = Callable[[str], None]

# Above this share of rows dropped or cut, the user is told how to keep them.
LOUD_SHARE = 0.1

SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class Setting:
    """All that decides what becomes of a row."""

    config: Preparations
    source: Source
    destination: Path
    model: ModelConfig
    tokenizer: Tokenizer
    style: Style
    max_seq_length: int
    new_tokens: NewTokens | None


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
        return _prepare(_setting(dataset, config, Path(scratch), report), Path(scratch), report)


def _prepare(setting: Setting, scratch: Path, report: Report) -> Manifest:
    """Reads, encodes, splits, writes and says what became of the rows."""
    config = setting.config
    paths = find_files(setting.source, config.data_file, _revision(config))
    if setting.source.choose is not None:
        paths = setting.source.choose(paths, **config.options())
    gathered = gather(setting.source, paths, config)
    ledger = gathered.ledger
    _report_reading(setting, paths, gathered, report)
    kept = _encode_rows(setting, gathered)
    refuse_rejected(setting.source, paths, config, ledger)
    _refuse_nothing(setting, kept, ledger)
    train, test = split_rows(len(kept), config.test_split_fraction, config.seed)
    ledger.rows_kept_train, ledger.rows_kept_test = len(train), len(test)
    parts = {name: kept.tensors(rows) for name, rows in ((TRAIN_FILE, train), (TEST_FILE, test)) if len(rows)}
    ends = set(stop_ids(setting.tokenizer, setting.style))
    ledger.lengths = kept.lengths(setting.max_seq_length, LENGTH_BINS)
    _count_tokens(ends, parts.values(), ledger)
    manifest = Manifest(
        setting.destination,
        {"format": FORMAT, **_meta(setting), **_choices(config)},
        {setting.source.name: _describe_files(setting.source, paths, gathered, config)},
        {setting.source.name: ledger},
        {name: {"rows": len(part["source"]), "tokens": len(part["input_ids"])} for name, part in parts.items()},
    )
    _write(manifest, parts, _meta(setting), scratch)
    _report(setting, ledger, report)
    report(first_row(setting.tokenizer, ends, parts[TRAIN_FILE]))
    report(f"Next: litft finetune lora --checkpoint_dir {config.checkpoint_dir} --data_dir {setting.destination}")
    return manifest


def first_row(tokenizer: Tokenizer, ends: Collection[int], part: dict[str, Tensor]) -> str:
    """Shows the first row as it will be trained: the end of its prompt, and what carries loss, end token included."""
    end = int(part["offsets"][1])
    ids, mask = part["input_ids"][:end], part["target_mask"][:end]
    first = int(mask.int().argmax())
    prompt, answer = (tokenizer.decode(piece.tolist()) for piece in (ids[:first], ids[first:][mask[first:]]))
    how = "then the end token" if int(ids[-1]) in ends else "cut, without an end token"
    return (
        f"first row, {end} tokens\n  prompt  ...{json.dumps(prompt[-SHOWN_CHARACTERS:], ensure_ascii=False)}\n"
        f"  trained {json.dumps(answer[:SHOWN_CHARACTERS], ensure_ascii=False)}, {how}"
    )


def _setting(dataset: str, config: Preparations, scratch: Path, report: Report) -> Setting:
    """Finds all that a preparation needs, and refuses what cannot go well, before anything is read.

    `scratch` takes the tokenizer if it gets new tokens.
    """
    if dataset not in SOURCES:
        known = ", ".join(sorted(SOURCES))
        raise DataError(f'No dataset "{dataset}"; there are {known}.{did_you_mean(dataset, SOURCES)}')
    refuse_origin(f"the dataset {dataset}", SOURCES[dataset].origin, config)
    destination = (config.destination_path or Path("data") / dataset).expanduser()
    _refuse_taken(destination, config.overwrite)
    checkpoint_dir = resolve_checkpoint_dir(config.checkpoint_dir)
    model = read_model_config(checkpoint_dir)
    new_tokens = extend_tokenizer(checkpoint_dir, scratch, config.add_tokens, model) if config.add_tokens else None
    tokenizer = Tokenizer(scratch if new_tokens else checkpoint_dir)
    named = config.prompt_style
    style = load_style(checkpoint_dir) if named is None else style_named(named, tokenizer)
    encode_conversation(tokenizer, style, dialogue("Hi", "Hello"))  # refuses a style that this tokenizer cannot write
    max_seq_length = min(config.max_seq_length, model.block_size)
    if max_seq_length < config.max_seq_length:
        report(
            f"max_seq_length {config.max_seq_length} is more than the context of {model.name}; "
            f"{max_seq_length} tokens are used."
        )
    return Setting(config, SOURCES[dataset], destination, model, tokenizer, style, max_seq_length, new_tokens)


def _refuse_taken(destination: Path, overwrite: bool) -> None:
    """Refuses to replace data that nobody asked to replace."""
    if destination.exists() and not destination.is_dir():
        raise DataError(f"destination_path {destination} is a file; name a folder.")
    found = next((name for name in (MANIFEST_FILE, TRAIN_FILE) if (destination / name).exists()), None)
    if found and not overwrite:
        raise DataError(
            f"destination_path {destination} already holds prepared data ({found}); name another folder, or replace it "
            "with --overwrite true."
        )


def _encode_rows(setting: Setting, gathered: Gathered) -> Kept:
    """Encodes each row that is none yet, and decides what becomes of it."""
    kept, ledger = Kept(), gathered.ledger
    encoding = Encoding(setting.tokenizer, setting.style, setting.config.train_on)
    encoded = encoding.examples([row for row in gathered.contents if isinstance(row, Row)])
    for row in tqdm(gathered.contents, desc="encoding", unit=" rows", disable=None):
        example = example_of_ids(setting.tokenizer, row) if isinstance(row, TokenRow) else next(encoded)
        if not isinstance(example, Rejected) and not example.target_tokens:
            example = Rejected(row.line, "no token of it carries loss", file=row.file)
        if isinstance(example, Rejected):
            ledger.rejected.append(example)
        else:
            _refuse_foreign_ids(setting, example)
            _refuse_double_bos(setting, row, example)
            _keep(setting, encoding, row, example, kept, ledger)
    return kept


def _keep(
    setting: Setting, encoding: Encoding, row: Row | TokenRow, example: Example, kept: Kept, ledger: Ledger
) -> None:
    """Brings a row to the length allowed, and keeps what is left and new."""
    conversation = row.conversation if isinstance(row, Row) else None
    fitted = fit(encoding, conversation, example, setting.max_seq_length, setting.config.too_long)
    parts = [part for part in fitted.examples if part.target_tokens]
    ledger.rows_dropped += not parts
    ledger.rows_split += max(len(parts) - 1, 0)
    ledger.turns_lost += fitted.lost_turns
    for part in parts:
        if not kept.add(part):
            ledger.rows_duplicate += 1
            continue
        ledger.count(part, _counted_bos(setting.tokenizer))
        ledger.rows_cut += bool(fitted.cut)
        ledger.rows_cut_prompt += fitted.cut == "prompt"


def _counted_bos(tokenizer: Tokenizer) -> int | None:
    """Gives BOS where nothing else is written with it."""
    return None if tokenizer.bos_id == tokenizer.eos_id else tokenizer.bos_id


def _refuse_double_bos(setting: Setting, row: Row | TokenRow, example: Example) -> None:
    """Refuses two BOS tokens in a row, which no model was trained with."""
    bos = _counted_bos(setting.tokenizer)
    if bos is None or example.input_ids.count(bos) < 2 or (bos, bos) not in pairwise(example.input_ids):
        return
    raise DataError(
        f"{Rejected(row.line, '', file=row.file).place} has two BOS tokens ({bos}) in a row; the rows, or the prompt "
        f'style "{setting.style.name}", write one too many.'
    )


def _refuse_foreign_ids(setting: Setting, example: Example) -> None:
    """Refuses a tokenizer that knows more tokens than the model has embeddings for."""
    largest = max(example.input_ids)
    new = setting.new_tokens
    if largest >= max(setting.model.padded_vocab_size, new.vocab_size if new else 0):
        raise TokenizerError(
            f"The tokenizer gives the id {largest}, but {setting.model.name} has {setting.model.padded_vocab_size} "
            "embedding rows; the tokenizer files belong to another model."
        )


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
        targets = int(part["target_mask"].sum())
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
    }


def _choices(config: Preparations) -> dict[str, Any]:
    """Gives the remaining settings for the manifest."""
    names = ("too_long", "test_split_fraction", "max_rejected_fraction")
    return {name: getattr(config, name) for name in names}


def _describe_files(source: Source, paths: list[Path], gathered: Gathered, config: Preparations) -> dict[str, Any]:
    """Says which files a source was, and what was asked of them."""
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
        "origin": gathered.origin,
        "found": gathered.found,
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


def _write(manifest: Manifest, parts: dict[str, dict[str, Tensor]], meta: dict[str, Any], scratch: Path) -> None:
    """Writes the set. The old manifest goes before the first new file comes, the new one comes last."""
    destination = manifest.destination
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for name, tensors in parts.items():
                path = stack.enter_context(atomic_path(destination / name))
                save_prepared(path, **tensors, meta=meta)
                manifest.files[name]["sha256"] = sha256_file(path)
            (destination / MANIFEST_FILE).unlink(missing_ok=True)
            if TEST_FILE not in parts:
                (destination / TEST_FILE).unlink(missing_ok=True)
        publish_tokenizer(scratch if meta["new_tokens"] else None, destination)
        with atomic_path(destination / MANIFEST_FILE) as path:
            path.write_text(dump_yaml(manifest.to_dict()), encoding="utf-8")
    except OSError as error:
        raise DataError(f"Cannot write to destination_path {destination}: {error.strerror}.") from error


def _report_reading(setting: Setting, paths: list[Path], gathered: Gathered, report: Report) -> None:
    """Tells the user what the files turned out to be, and what of them was not read."""
    for found in gathered.found:
        report(found)
    if setting.source.unused is None:
        return
    for path in paths:
        if sentence := setting.source.unused(path, **setting.config.options()):
            report(sentence)


def _report(setting: Setting, ledger: Ledger, report: Report) -> None:
    """Tells the user what became of the rows."""
    report(f"{setting.source.name} -> {setting.destination}, prompt style {setting.style.name}\n{ledger.table()}")
    for row in [row for row in ledger.rejected if row.is_fault][:SHOWN_REASONS]:
        report(f"rejected {row.place}: {row.reason}")
    for reason, count in Counter(row.reason for row in ledger.rejected if not row.is_fault).most_common(SHOWN_REASONS):
        report(f"left out {count:,} times: {reason}")
    for note, count in ledger.notes.most_common():
        report(f"in {count:,} rows: {note}")
    for count, what in ((ledger.rows_dropped, "left out"), (ledger.rows_cut, "cut")):
        if count > LOUD_SHARE * ledger.rows_read:
            report(
                f"WARNING: {count} of {ledger.rows_read} rows ({count / ledger.rows_read:.0%}) are longer than "
                f"{setting.max_seq_length} tokens and were {what}; {_length_advice(setting)}."
            )
