"""Speculative decoding: a small model guesses some tokens, and the large one reads all of them in one pass.

A pass over a few tokens takes the time of a pass over one, which is that of reading the weights. How guesses are taken
leaves the large model's own distribution exactly as it is. Knows no text.

Source: arXiv 2211.17192, and 2302.01318.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from litft.errors import GenerationError
from litft.generate.batch import Batch, Row
from litft.generate.sample import Chooser, chances_of, draw_tokens
from litft.model.gpt import GPT


@dataclass
class Draft:
    """A small model with the ids of a large one, and how well it has guessed.

    Attributes:
        model: in evaluation mode.
        tokens: how many it guesses before the large model is asked.
        guessed, taken: tokens so far.
    """

    model: GPT
    tokens: int
    guessed: int = 0
    taken: int = 0

    def __post_init__(self) -> None:
        """Refuses to guess nothing.

        Raises:
            GenerationError: `tokens` is below 1.
        """
        if self.tokens < 1:
            raise GenerationError(f"draft_tokens is {self.tokens}; it must be at least 1.")


@dataclass(frozen=True)
class Guesses:
    """What may follow each of B texts.

    Attributes:
        ids: N of each.
        chances: (B, N, V), of every token by the draft, each drawn by its own.
    """

    ids: list[list[int]]
    chances: Tensor


class Drafter:
    """The draft's own batch, kept in step with the large model's: the same texts in the same order."""

    def __init__(self, draft: Draft, slots: int, room: int, vocab_size: int) -> None:
        """Allocates its cache.

        Args:
            draft: who guesses.
            slots, room: as of the large model's batch.
            vocab_size: V of the large model; a draft may pad its own to another.
        """
        self._draft, self._room, self._vocab_size = draft, room, vocab_size
        self._batch = Batch(draft.model, slots, room)
        self.cache_bytes = self._batch.cache_bytes
        self._own: dict[Row, Row] = {}

    def join(self, row: Row) -> None:
        """Takes in a text."""
        self._own[row] = Row(self._known(row.ids), row.reach)
        self._batch.join(self._own[row])

    def leave(self, row: Row) -> None:
        """Lets a text go."""
        for each in self._own:  # of all: which one moves depends on which ones grow
            if each.has_begun:
                self._follow(each)
        self._batch.leave(self._own.pop(row))

    def read(self, row: Row, most: int) -> None:
        """Reads a prompt as far as the large model will with its next `most` ids."""
        wanted = min(row.filled + most, len(row.ids)) - self._own[row].filled
        if wanted > 0:
            self._batch.read(wanted)

    def guess(self, rows: Sequence[Row], choosers: Sequence[Chooser]) -> Guesses:
        """Gives what may follow the texts that grow.

        All get as many; near the end of the context that is fewer than asked for.
        """
        own, ids, chances = [self._follow(row) for row in rows], [list[int]() for _ in rows], list[Tensor]()
        assert own == self._batch.growing
        for _ in range(min(self._draft.tokens, self._room - max(len(row.ids) for row in rows))):
            logits = self._batch.grow()[:, -1]
            logits = F.pad(logits, (0, self._vocab_size - logits.shape[-1]), value=-torch.inf)  # also cuts
            chances.append(chances_of(logits, choosers, ids))
            for row, guessed, token in zip(own, ids, draw_tokens(chances[-1], choosers).tolist(), strict=True):
                guessed.append(token)
                row.push(token)
        return Guesses(ids, torch.stack(chances, dim=1))

    def take(self, logits: Tensor, guesses: Guesses, choosers: Sequence[Chooser]) -> list[list[int]]:
        """Gives the tokens that follow each text: guesses as far as they hold, and one of the large model's own.

        Args:
            logits: (B, N + 1, V) of the large model, which has read the guesses.
            guesses: N of each text.
            choosers: of the texts.
        """
        many = range(logits.shape[1])
        ahead = [ids[:at] for ids in guesses.ids for at in many]
        chances = chances_of(logits.flatten(0, 1), [chooser for chooser in choosers for _ in many], ahead)
        rows = zip(guesses.ids, chances.view(logits.shape), guesses.chances, choosers, strict=True)
        taken = [taken_of(*row) for row in rows]
        self._draft.guessed += sum(map(len, guesses.ids))
        self._draft.taken += sum(len(ids) - 1 for ids in taken)
        return taken

    def _follow(self, row: Row) -> Row:
        """Gives the draft's copy of a text that grows, as the large model left it.

        Where all guesses were taken, the draft has not read the last of them; so it reads the last two ids in any case,
        and all texts are read alike.
        """
        own = self._own[row]
        own.ids, own.filled, own.has_begun = self._known(row.ids), len(row.ids) - 2, True
        return own

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Gives ids as the draft can read them: it may lack the last ones, which are padding, as good as never said."""
        last = self._draft.model.config.padded_vocab_size - 1
        return [min(number, last) for number in ids]


def taken_of(ids: Sequence[int], chances: Tensor, guessed: Tensor, chooser: Chooser) -> list[int]:
    """Chooses by the model's chances p, with the help of ids that were drawn by a draft's chances q.

    A guess x is taken with the chance min(1, p(x) / q(x)). In the place of the first that is not, a token is drawn by
    max(0, p - q); behind the last, by p.

    Args:
        ids: N of them.
        chances: p (N + 1, V).
        guessed: q (N, V).
        chooser: of the text, a source of chance.

    Returns:
        From 1 to N + 1 tokens.
    """
    places = torch.arange(len(ids), device=chances.device), torch.tensor(ids, device=chances.device)
    dice = torch.rand(len(ids), generator=chooser.generator, device=chances.device)
    is_missed = (dice * guessed[places] >= chances[places]).tolist()
    at = is_missed.index(True) if True in is_missed else len(ids)
    own = chances[at]
    if at < len(ids):
        left = (own - guessed[at]).clamp(min=0)
        own = left if left.any() else own  # rounding may leave nothing where both are nearly alike
    return [*ids[:at], int(draw_tokens(own[None], [chooser]))]


def room_with(draft: Draft, room: int, context: int) -> int:
    """Gives how many tokens a cache must hold for texts of `room`, so that guesses may reach behind their end.

    Args:
        draft: who guesses.
        room: of the longest text.
        context: of the large model.

    Raises:
        GenerationError: the draft's own context is smaller than the room.
    """
    longest = draft.model.config.block_size
    if longest < room:
        raise GenerationError(
            f"The draft {draft.model.config.name} reads at most {longest} tokens, and {room} are asked for with the "
            "answer; ask for fewer, or go without the draft."
        )
    return min(room + draft.tokens, context, longest)
