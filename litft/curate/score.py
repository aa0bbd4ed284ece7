"""`litft curate score`: each prepared row gets the loss of its answers, or their instruction-following difficulty, IFD.

Source: IFD is arXiv 2308.12032 (Li et al. 2023, "From Quantity to Quality"): the mean loss of the answer given the
instruction, divided by the mean loss of the answer alone; its code, github.com/tianyi-lab/Cherry_LLM, divides
mean losses too, not perplexities. Here an answer stands "alone" behind BOS (EOS where the tokenizer has no BOS) and
nothing else; that code leaves the words "### Response:" before it. What is measured are the tokens with loss, the end
token included. A row of several answers counts all its tokens with loss, each answer alone by itself; for a row of one
answer that is the paper's number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from litft.api import own_precision
from litft.checkpoint.disk import weights_sha256
from litft.checkpoint.files import load_model_config, resolve_checkpoint_dir
from litft.checkpoint.journal import Journal
from litft.config.curate import ScoreConfig
from litft.config.model import ModelConfig
from litft.config.prepare import ANSWERS_ONLY
from litft.curate.folder import Folder, check_destination, is_finished, open_folder, score_table, write_scored
from litft.curate.losses import RowLoss, iter_row_losses
from litft.data.store import TRAIN_FILE, check_data_fits
from litft.errors import ConfigError, DataError
from litft.methods.load import load_finetuned, weights_files
from litft.model.gpt import GPT
from litft.terminal.bars import Bar
from litft.text.tokenizer import Tokenizer

Report = Callable[[str], None]

SCORES_FILE = "scores.jsonl"

# What the manifest says of the scores, and what decides them.
DECIDING = ("kind", "meaning", "weights_sha256", "precision", "data_sha256")

# What the first line of the journal says -> how a sentence calls it where it was another.
_CHANGED = {
    "data": "other rows (--data_dir)",
    "weights": "other weights (--checkpoint_dir)",
    "by": "another --by ({})",
    "precision": "another --precision ({})",
    "begin": "another token before an answer alone ({})",
}


def score(config: ScoreConfig, report: Report = lambda message: None) -> Path:
    """Writes prepared data again, each row with a score that a checkpoint gives it.

    Args:
        config: which rows, which checkpoint, and where to write.
        report: takes each message for the user.

    Returns:
        The folder.

    Raises:
        DataError: the rows cannot be read or do not fit the model, a loss is not finite, or the destination is taken
            or was begun otherwise. What was computed by then stays in scores.jsonl.
        CheckpointError, TokenizerError: the checkpoint cannot be used.
    """
    folder = open_folder(config.data_dir)
    destination = check_destination(folder.path, config.destination_path)
    checkpoint_dir = resolve_checkpoint_dir(config.checkpoint_dir)
    tokenizer = Tokenizer(checkpoint_dir)
    check_data_fits(folder.train, tokenizer, checkpoint_dir)
    _refuse_prompts(folder, config)
    _refuse_long(folder, load_model_config(checkpoint_dir))
    begin = tokenizer.require_eos() if tokenizer.bos_id is None else tokenizer.bos_id
    precision = config.precision or own_precision(checkpoint_dir)
    work = {
        "data": folder.digests(),
        "weights": [weights_sha256(path) for path in weights_files(checkpoint_dir)],
        "by": config.by,
        "precision": precision,
        "begin": begin,
    }
    how = _how(config, work, tokenizer.token_text(begin))
    if is_finished(destination, {name: how[name] for name in DECIDING}, config.overwrite, report):
        return destination
    with open_scores(destination / SCORES_FILE, work, config.overwrite) as journal:
        losses = _losses_of(journal)
        if losses:
            report(f"{sum(map(len, losses.values())):,} of {folder.rows:,} rows are done; going on from there.")
        model = load_finetuned(checkpoint_dir, precision, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        _measure(model, folder, config, work, losses, journal)
    scores = {name: [_score(losses[name][row]) for row in range(len(data))] for name, data in folder.splits.items()}
    write_scored(folder, destination, scores, how)
    report(f"{config.by} of the rows of {TRAIN_FILE}\n{score_table(folder.train, scores[TRAIN_FILE])}")
    above = sum(value > 1 for value in scores[TRAIN_FILE])
    if config.by == "ifd" and above:
        report(
            f"{above:,} rows are above 1: with its question the answer is harder to foresee; the paper leaves them out."
        )
    chosen = "--filters.max_score 1 --filters.keep 0.1" if config.by == "ifd" else "--filters.keep 0.1"
    report(f"Next: litft prepare mix --data_dirs {destination} {chosen} --destination_path {destination}-best")
    return destination


def _measure(
    model: GPT,
    folder: Folder,
    config: ScoreConfig,
    work: dict[str, Any],
    losses: dict[str, dict[int, RowLoss]],
    journal: Journal,
) -> None:
    """Adds the losses of all rows that have none yet, to the journal too."""
    alone = work["begin"] if config.by == "ifd" else None
    with Bar("scoring", folder.rows, "rows", sum(map(len, losses.values()))) as bar:
        for name, data in folder.splits.items():
            known = losses.setdefault(name, {})
            for found in iter_row_losses(model, data, alone, config.micro_batch_size, known):
                _refuse_infinite(found, data.path, f"with {config.checkpoint_dir} in {work['precision']}")
                journal.add(*({"file": name, **each._asdict()} for each in found))
                bar.update(sum(each.row not in known for each in found))
                known |= {each.row: each for each in found}


def open_scores(path: Path, work: dict[str, Any], overwrite: bool) -> Journal:
    """Opens the journal of a work, or begins it; its first line says what the work is.

    Args:
        path: where it lies.
        work: all that decides the numbers.
        overwrite: begin again where the journal is of another work.

    Raises:
        DataError: it is of another work, and may not be replaced.
    """
    journal = Journal(path, work)
    former = journal.entries[0] if journal.entries else None
    if former is not None and former != work:
        changed = " and ".join(
            _CHANGED[name].format(former.get(name)) for name in work if former.get(name) != work[name]
        )
        with journal:
            if not overwrite:
                raise DataError(
                    f"{path} was begun with {changed}; name another destination_path, or begin again with "
                    "--overwrite true."
                )
        journal = Journal(path, work, restart=True)
    return journal


def _losses_of(journal: Journal) -> dict[str, dict[int, RowLoss]]:
    """Gives the losses that a journal holds, by file and row."""
    losses: dict[str, dict[int, RowLoss]] = {}
    for entry in journal.entries[1:]:
        try:
            found = RowLoss(entry["row"], entry["tokens"], entry["loss"], entry["alone"])
            losses.setdefault(entry["file"], {})[found.row] = found
        except KeyError as error:
            raise DataError(f"{journal.path} has a line without {error}; remove the file to begin again.") from error
    return losses


def _score(loss: RowLoss) -> float:
    """Gives the score of a row; an answer that costs nothing alone has none."""
    if loss.alone is None:
        return loss.loss
    return loss.loss / loss.alone if loss.alone else math.inf


def _refuse_prompts(folder: Folder, config: ScoreConfig) -> None:
    """Refuses rows with loss on what was asked, where the answer must be told from it."""
    trained = folder.train.meta.get("train_on")
    if config.by == "ifd" and trained not in ANSWERS_ONLY:
        raise ConfigError(
            f'{folder.path} was prepared with train_on "{trained}", so its answers cannot be told from its questions; '
            "prepare it with --train_on completions, or score it with --by loss."
        )


def _refuse_long(folder: Folder, model: ModelConfig) -> None:
    """Refuses rows that the model cannot read."""
    most = model.block_size
    for data in folder.splits.values():
        longer = int((data.lengths > most).sum())
        if longer:
            raise DataError(
                f"{longer:,} rows of {data.path}, the longest of {int(data.lengths.max())} tokens, are longer than the "
                f"context of {model.name}, {most}; prepare them with --max_seq_length {most}."
            )


def _refuse_infinite(found: list[RowLoss], path: Path, by_what: str) -> None:
    """Refuses losses that no score can be made of."""
    for each in found:
        if not math.isfinite(_score(each)):
            alone = "" if each.alone is None else f" ({each.alone} alone)"
            split = "" if path.name == TRAIN_FILE else " --split test"
            raise DataError(
                f"Row {each.row} of {path} has the loss {each.loss}{alone} {by_what}, which makes no score; look at it "
                f"with `litft inspect {path.parent}{split} --example {each.row}`, or try --precision 32-true."
            )


def _how(config: ScoreConfig, work: dict[str, Any], begin: str) -> dict[str, Any]:
    """Says what the score is, for the manifest."""
    meaning = "mean loss of the answers' tokens, their end tokens included, in nats"
    if config.by == "ifd":
        meaning += f", divided by the same with each answer alone behind {begin}"
    return {
        "kind": config.by,
        "meaning": meaning,
        "checkpoint": str(config.checkpoint_dir),
        "weights_sha256": work["weights"],
        "precision": work["precision"],
        "micro_batch_size": config.micro_batch_size,
        "data_sha256": work["data"],
    }
