"""OpenAI's API: `/v1/models`, `/v1/completions` and `/v1/chat/completions`, whole or streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from fastapi import Request as HttpRequest
from fastapi import Response
from fastapi.responses import StreamingResponse

from litft.api import conversation_of
from litft.generate.request import Request, Token
from litft.serve.openai_fields import Asked, ChatFields, CompletionFields
from litft.serve.openai_shapes import Shape, event, usage_of
from litft.serve.refusal import Refusal
from litft.serve.served import Served, json_response, seed_of, spoken
from litft.serve.worker import Ticket
from litft.text.encoding import encode_prompt, stop_ids
from litft.text.stream import StreamDecoder

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(frozen=True)
class Echo:
    """What stands before an answer because a client wants its prompt back.

    Attributes:
        text: the prompt.
        tokens: its tokens with their log-probabilities, where those are wanted.
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is to be answered, and in which shape.

    Attributes:
        requests: for the engine, the samples of one prompt behind one another; none where only prompts are wanted.
        echoes: what stands before each answer.
        shape: of the reply.
        prompt_tokens: of all prompts, each counted once.
    """

    requests: Sequence[Request]
    echoes: Sequence[Echo]
    shape: Shape
    prompt_tokens: int


@dataclass(frozen=True)
class OpenAI:
    """The API of one served model."""

    served: Served

    async def models(self, http: HttpRequest) -> Response:
        """Answers GET /v1/models."""
        return json_response({"object": "list", "data": [self._model(name) for name in self.served.names[:1]]})

    async def model(self, http: HttpRequest, name: str) -> Response:
        """Answers GET /v1/models/NAME."""
        return json_response(self._model(self._known(name)))

    async def completions(self, http: HttpRequest) -> Response:
        """Answers POST /v1/completions."""
        fields = await self.served.read(http, CompletionFields)
        name, most = self._known(fields.model), self._limit(fields.max_tokens, "max_tokens")
        shape = Shape.of(name, False, self.served.token_text, fields.logprobs, fields.wants_usage)
        if most == 0 and not fields.echo:
            raise Refusal(400, "max_tokens is 0, which leaves nothing to say without echo.", "max_tokens")
        prompts, echoes, given = [], list[Echo](), fields.prompts()
        self.served.worker.refuse_many(len(given) * fields.n)  # before so many are encoded
        for prompt in given:
            ids = await self._ids(prompt)
            self._check(ids, most, "prompt")
            prompts.append(ids)
            echoes += [await self._echo(http, fields, prompt, ids)] * fields.n
            self.served.note_prompt(http, str(prompt))
        ends = self.served.llm.tokenizer.stop_ids
        common = partial(self._requests, fields, most=most, ends=ends, continues=True, top=fields.logprobs or 0)
        requests = [request for ids in prompts for request in common(ids)] if most else []
        return await self._answer(http, fields, Plan(requests, echoes, shape, sum(map(len, prompts))))

    async def chat(self, http: HttpRequest) -> Response:
        """Answers POST /v1/chat/completions."""
        fields = await self.served.read(http, ChatFields)
        llm, name = self.served.llm, self._known(fields.model)
        if fields.top_logprobs and not fields.logprobs:
            raise Refusal(400, "top_logprobs goes with logprobs: true.", "top_logprobs")
        candidates = fields.top_logprobs if fields.logprobs else None
        shape = Shape.of(name, True, self.served.token_text, candidates, fields.wants_usage)
        conversation = conversation_of(fields.told())
        text = "\n".join(message.text for message in conversation.messages)
        ids = await self.served.encode(text, lambda: encode_prompt(llm.tokenizer, llm.style, conversation))
        self.served.note_prompt(http, text)
        self._check(ids, 1, "messages")
        asked = fields.max_completion_tokens if fields.max_tokens is None else fields.max_tokens
        most, ends = self._limit(asked, "max_completion_tokens"), frozenset(stop_ids(llm.tokenizer, llm.style))
        requests = self._requests(fields, ids, most, ends, False, fields.top_logprobs)
        return await self._answer(http, fields, Plan(requests, [Echo()] * fields.n, shape, len(ids)))

    def _model(self, name: str) -> dict[str, object]:
        """Gives a model as the API describes it."""
        return {"id": name, "object": "model", "created": self.served.created, "owned_by": "litft"}

    def _known(self, name: str | None) -> str:
        """Gives the name of the model a client means."""
        if name is not None and name not in self.served.names:
            message = f"There is no model {name[:100]!a} here; this server has {self.served.names[0]}."
            raise Refusal(404, message, "model", "model_not_found")
        return name or self.served.names[0]

    def _limit(self, asked: int | None, param: str) -> int:
        """Gives the longest answer in tokens; the room left behind the prompt ends it too."""
        most = self.served.most_new_tokens
        if asked is not None and asked > most:
            raise Refusal(400, f"{param} is {asked}; this server gives at most {most} tokens.", param)
        return most if asked is None else asked

    def _check(self, ids: Sequence[int], most: int, param: str) -> None:
        """Refuses a prompt that is empty, has ids that are no tokens, or leaves no room for an answer."""
        room, size = self.served.room, self.served.llm.model.config.padded_vocab_size
        if not ids:
            raise Refusal(400, "The prompt is empty; give at least one token.", param)
        if wrong := next((number for number in ids if not 0 <= number < size), None):
            raise Refusal(400, f"The prompt has the id {wrong}; the model knows ids from 0 to {size - 1}.", param)
        if len(ids) + min(most, 1) > room:
            message = f"The prompt has {len(ids)} tokens; this server takes {room}, those of the answer among them."
            raise Refusal(400, message, param, "context_length_exceeded")

    async def _ids(self, prompt: str | list[int]) -> list[int]:
        """Gives the ids of a prompt; ids stay as they are."""
        if not isinstance(prompt, str):
            return prompt
        return await self.served.encode(prompt, lambda: self.served.llm.tokenizer.encode(prompt))

    async def _echo(self, http: HttpRequest, fields: CompletionFields, prompt: str | list[int], ids: list[int]) -> Echo:
        """Gives the prompt back, with what its tokens are worth where that is asked for."""
        if not fields.echo:
            return Echo()
        decoder = StreamDecoder(self.served.llm.tokenizer)
        pieces = [decoder.push(number) for number in ids]
        pieces[-1] += decoder.finish()
        text = prompt if isinstance(prompt, str) else "".join(pieces)
        if fields.logprobs is None:
            return Echo(text)
        scored = await self.served.score(http, ids, fields.logprobs)
        return Echo(text, tuple(replace(token, text=piece) for token, piece in zip(scored, pieces, strict=True)))

    def _requests(
        self, fields: Asked, ids: Sequence[int], most: int, ends: frozenset[int], continues: bool, top: int
    ) -> list[Request]:
        """Gives a request for each sample of one prompt."""
        sampling, stop = fields.sampling(), fields.stops()
        if not continues:
            stop = (*self.served.llm.style.stop, *stop)
        seeds = [seed_of(fields.seed, index) for index in range(fields.n)]
        return [Request(tuple(ids), most, sampling, ends, stop, seed, continues, top) for seed in seeds]

    async def _answer(self, http: HttpRequest, fields: Asked, plan: Plan) -> Response:
        """Answers, whole or as a stream."""
        if fields.stream and plan.requests:
            ticket = await self.served.ask(http, plan.requests, is_streamed=True)
            pieces = self._stream(http, ticket, plan)
            return StreamingResponse(pieces, media_type="text/event-stream", headers=STREAM_HEADERS)
        answers = await self.served.answers(http, plan.requests)
        texts = [(spoken(answer), answer.finish) for answer in answers] or [([], "length") for _ in plan.echoes]
        choices = [
            plan.shape.choice(
                index, echo.text + "".join(token.text for token in tokens), [*echo.tokens, *tokens], finish,
                offset=0 if echo.tokens else len(echo.text),
            )
            for index, (echo, (tokens, finish)) in enumerate(zip(plan.echoes, texts, strict=True))
        ]  # fmt: skip
        count = sum(len(answer.tokens) for answer in answers)
        return json_response(plan.shape.whole(choices, usage_of(plan.prompt_tokens, count)))

    async def _stream(self, http: HttpRequest, ticket: Ticket, plan: Plan) -> AsyncIterator[bytes]:
        """Gives the events of a stream."""
        shape, held, count = plan.shape, [list[Token]() for _ in plan.requests], 0
        offsets = [len(echo.text) for echo in plan.echoes]
        for index, echo in enumerate(plan.echoes):
            if shape.is_chat or echo.text:
                yield shape.chunk([shape.delta(index, echo.text, echo.tokens, None, is_first=True)])
        try:
            async for index, tokens, is_last in ticket.news():
                count += len(tokens)
                answer = ticket.answers[index]
                ready = _ready(held[index], tokens, is_last and answer.finish == "stop", is_last)
                text = "".join(token.text for token in ready)
                if ready or is_last:
                    finish = answer.finish if is_last else None
                    yield shape.chunk([shape.delta(index, text, ready, finish, offsets[index])])
                offsets[index] += len(text)
        except Refusal as refusal:
            yield event(refusal.body)
            return
        finally:
            self.served.note_tokens(http, count)
        if shape.has_usage:
            yield shape.chunk([], usage_of(plan.prompt_tokens, count))
        yield b"data: [DONE]\n\n"


def _ready(held: list[Token], new: Sequence[Token], is_stopped: bool, is_last: bool) -> list[Token]:
    """Gives the tokens that can be told: up to the last with a text; others may turn out to be a stop text's."""
    held += new
    ready = len(held) if is_last else 0
    while is_stopped and ready and not held[ready - 1].text:
        ready -= 1
    if not is_last:
        ready = max((place + 1 for place, token in enumerate(held) if token.text), default=0)
    told = held[:ready]
    del held[:ready]
    return told
