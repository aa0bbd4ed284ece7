"""From the rows of files to those that will be written: a stream, of which only the result is kept. Writes nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, tee
from pathlib import Path

from litft.config.model import ModelConfig
from litft.config.prepare import Preparations
from litft.data.augment import augmented
from litft.data.encode import AnyRow, Encoding, Example
from litft.data.fit import fit
from litft.data.gather import Gathering
from litft.data.kept import Kept, draw_of
from litft.data.ledger import Ledger
from litft.data.reading.rows import Rejected, Row, Source
from litft.errors import DataError, TokenizerError
from litft.terminal.bars import tracked
from litft.text.encoding import Style
from litft.text.new_tokens import NewTokens
from litft.text.tokenizer import Tokenizer

# New objects after which Python looks for cycles among them: a few batches of rows, where 700 would be a few rows.
OBJECTS_UNSEEN = 100_000


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
    frames: tuple[str, ...]


def keep_rows(setting: Setting, gathering: Gathering) -> Kept:
    """Reads all rows, encodes each that is none yet, a batch after the other, and decides what becomes of it.

    Args:
        setting: what decides that.
        gathering: the files; its ledger counts the rows.

    Raises:
        DataError: a file cannot be read, or a row has two BOS tokens in a row.
        TokenizerError: the tokenizer does not fit the model, the style or a row of ids.
    """
    kept, ledger, config = Kept(), gathering.ledger, setting.config
    encoding = Encoding(setting.tokenizer, setting.style, config.train_on)
    rows, again = tee(augmented(gathering.rows(), config.option_orders, setting.frames, config.seed))
    pairs = zip(rows, encoding.examples(again), strict=True)
    first: Example | None = None  # what copies were made of
    was_copy = False
    with _few_collections():
        for row, example in tracked(pairs, "preparing", "rows"):
            is_copy = isinstance(row, Row) and row.is_copy
            ledger.rows_added += is_copy
            ledger.rows_copied += is_copy and not was_copy
            was_copy = is_copy
            first = first if is_copy else None
            if isinstance(example, Rejected):
                ledger.rejected.add(example)
            elif not example.target_tokens:
                ledger.rejected.add(Rejected(row.line, "no token of it carries loss", file=row.file))
            else:
                _refuse_foreign_ids(setting, example)
                _refuse_double_bos(setting, row, example)
                first = first or example
                _keep(setting, encoding, row, example, first, kept, ledger)
    return kept


@contextmanager
def _few_collections() -> Iterator[None]:
    """Lets Python look for cycles of objects seldom: rows have none, and the search takes a quarter of the time."""
    first, *others = gc.get_threshold()
    gc.set_threshold(max(first, OBJECTS_UNSEEN), *others)
    try:
        yield
    finally:
        gc.set_threshold(first, *others)


def _keep(
    setting: Setting, encoding: Encoding, row: AnyRow, example: Example, first: Example, kept: Kept, ledger: Ledger
) -> None:
    """Brings a row to the length allowed, and keeps what is left and new."""
    conversation = row.conversation if isinstance(row, Row) else None
    fitted = fit(encoding, conversation, example, setting.max_seq_length, setting.config.too_long)
    parts = [part for part in fitted.examples if part.target_tokens]
    ledger.rows_dropped += not parts
    ledger.rows_split += max(len(parts) - 1, 0)
    ledger.turns_lost += fitted.lost_turns
    if not parts or fitted.cut:
        place = Rejected(row.line, "", file=row.file).place
        what = f"{place} with {len(example.input_ids):,} tokens"
        ledger.first_too_long.setdefault("cut" if parts else "left out", what)
    draw = draw_of(first) if len(parts) > 1 or setting.config.option_orders else None
    for part in parts:
        if not kept.add(part, draw, None if isinstance(row, Rejected) else row.score):
            ledger.rows_duplicate += 1
            continue
        ledger.count(part, _counted_bos(setting.tokenizer))
        ledger.rows_cut += bool(fitted.cut)
        ledger.rows_cut_prompt += fitted.cut == "prompt"


def _counted_bos(tokenizer: Tokenizer) -> int | None:
    """Gives BOS where nothing else is written with it."""
    return None if tokenizer.bos_id == tokenizer.eos_id else tokenizer.bos_id


def _refuse_double_bos(setting: Setting, row: AnyRow, example: Example) -> None:
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
