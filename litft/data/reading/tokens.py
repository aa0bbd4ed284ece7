"""Rows of token ids with labels: which token a label names, and from labels to the mask of what is learned.

Two conventions are in use. A label may name the token at its own place, and the loss shifts (Lit-GPT, Hugging Face); or
the token after it, and the loss compares as they stand. Read the wrong way, a model learns to repeat its input, so the
rows themselves decide, and what they leave open is refused. Knows no files.

Source: Lit-GPT `scripts/prepare_alpaca.py` (IGNORE_INDEX -1); torch `cross_entropy` (ignore_index -100); the shifted
form is that of `pack` in Weights & Biases' "How to Fine-Tune an LLM, Part 1".
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from litft.data.reading.faults import kind_of, missing_field, shown
from litft.data.reading.rows import Rejected, TokenRow

Place = Literal["same", "next"]
Ints = NDArray[np.int64]

IGNORED = {-1: "Lit-GPT", -100: "Hugging Face"}
LARGEST_ID = 2**31 - 1


@dataclass(frozen=True)
class Labelled:
    """One row as it was read, padding taken off.

    Attributes:
        line: where it begins.
        ids: (T,), T at least 1.
        labels: (T,); None where the row has none.
    """

    line: int
    ids: Ints
    labels: Ints | None

    @property
    def fits_same(self) -> bool:
        """Whether each label names the token at its own place."""
        return self.labels is None or bool(np.all((self.labels < 0) | (self.labels == self.ids)))

    @property
    def fits_next(self) -> bool:
        """Whether each label names the token after it; the last one names a token that only it holds."""
        if self.labels is None:
            return True
        inner = self.labels[:-1]
        return bool(np.all((inner < 0) | (inner == self.ids[1:])))


def read_row(line: int, values: Mapping[str, Any]) -> Labelled | Rejected:
    """Reads `input_ids`, and `labels` and `attention_mask` where they are there.

    Args:
        line: where the row begins.
        values: lists of whole numbers, or tensors.
    """
    if "input_ids" not in values:
        return Rejected(line, missing_field("input_ids", values))
    parts: dict[str, Ints] = {}
    for name in ("input_ids", "labels", "attention_mask"):
        if values.get(name) is not None:
            part = _whole_numbers(values[name], may_be_bool=name == "attention_mask")
            if isinstance(part, str):
                return Rejected(line, f'"{name}" is {part}, not a flat list of whole numbers')
            parts[name] = part
    if "input_ids" not in parts:
        return Rejected(line, '"input_ids" is null, not a flat list of whole numbers')
    fault = _fault(parts)
    if fault is not None:
        return Rejected(line, fault)
    ids, labels = parts["input_ids"], parts.get("labels")
    real = parts["attention_mask"] == 1 if "attention_mask" in parts else np.full(len(ids), True)
    return Labelled(line, ids[real], None if labels is None else labels[real])


def token_row(row: Labelled, place: Place) -> TokenRow | Rejected:
    """Turns labels into the mask of tokens to be predicted.

    The first token is never one, for nothing stands before it; tokens behind the last target are left out, for nothing
    is learned from them.

    Args:
        row: as read.
        place: which token a label names. A row without labels is learned as a whole.
    """
    if not (row.fits_same if place == "same" else row.fits_next):
        return Rejected(row.line, _misfit(row, place))
    ids = row.ids
    if row.labels is None:
        mask = np.full(len(ids), True)
    elif place == "same":
        mask = row.labels >= 0
    else:
        mask = np.concatenate([[False], row.labels >= 0])
        ids = np.append(ids, max(row.labels[-1], 0))
    mask[0] = False
    targets = np.flatnonzero(mask)
    length = int(targets[-1]) + 1 if len(targets) else len(row.ids)
    return TokenRow(row.line, array("i", ids[:length].tolist()), mask[:length].tobytes())


def labels_of(row: TokenRow, place: Place, ignored: int) -> tuple[list[int], list[int]]:
    """Gives ids and labels that `token_row` reads back as this row.

    Args:
        row: T tokens.
        place: which token a label is to name.
        ignored: the label of a token that is not learned.

    Returns:
        Two lists of T numbers, or of T - 1 where a label names the next token.
    """
    ids = row.input_ids.tolist()
    labels = [number if bit else ignored for number, bit in zip(ids, row.mask, strict=True)]
    return (ids, labels) if place == "same" else (ids[:-1], labels[1:])


def _whole_numbers(values: Any, may_be_bool: bool) -> Ints | str:
    """Gives a flat list or tensor as an array; or what it is, where it is none or holds anything but whole numbers."""
    listed = values
    if not isinstance(values, list):
        try:
            numbers = np.asarray(values)
        except (ValueError, TypeError, RuntimeError):
            return f"a {kind_of(values)} that holds no numbers"
        if numbers.ndim == 0:
            return kind_of(values)
        if numbers.ndim == 1 and numbers.dtype.kind == "i":
            return numbers.astype(np.int64)
        listed = numbers.tolist()
    # The library would take true among numbers for 1.
    kinds = set(map(type, listed))
    if list in kinds:
        return "a list of lists"
    if strange := kinds - ({int, bool} if may_be_bool else {int}):
        return f"a list that holds {kind_of(next(each for each in listed if type(each) in strange))}"
    try:
        return np.array(listed, dtype=np.int64)
    except OverflowError:
        return f"a list that holds {shown(max(listed, key=abs))}"


def _fault(parts: dict[str, Ints]) -> str | None:
    """Says why the parts of a row do not belong together; None where they do."""
    ids = parts["input_ids"]
    for name, part in parts.items():
        if len(part) != len(ids):
            return f'"{name}" has {len(part)} numbers where "input_ids" has {len(ids)}'
    mask, labels = parts.get("attention_mask"), parts.get("labels")
    if mask is not None and not set(np.unique(mask).tolist()) <= {0, 1}:
        return f'"attention_mask" holds {int(mask.max())}; expected 0 and 1'
    if not len(ids) or (mask is not None and not mask.any()):
        return '"input_ids" is empty'
    if mask is not None and np.any(np.diff(np.flatnonzero(mask)) > 1):
        return '"attention_mask" leaves tokens out in the middle'
    if ids.min() < 0 or ids.max() > LARGEST_ID:
        return f'"input_ids" holds {int(ids.min() if ids.min() < 0 else ids.max())}, which is no token id'
    wrong = [] if labels is None else [number for number in np.unique(labels).tolist() if number < 0]
    wrong = [number for number in wrong if number not in IGNORED]
    return f'"labels" holds {wrong[0]}; expected token ids, -1 or -100' if wrong else None


def _misfit(row: Labelled, place: Place) -> str:
    """Names the first label that does not fit; where the other convention fits as little, for both."""
    if row.fits_same or row.fits_next:
        return _misfit_of(row, place)
    return f"{_misfit_of(row, 'same')}; {_misfit_of(row, 'next')}"


def _misfit_of(row: Labelled, place: Place) -> str:
    """Names the first label that does not fit a convention."""
    assert row.labels is not None
    named = row.ids if place == "same" else np.append(row.ids[1:], row.labels[-1])
    index = int(np.flatnonzero((row.labels >= 0) & (row.labels != named))[0])
    which = "the token there" if place == "same" else "the token after it"
    return f"label {index + 1} is {row.labels[index]}, but {which} is {named[index]}"
