"""One thread that drives the engine, and what the event loop sees of it. Knows no HTTP and no text.

The thread writes answers, and the event loop reads them as they grow: a client that reads slowly finds its tokens in
its own answer, which has a longest length, and holds nobody up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from itertools import islice

from litft.errors import GenerationError
from litft.generate.engine import Engine
from litft.generate.request import Answer, Request, Token
from litft.serve.metrics import Metrics
from litft.serve.refusal import TOO_MANY, Refusal

Report = Callable[[str], None]

# A model that failed so often in a row is not ready, whatever it is asked.
MOST_FAILURES = 3
LONGEST_RETRY_SECONDS = 60
STOPPED = "The model has stopped; the server must be started again."


class Ticket:
    """The answers to one request of HTTP, as they grow.

    Attributes:
        answers: one for each prompt and sample, in the order they were asked for.
        is_streamed: whether each token is waited for, or the last one alone.
    """

    def __init__(self, requests: Sequence[Request], is_streamed: bool) -> None:
        """Begins; to be called in the event loop that reads it."""
        self.requests, self.is_streamed, self.count = tuple(requests), is_streamed, len(requests)
        self.answers: list[Answer] = []
        self.failure: Refusal | None = None
        self.started, self.loop = time.perf_counter(), asyncio.get_running_loop()
        self._news = asyncio.Event()

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.failure is not None or (
            len(self.answers) == len(self.requests) and all(answer.finish is not None for answer in self.answers)
        )

    def tell(self) -> None:
        """Wakes whoever waits; in the event loop."""
        self._news.set()

    async def admitted(self) -> None:
        """Waits until the engine has taken the requests.

        Raises:
            Refusal: it has not.
        """
        while len(self.answers) < len(self.requests) and self.failure is None:
            await self._wait()
        self._refuse_failed()

    async def done(self) -> list[Answer]:
        """Gives the answers once they are whole.

        Raises:
            Refusal: there will be none.
        """
        while not self.is_done:
            await self._wait()
        self._refuse_failed()
        return self.answers

    async def news(self) -> AsyncIterator[tuple[int, list[Token], bool]]:
        """Gives new tokens, with the number of their answer and whether they are its last.

        Raises:
            Refusal: the model failed meanwhile.
        """
        given = [0] * len(self.answers)
        left = set(range(len(self.answers)))
        while left:
            self._refuse_failed()
            for number in sorted(left):
                answer = self.answers[number]
                is_last = answer.finish is not None  # read first: a finished answer has all its tokens
                if is_last:
                    left.remove(number)
                new = answer.tokens[given[number] :]
                given[number] += len(new)
                if new or is_last:
                    yield number, new, is_last
            if left:
                await self._wait()

    async def _wait(self) -> None:
        """Waits for news; those that came since the last time count."""
        await self._news.wait()
        self._news.clear()

    def _refuse_failed(self) -> None:
        if self.failure is not None:
            raise self.failure


class Call(Ticket):
    """Other work for the engine's thread, such as what a prompt's own tokens are worth.

    Attributes:
        result: of the work; None until it is done.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        """Begins; to be called in the event loop that waits for it."""
        super().__init__((), False)
        self.work, self.count = work, 1
        self.result: object = None

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return self.failure is not None or self.result is not None


class Worker:
    """Owns the engine: all calls to it are made in its thread."""

    def __init__(self, engine: Engine, most_waiting: int, metrics: Metrics, report: Report) -> None:
        """Takes the engine; `start` begins to answer.

        Args:
            engine: nobody else's.
            most_waiting: answers that may wait for a slot.
            metrics: told of tokens and times.
            report: told when the model fails.
        """
        self._engine, self._metrics, self._report = engine, metrics, report
        self.most_at_once = engine.slots + most_waiting
        self._wake = threading.Condition()
        self._orders: list[Callable[[], None]] = []
        self._open: dict[Ticket, None] = {}  # those that are not done
        self._tickets: dict[Answer, Ticket] = {}  # of answers that grow or wait, in the order they came
        self._taken = 0  # answers that were asked for and are not at their end
        self._failures = 0
        self._is_draining = self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="litft-engine", daemon=True)
        metrics.gauge("litft_running", "Answers that grow.", lambda: engine.running)
        metrics.gauge("litft_waiting", "Answers that wait for a slot.", lambda: max(self._taken - engine.running, 0))
        metrics.gauge("litft_slots", "Answers that may grow at the same time.", lambda: engine.slots)
        metrics.gauge("litft_ready", "1 where requests are taken.", lambda: float(self.trouble is None))

    @property
    def trouble(self) -> str | None:
        """Why requests cannot be taken; None where they can."""
        if not self._thread.is_alive():
            return STOPPED
        if self._is_draining:
            return "The server is shutting down."
        if self._failures >= MOST_FAILURES:
            return f"The model has failed {self._failures} times in a row."
        return None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, requests: Sequence[Request], is_streamed: bool = False) -> Ticket:
        """Takes requests; to be called in an event loop.

        Args:
            requests: for one client, at least one.
            is_streamed: whether tokens are wanted as they come.

        Raises:
            Refusal: there is no room for them, or the server ends.
        """
        ticket = Ticket(requests, is_streamed)
        self._take(ticket, partial(self._admit, ticket))
        return ticket

    def call(self, work: Callable[[], object]) -> Call:
        """Takes work for the thread, between two tokens; to be called in an event loop.

        Args:
            work: what it gives is the result; it must not be None.

        Raises:
            Refusal: as `submit`.
        """
        call = Call(work)
        self._take(call, partial(self._do, call))
        return call

    def refuse_many(self, count: int) -> None:
        """Refuses what there will never be room for.

        Args:
            count: answers that one request asks for.

        Raises:
            Refusal: they are too many.
        """
        if count > self.most_at_once:
            raise Refusal(400, f"The request asks for {count} answers at once; this server takes {self.most_at_once}.")

    def _take(self, ticket: Ticket, order: Callable[[], None]) -> None:
        """Makes room for a ticket, or refuses it."""
        count = ticket.count
        self.refuse_many(count)
        with self._wake:
            if self._is_draining or not self._thread.is_alive():
                raise Refusal(503, str(self.trouble), code="unavailable", retry_after=LONGEST_RETRY_SECONDS)
            if self._taken + count > self.most_at_once:
                wait = min(max(round(self._metrics.mean("litft_answer_seconds")), 1), LONGEST_RETRY_SECONDS)
                message = f"{self._taken} answers are under way, which is all this server takes; ask again later."
                raise Refusal(TOO_MANY, message, code="rate_limit_exceeded", retry_after=wait)
            self._taken += count
            self._open[ticket] = None
            self._orders.append(order)
            self._wake.notify_all()

    def cancel(self, ticket: Ticket) -> None:
        """Frees what a client that has gone was using; nothing where it is done."""
        if not ticket.is_done:
            self._order(partial(self._drop, ticket, Refusal(499, "The client has gone.")))

    def drain(self) -> None:
        """Takes no more requests; those that were taken go on."""
        with self._wake:
            self._is_draining = True

    def wait_until_idle(self, seconds: float) -> bool:
        """Waits until all is answered, no longer than this; gives whether it is."""
        with self._wake:
            return self._wake.wait_for(lambda: self._taken == 0, seconds)

    def stop(self) -> None:
        """Ends the thread; whoever still waits is told so."""
        with self._wake:
            self._is_draining = self._is_stopping = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def _order(self, order: Callable[[], None]) -> None:
        with self._wake:
            self._orders.append(order)
            self._wake.notify_all()

    def _run(self) -> None:
        """The thread."""
        try:
            while self._turn():
                pass
        except Exception:
            self._end(Refusal(500, STOPPED, code="unavailable"))
            raise
        self._end(Refusal(503, "The server is shutting down.", code="unavailable"))

    def _turn(self) -> bool:
        """Does what was ordered and one step of the engine; gives whether to go on."""
        with self._wake:
            self._wake.wait_for(lambda: self._orders or self._is_stopping or not self._engine.is_idle)
            if self._is_stopping:
                return False
            orders, self._orders = self._orders, []
        for order in orders:
            order()
        if not self._engine.is_idle:
            self._step()
        return True

    def _admit(self, ticket: Ticket) -> None:
        """Gives requests to the engine."""
        for request in ticket.requests:
            try:
                answer = self._engine.add(request)
            except GenerationError as error:
                self._drop(ticket, Refusal(400, str(error)))
                return
            ticket.answers.append(answer)
            self._tickets[answer] = ticket
            self._metrics.count("litft_prompt_tokens_total", len(request.prompt_ids))
        self._tell([ticket])

    def _do(self, call: Call) -> None:
        """Does other work."""
        if call.is_done:
            return
        try:
            call.result = call.work()
        except (RuntimeError, MemoryError) as error:
            self._fail(error, [call])
            return
        self._open.pop(call)
        self._release(1)
        self._tell([call])

    def _step(self) -> None:
        """Lets each answer grow, and tells those who wait for it."""
        try:
            grown = self._engine.step()
        except (RuntimeError, MemoryError) as error:  # of the device; an error of ours ends the thread
            self._fail(error, [self._tickets[answer] for answer in islice(self._tickets, self._engine.running)])
            return
        self._failures = 0
        told: dict[Ticket, None] = {}
        for answer in dict.fromkeys(answer for answer, _ in grown):  # with a draft, some get several tokens
            ticket = self._tickets[answer]
            if len(answer.tokens) == 1:
                self._metrics.time("litft_first_token_seconds", time.perf_counter() - ticket.started)
            if answer.finish is not None:
                self._finish(answer)
            told[ticket] = None
        self._metrics.count("litft_answer_tokens_total", len(grown))
        self._tell([ticket for ticket in told if ticket.is_streamed or ticket.is_done])
        for ticket in told:
            if ticket.is_done:
                self._open.pop(ticket)

    def _finish(self, answer: Answer) -> None:
        """Notes the end of an answer."""
        ticket = self._tickets.pop(answer)
        self._metrics.count("litft_answers_total", finish=str(answer.finish))
        self._metrics.time("litft_answer_seconds", time.perf_counter() - ticket.started)
        self._release(1)

    def _release(self, count: int) -> None:
        """Makes room for others."""
        with self._wake:
            self._taken -= count
            self._wake.notify_all()

    def _drop(self, ticket: Ticket, failure: Refusal) -> None:
        """Ends what is left of a request."""
        if ticket.is_done:
            return
        ticket.failure = failure
        self._open.pop(ticket)
        left = ticket.count - sum(answer.finish is not None for answer in ticket.answers)
        for answer in ticket.answers:
            if answer.finish is None:
                self._engine.cancel(answer)
                del self._tickets[answer]
                self._metrics.count("litft_answers_total", finish="cancelled")
        self._release(left)
        self._tell([ticket])

    def _fail(self, error: Exception, concerned: Sequence[Ticket]) -> None:
        """Tells those whose answers grew that the model failed; those that wait go on."""
        self._failures += 1
        self._metrics.count("litft_failures_total")
        hit = list(dict.fromkeys(concerned))
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        self._report(f"the model failed ({type(error).__name__}: {reason}); {len(hit)} requests are answered with 500")
        for ticket in hit:
            self._drop(ticket, Refusal(500, "The model failed on this request; ask again.", code="model_failed"))

    def _end(self, failure: Refusal) -> None:
        """Tells all who still wait; nothing more is asked of the engine."""
        with self._wake:
            self._is_draining = True
            tickets, self._open, self._taken = list(self._open), {}, 0
            self._wake.notify_all()
        for ticket in tickets:
            ticket.failure = failure
        self._tell(tickets)

    def _tell(self, tickets: Sequence[Ticket]) -> None:
        """Wakes those who wait, in their event loop."""
        if tickets:
            tickets[0].loop.call_soon_threadsafe(_tell_all, tickets)


def _tell_all(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.tell()
