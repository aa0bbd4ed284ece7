"""Several texts in one model, each as long as it is: they join, grow token by token, and leave.

What a text has in common with another that stands here, or that stood last in a free slot, is not read again. Knows ids
and logits; not how a token is chosen, nor its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor

from litft.model.attention import KVCache
from litft.model.gpt import GPT

LEAST_SHARED = 16  # tokens; to read fewer again costs no more than to attend to a past


class Row:
    """One text of a batch.

    Attributes:
        ids: prompt and answer so far.
        filled: how many of them have their keys and values in the cache, from the first on.
        reach: how many tokens it may have in the end.
        has_begun: whether its prompt is read, so that it grows with the others.
        left_at: when it left, by a clock of the batch; 0 for never.
    """

    def __init__(self, prompt_ids: Sequence[int], reach: int) -> None:
        """Begins with a prompt."""
        self.ids, self.filled, self.reach, self.has_begun, self.left_at = list(prompt_ids), 0, reach, False, 0

    def push(self, token_id: int) -> None:
        """Takes in a token of the answer; all before it are read."""
        self.ids.append(token_id)
        self.filled, self.has_begun = len(self.ids) - 1, True


class Batch:
    """The texts and their keys and values; those that grow stand first, so that one forward pass takes them as a block.

    Behind those that grow stands at most one that is still reading its prompt, then those that have left: their keys
    and values stay until the slot is needed.

    Attributes:
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
        self.slots, self._running, self._clock = slots, 0, count(1)
        self._places = [Row((), 0) for _ in range(slots)]  # what stands in each row of the cache

    @property
    def rows(self) -> list[Row]:
        """The texts, in the order of the cache's rows. At most the last one is still reading its prompt."""
        return self._places[: self._running]

    @property
    def growing(self) -> list[Row]:
        """The texts whose prompts are read."""
        return [row for row in self.rows if row.has_begun]

    def join(self, row: Row) -> None:
        """Takes in a text; there must be a slot, and no other may be reading its prompt.

        It takes the slot of the text that it goes on from, if that one has left, else the one that was left first.
        """
        place, left = self._running, self._places[self._running :]
        source, shared = self._nearest(row)
        goes_on = source in left and shared == source.filled
        slot = source if goes_on else min(left, key=lambda each: each.left_at)
        self._swap(place, self._places.index(slot))
        if shared and source is not slot:
            self._cache.copy(self._places.index(source), place, shared)
        self._places[place], row.filled = row, shared
        self._running += 1

    def leave(self, row: Row) -> None:
        """Lets a text go; its place is taken by the last that grows, and that one's by the one that reads."""
        place, growing = self._places.index(row), len(self.growing)
        for last in (growing - 1, self._running - 1):
            if place < last:
                self._swap(place, last)
                place = last
        self._running -= 1
        row.left_at = next(self._clock)

    def read(self, most: int) -> Tensor | None:
        """Reads up to `most` ids of the last row's prompt.

        Returns:
            Logits (1, 1, V) of what follows the prompt; None where some of it is left.
        """
        row = self.rows[-1]
        row.filled = min(row.filled, len(row.ids) - 1)  # the last one again, where what came of it was lost
        ids = row.ids[row.filled : row.filled + most]
        logits = self._forward([row], [ids], 1)
        row.filled += len(ids)
        return logits if row.filled == len(row.ids) else None

    def grow(self, ahead: Sequence[Sequence[int]] = ()) -> Tensor:
        """Reads what is unread of each text that grows; that must be as much of each.

        Args:
            ahead: for each text ids that may follow, as many for each. They are read too, and do not become part of it.

        Returns:
            Logits (B, 1 + N, V) of what follows each text, and each of the N ids ahead of it.
        """
        rows = self.growing
        ahead = ahead or [()] * len(rows)
        ids = [[*row.ids[row.filled :], *more] for row, more in zip(rows, ahead, strict=True)]
        return self._forward(rows, ids, 1 + len(ahead[0]))

    @torch.no_grad()
    def _forward(self, rows: list[Row], ids: list[list[int]], last: int) -> Tensor:
        """Reads ids of neighbouring rows, behind what is filled: logits (B, last, V) of what follows the last ones."""
        first = self._places.index(rows[0])
        cache = self._cache.part(first, first + len(rows))
        cache.filled.copy_(torch.tensor([row.filled for row in rows]))
        cache.reach.copy_(torch.tensor([row.reach for row in rows]))
        hidden = self._model(torch.tensor(ids, device=self.device), cache)
        return self._model.head(hidden[:, -last:])

    def _nearest(self, row: Row) -> tuple[Row, int]:
        """Gives the text with which a new one has most in common, and how many tokens of it need not be read."""
        most = len(row.ids) - 1  # what follows the last is wanted, so that one is read
        shared = [min(self._common(text, row), most) for text in self._places]
        best = max(range(self.slots), key=shared.__getitem__)
        return self._places[best], shared[best] if shared[best] >= min(LEAST_SHARED, most) else 0

    def _common(self, text: Row, other: Row) -> int:
        """Counts the tokens of a text, from the first on, whose keys and values are those of another's."""
        if not all(rope.turns_alike(text.reach, other.reach) for rope in self._model.ropes.values()):
            return 0
        pairs = list(zip(text.ids[: text.filled], other.ids, strict=False))
        return next((at for at, (one, two) in enumerate(pairs) if one != two), len(pairs))

    def _swap(self, one: int, other: int) -> None:
        """Exchanges the texts of two places."""
        if one != other:
            pair = self._places[one], self._places[other]
            self._cache.swap(one, other, max(row.filled for row in pair))
            self._places[other], self._places[one] = pair
