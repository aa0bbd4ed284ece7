"""Several texts in one model, each as long as it is: they join, grow by a token at a time, and leave.

Knows ids and logits; not how a token is chosen, nor its text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from litft.model.attention import KVCache
from litft.model.gpt import GPT


class Row:
    """One text of a batch.

    Attributes:
        unread: its ids that the model has not read yet: all of a prompt at first, later the newest token.
        filled: how many it has read.
        reach: how many tokens it may have in the end.
        has_begun: whether its prompt is read, so that it grows by a token with the others.
    """

    def __init__(self, prompt_ids: Sequence[int], reach: int) -> None:
        """Begins with a prompt."""
        self.unread, self.filled, self.reach, self.has_begun = list(prompt_ids), 0, reach, False


class Batch:
    """The texts and their keys and values; those that grow stand first, so that one forward pass takes them as a block.

    Attributes:
        rows: the texts, in the order of the cache's rows. At most the last one is still reading its prompt.
        slots: how many there may be.
        device: of the model.
        cache_bytes: memory of the keys and values.
    """

    def __init__(self, model: GPT, slots: int, room: int) -> None:
        """Allocates room for `slots` texts of up to `room` tokens."""
        device = next(model.parameters()).device
        with torch.no_grad():
            some = torch.zeros((1, 1), dtype=torch.int64, device=device)
            dtype = model.transformer["wte"](some).dtype  # a method's own parameters may be of another
        self._model, self.device = model, device
        self._cache = KVCache(model.config, slots, room, device, dtype)
        self.cache_bytes = self._cache.keys.nbytes + self._cache.values.nbytes
        self.slots, self.rows = slots, list[Row]()

    def join(self, row: Row) -> None:
        """Takes in a text; there must be a slot, and no other may be reading its prompt."""
        self._cache.reach[len(self.rows)] = row.reach
        self.rows.append(row)

    def leave(self, row: Row) -> None:
        """Lets a text go; its place is taken by the last that grows, and that one's by the one that reads."""
        place, growing = self.rows.index(row), len(self.growing)
        for last in (growing - 1, len(self.rows) - 1):
            if place < last:
                self._cache.move(last, place)
                self.rows[place], place = self.rows[last], last
        self.rows.pop()

    @property
    def growing(self) -> list[Row]:
        """The texts whose prompts are read."""
        return self.rows[: len(self.rows) - 1] if self.rows and not self.rows[-1].has_begun else self.rows[:]

    def read(self, most: int) -> Tensor | None:
        """Reads up to `most` ids of the last row's prompt.

        Returns:
            Logits (1, V) of what follows the prompt; None where some of it is left.
        """
        row = self.rows[-1]
        logits = self._forward([row], most)
        row.has_begun = not row.unread
        return logits if row.has_begun else None

    def grow(self) -> Tensor:
        """Reads the newest token of each text that grows: logits (B, V), in their order."""
        return self._forward(self.growing, 1)

    @torch.no_grad()
    def _forward(self, rows: list[Row], most: int) -> Tensor:
        """Reads up to `most` ids of neighbouring rows: logits (B, V) of what follows. Where it fails, none are read."""
        first, ids = self.rows.index(rows[0]), [row.unread[:most] for row in rows]
        cache = self._cache.part(first, first + len(rows))
        cache.filled.copy_(torch.tensor([row.filled for row in rows]))
        logits = self._model.head(self._model(torch.tensor(ids, device=self.device), cache)[:, -1])
        for row, read in zip(rows, ids, strict=True):
            row.unread, row.filled = row.unread[most:], row.filled + len(read)
        return logits
