"""The folder that a mix becomes: tensors, meta, manifest, and what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.data.mixing.parts import Part, Rows
from litft.data.mixing.removed import REMOVED_FILE, Removed
from litft.data.mixing.scores import joined_scores, scores_meta
from litft.data.paths import MODEL_PLACE
from litft.data.publish import publish
from litft.data.store import TEST_FILE, TRAIN_FILE
from litft.data.vocabulary import TOKENIZER_DIR
from litft.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Mixed:
    """What a mix is made of.

    Attributes:
        parts: the folders.
        held_out, left, chosen: of each part, the held-out rows, the training rows that no filter took, and those drawn.
        order: of all drawn rows, their places part by part, int64 (n,).
        removed: all that was left out.
        notes: what filters tell beside that, and of how many rows.
        settings: what the user asked for, in plain types.
    """

    parts: list[Part]
    held_out: list[Rows]
    left: list[Rows]
    chosen: list[Rows]
    order: Tensor
    removed: Removed
    notes: dict[str, int]
    settings: dict[str, Any]

    def meta(self) -> dict[str, Any]:
        """Gives what a finetuning must know of the mix."""
        trained = {part.train.meta["train_on"] for part in self.parts}
        meta = {key: value for key, value in self.parts[0].train.meta.items() if key != "score"}
        return {
            **meta,
            "dataset": "mix",
            "source_names": _names(self.parts),
            "max_seq_length": max(part.train.meta["max_seq_length"] for part in self.parts),
            "train_on": trained.pop() if len(trained) == 1 else "as each source",
            "seed": self.settings["seed"],
            "order": self.settings["order"],
            **scores_meta(self.parts),
        }

    def accounts(self) -> list[dict[str, Any]]:
        """Says of each part what came in, what was left out of it, and what was taken."""
        return [
            self._account(part, left, chosen)
            for part, left, chosen in zip(self.parts, self.left, self.chosen, strict=True)
        ]

    def _account(self, part: Part, left: Rows, chosen: Rows) -> dict[str, Any]:
        """Says so of one part."""
        account = {
            "data_dir": part.name,
            "sha256": part.manifest["files"][TRAIN_FILE]["sha256"],
            "rows": len(part.train),
            "removed": self.removed.counts(part, TRAIN_FILE),
            "rows_left": len(left),
            "rows_taken": len(chosen),
            "rows_different": len(set(chosen.numbers.tolist())),
            "target_tokens_taken": int(chosen.target_counts.sum()),
        }
        if TEST_FILE in part.files:
            account["held_out"] = {
                "rows": len(part.files[TEST_FILE]),
                "removed": self.removed.counts(part, TEST_FILE),
                "rows_taken": sum(len(rows) for rows in self.held_out if rows.part is part),
            }
        return account


def write_mixed(mixed: Mixed, destination: Path, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Writes the folder, once all that goes into it is known.

    Args:
        mixed: what it is made of.
        destination: where it goes; other files there stay.
        tokenizer: of the rows, for the questions in `removed.jsonl`; None where it is not at hand.

    Returns:
        The manifest.

    Raises:
        DataError: it cannot be written.
    """
    names, meta = _names(mixed.parts), mixed.meta()
    parts = {TRAIN_FILE: _gather(mixed.chosen, names, mixed.order)}
    if any(map(len, mixed.held_out)):
        parts[TEST_FILE] = _gather(mixed.held_out, names, None)
    manifest = {
        **meta,
        **{key: value for key, value in mixed.parts[0].manifest.items() if key == MODEL_PLACE},
        "settings": mixed.settings,
        "parts": mixed.accounts(),
        "notes": mixed.notes,
        "sources": {part.name: part.manifest["sources"] for part in mixed.parts},
    }
    own = mixed.parts[0].folder / TOKENIZER_DIR
    texts = {REMOVED_FILE: mixed.removed.text(tokenizer)}
    files = publish(destination, parts, meta, manifest, own if own.is_dir() else None, texts)
    return {**manifest, "files": files}


def _names(parts: Sequence[Part]) -> list[str]:
    """Gives what the sources are called, each once."""
    return list(dict.fromkeys(name for part in parts for name in part.sources))


def _gather(rows: Sequence[Rows], names: Sequence[str], order: Tensor | None) -> dict[str, Tensor]:
    """Gives rows as the tensors of `save_prepared`, in an order, or part by part."""
    lengths = torch.cat([there.lengths for there in rows])
    order = torch.arange(len(lengths)) if order is None else order
    entries = [(there.data, number) for there in rows for number in there.numbers.tolist()]
    pairs = [data.row(number) for data, number in (entries[index] for index in order.tolist())]
    sources = torch.tensor([names.index(name) for there in rows for name in there.source_names])
    return {
        "input_ids": torch.cat([ids for ids, _ in pairs]),
        "target_mask": torch.cat([mask for _, mask in pairs]),
        "offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths[order]]).cumsum(0),
        "source": sources[order],
        **{name: score[order] for name, score in joined_scores(rows).items()},
    }
