"""What a person reads at the end of a preparation: what became of the rows, the first of them, what to type next.

Knows no files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from litft.config.model import ModelConfig
from litft.data.ledger import Ledger, bars
from litft.data.reading.faults import seen
from litft.data.store import TEST_FILE
from litft.text.tokenizer import Tokenizer

SHOWN_CHARACTERS = 240  # at each end of a text that is cut in the middle

# Names of the manifest that the first line says in words.
_IN_WORDS = ("rows_read", "rows_rejected", "rows_duplicate", "rows_dropped", "rows_kept_train", "rows_kept_test")


def summary(ledger: Ledger, parts: Iterable[Mapping[str, Tensor]], model: ModelConfig, longest: int) -> str:
    """Gives what became of the rows, as lines to read; numbers that are 0 are in the manifest alone.

    Args:
        ledger: the counts.
        parts: the rows that are written.
        model: whose context bounds them.
        longest: tokens that a row may have.
    """
    cells = {
        name.replace("_", " "): f"{value:.1%}" if isinstance(value, float) else f"{value:,}"
        for name, value in ledger.counts().items()
        if name not in _IN_WORDS and (value or isinstance(value, float))
    }
    if ledger.bos:
        cells["BOS in a row"] = ", ".join(f"{count}: {rows:,} rows" for count, rows in sorted(ledger.bos.items()))
    cells["lengths"] = _lengths(torch.cat([part["offsets"].diff() for part in parts]))
    whose = f"  {longest:,} tokens are the model's context" if longest == model.block_size else ""
    cells[f"0 to {longest:,}"] = f"|{bars(ledger.lengths)}|{whose}"
    wide = max(map(len, cells))
    return "\n".join([f"  {_in_words(ledger)}", *(f"  {name:<{wide}}  {text}" for name, text in cells.items())])


def _in_words(ledger: Ledger) -> str:
    """Says where each row went."""
    made = ledger.rows_split + ledger.rows_added
    places = {
        "to train": ledger.rows_kept_train,
        "held out": ledger.rows_kept_test,
        "not used": len(ledger.rejected),
        "equal to another": ledger.rows_duplicate,
        "too long": ledger.rows_dropped,
    }
    went = ", ".join(f"{count:,} {what}" for what, count in places.items() if count)
    rows = "row" if ledger.rows_read == 1 else "rows"
    return f"{ledger.rows_read:,} {rows} read{f', {made:,} more made of them' if made else ''}: {went}"


def _lengths(lengths: Tensor) -> str:
    """Says how long rows are, int64 (n,)."""
    return f"shortest {int(lengths.min()):,}, median {int(lengths.median()):,}, longest {int(lengths.max()):,} tokens"


def first_row(tokenizer: Tokenizer, ends: Collection[int], part: Mapping[str, Tensor]) -> str:
    """Shows the first row as it will be trained: its prompt, and what carries loss, end token included.

    Args:
        tokenizer: which reads it.
        ends: ids at which generation stops.
        part: the rows.
    """
    end = int(part["offsets"][1])
    ids, mask = part["input_ids"][:end], part["target_mask"][:end]
    first = int(mask.int().argmax())
    prompt, answer = (tokenizer.decode(piece.tolist()) for piece in (ids[:first], ids[first:][mask[first:]]))
    how = "then the end token" if int(ids[-1]) in ends else "cut, without an end token"
    return (
        f"first row, {end:,} tokens\n  the prompt, {first:,} tokens:\n{_block(prompt)}\n"
        f"  trained, {int(mask.count_nonzero()):,} tokens, {how}:\n{_block(answer)}"
    )


def _block(text: str) -> str:
    """Gives a text in lines of its own, cut in the middle, characters that are not seen written out."""
    left = len(text) - 2 * SHOWN_CHARACTERS
    if left > 0:
        text = f"{text[:SHOWN_CHARACTERS]} [... {left:,} characters ...] {text[-SHOWN_CHARACTERS:]}"
    return "\n".join(f"    | {seen(line)}".rstrip() for line in text.split("\n"))


def next_steps(destination: Path, files: Collection[str], checkpoint_dir: Path | str = "CHECKPOINT") -> str:
    """Says what to type once data is prepared; a run needs rows that are held out.

    Args:
        destination: the folder.
        files: names of its files.
        checkpoint_dir: the model, where it is known.
    """
    look = f"Next: litft inspect {destination}"
    if TEST_FILE not in files:
        return (
            f"{look}\nNo row is held out, and a run needs some: before litft finetune, prepare two rows or more with "
            "--test_split_fraction above 0."
        )
    return f"{look}\n  or: litft finetune lora --checkpoint_dir {checkpoint_dir} --data_dir {destination}"
