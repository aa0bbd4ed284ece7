"""Answers to many requests with one model: continuous batching. Requests join and leave between two tokens.

Synchronous: whoever calls `step` decides when; no threads, no network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from torch import Tensor

from litft.errors import GenerationError
from litft.generate.batch import Batch, Row
from litft.generate.draft import Draft, Drafter, room_with
from litft.generate.request import Answer, Candidate, Finish, Request, Token
from litft.generate.sample import Chooser, choose_tokens
from litft.model.gpt import GPT
from litft.text.stream import StreamDecoder
from litft.text.tokenizer import Tokenizer

READ_AT_ONCE = 512  # ids of prompts between two tokens of the texts that grow: a long prompt holds nobody up for long


@dataclass(eq=False)
class _Place:
    """What the engine keeps of an answer that runs."""

    answer: Answer
    row: Row
    chooser: Chooser
    decoder: StreamDecoder


class Engine:
    """One model that answers several requests at once.

    Attributes:
        slots: how many are answered at once; others wait.
        room: tokens of a prompt and its answer together.
        cache_bytes: memory of the keys and values.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        slots: int = 16,
        room: int | None = None,
        draft: Draft | None = None,
    ) -> None:
        """Allocates the cache.

        Args:
            model: in evaluation mode.
            tokenizer: the model's own.
            slots: requests answered at once.
            room: tokens a slot can hold, prompt and answer; None: the model's context.
            draft: a smaller model that guesses tokens ahead.

        Raises:
            GenerationError: the draft's context is too small for the room.
        """
        self.slots, self.room = slots, min(room or model.config.block_size, model.config.block_size)
        self._model, self._tokenizer = model, tokenizer
        held, self._drafter = self.room, None
        if draft:
            held = room_with(draft, self.room, model.config.block_size)
            self._drafter = Drafter(draft, slots, held, model.config.padded_vocab_size)
        self._batch = Batch(model, slots, held)
        self._waiting: deque[Answer] = deque()
        self._places: dict[Row, _Place] = {}
        self.cache_bytes = self._batch.cache_bytes + (self._drafter.cache_bytes if self._drafter else 0)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to answer."""
        return not self._waiting and not self._places

    @property
    def waiting(self) -> int:
        """How many requests wait for a slot."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many requests have a slot."""
        return len(self._places)

    def add(self, request: Request) -> Answer:
        """Takes a request; its answer grows with each `step`.

        Raises:
            GenerationError: it can never be answered: an empty prompt, one that fills the room, an id that is no token.
        """
        size, vocab_size = len(request.prompt_ids), self._model.config.padded_vocab_size
        if size == 0:
            raise GenerationError("The prompt is empty; give at least one token.")
        if request.max_new_tokens < 1:
            raise GenerationError(f"max_new_tokens is {request.max_new_tokens}; it must be at least 1.")
        if size >= self.room:
            raise GenerationError(
                f"The prompt has {size} tokens; {self._model.config.name} reads at most {self.room}, "
                "one of them generated."
            )
        wrong = next((number for number in request.prompt_ids if not 0 <= number < vocab_size), None)
        if wrong is not None:
            raise GenerationError(f"The prompt has the id {wrong}; the model knows ids from 0 to {vocab_size - 1}.")
        if not 0 <= request.top_logprobs <= vocab_size:
            raise GenerationError(f"top_logprobs is {request.top_logprobs}; it must be from 0 to {vocab_size}.")
        answer = Answer(request)
        self._waiting.append(answer)
        return answer

    def cancel(self, answer: Answer) -> None:
        """Ends an answer at once and frees its slot; one that is finished stays as it is."""
        if answer.finish is not None:
            return
        if answer in self._waiting:
            self._waiting.remove(answer)
        else:
            self._leave(next(place for place in self._places.values() if place.answer is answer))
        answer.finish = "cancelled"

    def run(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """Answers all of them and gives each answer in their order, as soon as it and those before it are done.

        Args:
            requests: taken as slots come free.

        Raises:
            GenerationError: as `add`.
        """
        source, given = iter(requests), deque[Answer]()
        try:
            while True:
                given += [self.add(request) for request in islice(source, max(self.slots - self.waiting, 0))]
                if not given:
                    return
                self.step()
                while given and given[0].finish is not None:
                    yield given.popleft()
        finally:
            for answer in given:
                self.cancel(answer)

    def iter_tokens(self, request: Request) -> Generator[Token, None, None]:
        """Answers one request, token by token; whoever stops reading cancels it.

        Raises:
            GenerationError: as `add`.
        """
        answer = self.add(request)
        try:
            while answer.finish is None:
                yield from [token for whose, token in self.step() if whose is answer]
        finally:
            self.cancel(answer)

    def step(self) -> list[tuple[Answer, Token]]:
        """Gives each request that runs a token, or more with a draft, and lets those that wait in where slots are free.

        A prompt is read in parts where it is long, so that the others go on meanwhile.

        Returns:
            The new tokens; none of a request whose prompt is not read yet.
        """
        made = list[tuple[Answer, Token]]()
        if growing := self._batch.growing:
            made += self._grow(growing)
        left = READ_AT_ONCE
        while left > 0 and (row := self._next_to_read()) is not None:
            before = row.filled
            if self._drafter:
                self._drafter.read(row, left)
            logits = self._batch.read(left)
            left -= row.filled - before
            if logits is not None:
                made += self._push([row], logits, choose_tokens(logits[:, -1], self._choosers([row]))[:, None].tolist())
        return made

    def _grow(self, rows: Sequence[Row]) -> list[tuple[Answer, Token]]:
        """Reads the newest token of each text, and what a draft guesses behind it."""
        choosers = self._choosers(rows)
        if self._drafter is None:
            logits = self._batch.grow()
            return self._push(rows, logits, choose_tokens(logits[:, -1], choosers)[:, None].tolist())
        guesses = self._drafter.guess(rows, choosers)
        logits = self._batch.grow(guesses.ids)
        return self._push(rows, logits, self._drafter.take(logits, guesses, choosers))

    def _choosers(self, rows: Sequence[Row]) -> list[Chooser]:
        """Gives how the tokens of texts are chosen."""
        return [self._places[row].chooser for row in rows]

    def _next_to_read(self) -> Row | None:
        """Gives the text whose prompt is to be read, from those that wait if a slot is free."""
        rows = self._batch.rows
        if rows and not rows[-1].has_begun:
            return rows[-1]
        if not self._waiting or len(rows) == self.slots:
            return None
        answer = self._waiting.popleft()
        request = answer.request
        ids = request.prompt_ids
        row = Row(ids, min(self.room, len(ids) + request.max_new_tokens))
        chooser = Chooser(request.sampling, request.seed, ids, self._model.config.padded_vocab_size, self._batch.device)
        decoder = StreamDecoder(self._tokenizer, request.stop, ids if request.continues else ())
        self._batch.join(row)
        if self._drafter:
            self._drafter.join(row)
        self._places[row] = _Place(answer, row, chooser, decoder)
        return row

    def _push(self, rows: Sequence[Row], logits: Tensor, chosen: Sequence[Sequence[int]]) -> list[tuple[Answer, Token]]:
        """Adds the tokens chosen for each row by its logits (B, N, V) to its answer, as far as that goes."""
        made, places = list[tuple[Answer, Token]](), [self._places[row] for row in rows]
        tops = [place.answer.request.top_logprobs for place in places]
        for row, token_id, logprob, top in _described(logits, chosen, tops):
            answer = places[row].answer
            if answer.finish is None:  # else it ended before this token
                made.append((answer, self._add_token(places[row], token_id, logprob, top)))
        for place in places:  # now that all texts have what was read of them
            if place.answer.finish is not None:
                self._leave(place)
        return made

    def _add_token(self, place: _Place, token_id: int, logprob: float, top: tuple[Candidate, ...]) -> Token:
        """Adds a token to an answer, and ends the answer where it is the last."""
        answer, request, decoder = place.answer, place.answer.request, place.decoder
        is_end = token_id in request.stop_ids
        text = "" if is_end else decoder.push(token_id)
        finish: Finish | None = None
        if is_end or decoder.stopped:
            finish = "stop"
        elif len(request.prompt_ids) + len(answer.tokens) + 1 == place.row.reach:
            finish = "length"
        place.row.push(token_id)
        place.chooser.push(token_id)
        if finish is not None:
            text += decoder.finish()
        token = Token(token_id, text, logprob, top)
        answer.tokens.append(token)
        answer.finish = finish
        return token

    def _leave(self, place: _Place) -> None:
        """Frees a slot."""
        self._batch.leave(place.row)
        if self._drafter:
            self._drafter.leave(place.row)
        del self._places[place.row]


def _described(
    logits: Tensor, chosen: Sequence[Sequence[int]], tops: Sequence[int]
) -> Iterator[tuple[int, int, float, tuple[Candidate, ...]]]:
    """Gives each token that was chosen by logits (B, N, V): its row, itself, its log-probability and the candidates."""
    rows = [row for row, ids in enumerate(chosen) for _ in ids]
    behind, tokens = [at for ids in chosen for at in range(len(ids))], [*chain.from_iterable(chosen)]
    logprobs = logits[rows, behind].float().log_softmax(dim=-1)  # (tokens, V)
    own = logprobs[range(len(tokens)), tokens].tolist()
    best = logprobs.topk(max(tops), dim=-1)
    for row, token, logprob, ids, values in zip(
        rows, tokens, own, best.indices.tolist(), best.values.tolist(), strict=True
    ):
        pairs = zip(ids[: tops[row]], values[: tops[row]], strict=True)
        yield row, token, logprob, tuple(Candidate(*pair) for pair in pairs)
