"""The model that is served, with what its APIs share: requests to the engine, and waiting for what comes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from fastapi import Request as HttpRequest
from fastapi import Response
from starlette.requests import ClientDisconnect

from litft.api import LLM
from litft.errors import GenerationError
from litft.generate.request import Answer, Request, Token
from litft.generate.sample import Sampling
from litft.serve.door import GONE, VISIT, Visit
from litft.serve.fields import Bodies, Body, read_body, read_fields
from litft.serve.long_texts import LongTexts
from litft.serve.metrics import Metrics
from litft.serve.refusal import Refusal, to_json
from litft.serve.scoring import score
from litft.serve.worker import Ticket, Worker

Result = TypeVar("Result")

# HELM writes 0 as 1e-7; so little heat is none.
COLDEST = 1e-5
LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Served:
    """One model and how it is offered.

    Attributes:
        llm: the model, its tokenizer and its prompt style.
        worker: who answers.
        metrics: who counts.
        names: what clients may call the model, the first one being told.
        room: tokens of a prompt and its answer together.
        most_new_tokens: of an answer.
        bodies: of requests, as they are read.
        wraps_prompts: whether /process puts prompts into the prompt style.
        logs_prompts: whether the log may have them.
        report: told what an operator should know.
        long_texts: who is reading one.
        created: when it was opened, in seconds since 1970.
    """

    llm: LLM
    worker: Worker
    metrics: Metrics
    names: tuple[str, ...]
    room: int
    most_new_tokens: int
    bodies: Bodies
    wraps_prompts: bool = False
    logs_prompts: bool = False
    report: Callable[[str], None] = lambda message: None
    long_texts: LongTexts = field(default_factory=LongTexts)
    created: int = field(default_factory=lambda: int(time.time()))

    async def read(self, request: HttpRequest, kind: type[Body]) -> Body:
        """Gives the fields of a request.

        Raises:
            Refusal: they cannot be used.
        """
        try:
            return read_fields(kind, await read_body(request.stream(), self.bodies))
        except ClientDisconnect as error:
            raise gone() from error

    async def encode(self, text: str, work: Callable[[], Result]) -> Result:
        """Does the work of encoding a text, beside the event loop where it is long.

        Raises:
            Refusal: too many long texts wait.
        """
        return await self.long_texts.work(len(text), work)

    async def ask(self, http: HttpRequest, requests: Sequence[Request], is_streamed: bool = False) -> Ticket:
        """Gives requests to the worker, and waits until they are taken.

        Args:
            http: the request they belong to; when it ends, so do they.
            requests: at least one.
            is_streamed: whether tokens are wanted as they come.

        Raises:
            Refusal: there is no room for them, or they cannot be answered.
        """
        ticket = self.worker.submit(requests, is_streamed)
        visit: Visit = http.scope[VISIT]
        visit.tickets.append(ticket)
        visit.prompt_tokens += sum(len(request.prompt_ids) for request in requests)
        await ticket.admitted()
        return ticket

    async def answers(self, http: HttpRequest, requests: Sequence[Request]) -> list[Answer]:
        """Gives whole answers.

        Raises:
            Refusal: there are none, or nobody waits for them any more.
        """
        if not requests:
            return []
        ticket = await self.ask(http, requests)
        waiting, leaving = asyncio.ensure_future(ticket.done()), asyncio.ensure_future(_until_gone(http))
        try:
            await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                raise gone()
            answers = waiting.result()
        finally:
            waiting.cancel()
            leaving.cancel()
        self.note_tokens(http, sum(len(answer.tokens) for answer in answers))
        return answers

    async def score(self, http: HttpRequest, ids: Sequence[int], candidates: int) -> list[Token]:
        """Gives what the tokens of a prompt are worth, without their texts.

        Raises:
            Refusal: there is no room for such work.
        """
        call = self.worker.call(partial(score, self.llm.model, ids, candidates))
        http.scope[VISIT].tickets.append(call)
        await call.done()
        return cast("list[Token]", call.result)

    def note_tokens(self, http: HttpRequest, count: int) -> None:
        """Notes for the log how many tokens a request was answered with."""
        http.scope[VISIT].answer_tokens += count

    def note_prompt(self, http: HttpRequest, prompt: str) -> None:
        """Notes the prompt for the log, if it may have it."""
        if self.logs_prompts:
            http.scope[VISIT].prompt += prompt

    def token_text(self, number: int) -> str:
        """Gives the text of one token that stands behind others; special ones as the tokenizer's file writes them."""
        tokenizer = self.llm.tokenizer
        if number in tokenizer.specials.values():
            return tokenizer.token_text(number)
        return tokenizer.decode_within([number])


def gone() -> Refusal:
    """Gives why nobody is answered who has left."""
    return Refusal(GONE, "The client has gone.")


async def _until_gone(http: HttpRequest) -> None:
    """Returns when the client has left."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


def sampling_of(temperature: float, top_p: float = 1.0, top_k: int = 0, **others: float | None) -> Sampling:
    """Gives the rule of sampling.

    Args:
        temperature: as good as 0 for the likeliest token every time.
        top_p: 1 for all.
        top_k: 0 or below for all.
        others: further fields of `Sampling`; None leaves its default.

    Raises:
        Refusal: a number is out of its range.
    """
    given: dict[str, Any] = {name: value for name, value in others.items() if value is not None}
    try:
        return Sampling(
            0.0 if 0 <= temperature < COLDEST else temperature,
            top_k if top_k > 0 else None,
            top_p if top_p != 1 else None,
            **given,
        )
    except GenerationError as error:
        raise Refusal(400, str(error)) from error


def seed_of(seed: int | None, index: int) -> int | None:
    """Gives the seed of one of several samples, so that they differ.

    Raises:
        Refusal: it is no 64-bit number.
    """
    if seed is None:
        return None
    if not -LARGEST_SEED - 1 <= seed <= LARGEST_SEED:
        raise Refusal(400, f"seed is {seed}; it must be a whole number of 64 bits.", "seed")
    return (seed + index) % LARGEST_SEED


def spoken(answer: Answer) -> list[Token]:
    """Gives the tokens of an answer that say something: not the one that ended it, nor those of a stop text."""
    tokens = list(answer.tokens)
    while answer.finish == "stop" and tokens and not tokens[-1].text:
        tokens.pop()
    return tokens


def json_response(values: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Gives a response of JSON."""
    return Response(to_json(values), status, headers, "application/json")
