"""The API of the NeurIPS LLM Efficiency Challenge, as HELM's `neurips/local` client calls it.

A request that HELM may send is answered: HELM ends a whole run at an error of /process, and takes one of /tokenize or
/decode silently for an empty text. So a prompt that does not fit is cut, and told of; only what is no request of the
challenge is refused.

Source: `http_model_client.py` and `http_model_tokenizer.py` of HELM; `open_api_spec.json` and the sample submissions of
the challenge's starter kit, whose field names are others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from fastapi import Request as HttpRequest
from fastapi import Response
from pydantic import ConfigDict, Field

from litft.generate.request import Answer, Request, Token
from litft.serve.fields import Fields
from litft.serve.openai_shapes import LEAST_LOGPROB
from litft.serve.served import Served, json_response, sampling_of, seed_of, spoken
from litft.text.conversation import USER, Conversation, Message
from litft.text.encoding import encode_prompt, stop_ids
from litft.text.stream import StreamDecoder

LONGEST_TOKENIZED = 2048
MOST_CANDIDATES = 100
MOST_STOPS = 256  # each is looked for at each token, while all others wait
LEAST_SHARE = 2  # of what there is room for, a cut prompt leaves the answer no more than one part in so many


class Lenient(Fields):
    """Fields as other programs may write them: 50.0 is 50, and what is not known changes nothing."""

    model_config = ConfigDict(extra="ignore", strict=False, allow_inf_nan=False)
    takes_unknown: ClassVar[bool] = True


class ProcessFields(Lenient):
    """A prompt to be continued; HELM's names and those of the published OpenAPI file."""

    prompt: str
    temperature: float = Field(0.8, ge=0)
    num_return_sequences: int | None = Field(None, ge=1, le=64)
    num_samples: int = Field(1, ge=1, le=64)
    max_new_tokens: int = Field(50, ge=0)
    top_p: float = Field(1.0, ge=0, le=1)
    top_k: int = 200
    top_k_per_token: int = Field(1, ge=0, le=MOST_CANDIDATES)
    stop_sequences: list[str] = Field(default_factory=list, max_length=MOST_STOPS)
    echo_prompt: bool = False
    seed: int | None = None


class TokenizeFields(Lenient):
    """A text to be counted or cut."""

    text: str
    truncation: bool = True
    max_length: int = Field(LONGEST_TOKENIZED, ge=0)


class DecodeFields(Lenient):
    """Ids of a text."""

    tokens: list[int]


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it.

    Attributes:
        ids: what is read, BOS included where the model wants one.
        is_cut: whether its beginning was left out.
        most: tokens of the answer that there is room for, as many as were asked for at most.
    """

    ids: list[int]
    is_cut: bool
    most: int


@dataclass(frozen=True)
class Challenge:
    """The API of one served model."""

    served: Served

    async def process(self, http: HttpRequest) -> Response:
        """Answers POST /process."""
        started = time.perf_counter()
        fields = await self.served.read(http, ProcessFields)
        text = whole_text(fields.prompt)
        prompt = await self.served.encode(text, lambda: self._prompt(text, fields.max_new_tokens))
        self.served.note_prompt(http, text)
        if prompt.is_cut:
            self._tell_cut(text)
        echo = await self._echo(http, fields, text, prompt) if fields.echo_prompt else []
        answers = await self.served.answers(http, self._requests(fields, prompt) if prompt.most else [])
        replies = [self._reply(echo, answer) for answer in answers] or [self._reply(echo, None)]
        seconds = time.perf_counter() - started
        others = {"completions": replies} if len(replies) > 1 else {}
        return json_response({**replies[0], "request_time": seconds, **others})

    async def tokenize(self, http: HttpRequest) -> Response:
        """Answers POST /tokenize: ids without BOS."""
        started = time.perf_counter()
        fields = await self.served.read(http, TokenizeFields)
        text = whole_text(fields.text)
        ids = await self.served.encode(text, lambda: self._encode(text))
        ids = ids[: fields.max_length] if fields.truncation else ids
        return json_response({"tokens": ids, "request_time": time.perf_counter() - started})

    async def decode(self, http: HttpRequest) -> Response:
        """Answers POST /decode; ids that no token has give nothing."""
        started = time.perf_counter()
        fields, size = await self.served.read(http, DecodeFields), self.served.llm.model.config.padded_vocab_size
        ids = [number for number in fields.tokens if 0 <= number < size]
        text = await self.served.long_texts.work(len(ids), lambda: self.served.llm.tokenizer.decode(ids))
        return json_response({"text": text, "request_time": time.perf_counter() - started})

    def _encode(self, text: str) -> list[int]:
        """Gives the ids of a text, in which `</s>` is five characters and ends nothing."""
        return self.served.llm.tokenizer.encode_batch([text])[0]

    def _prompt(self, text: str, asked: int) -> Prompt:
        """Gives what the model reads; where it is too long its end stays, which holds the question."""
        room, tokenizer = self.served.room, self.served.llm.tokenizer
        most = min(asked, self.served.most_new_tokens)
        if self.served.wraps_prompts:
            whole = encode_prompt(tokenizer, self.served.llm.style, Conversation((Message(USER, text),)))
        else:
            whole = self._encode(text)
            whole = tokenizer.with_bos(whole) if tokenizer.adds_bos else whole
        if not whole:  # nothing to go on from: a text begins
            whole = [number for number in (tokenizer.bos_id, tokenizer.eos_id, 0) if number is not None][:1]
        longest = room - min(most, room // LEAST_SHARE)
        if len(whole) <= longest:
            return Prompt(whole, False, min(most, room - len(whole)))
        first = whole[:1] if whole[0] == tokenizer.bos_id else []
        return Prompt([*first, *whole[len(whole) - longest + len(first) :]], True, min(most, room - longest))

    def _tell_cut(self, text: str) -> None:
        """Counts a prompt that was cut, and says so."""
        self.served.metrics.count("litft_prompts_cut_total")
        self.served.report(
            f"a prompt of {len(text):,} characters was cut at its beginning: {self.served.room} tokens fit"
        )

    def _requests(self, fields: ProcessFields, prompt: Prompt) -> list[Request]:
        """Gives a request for each sample."""
        llm, wraps = self.served.llm, self.served.wraps_prompts
        sampling = sampling_of(fields.temperature, fields.top_p or 1.0, fields.top_k)
        stop = tuple(whole_text(text) for text in fields.stop_sequences if text)
        ends = stop_ids(llm.tokenizer, llm.style if wraps else None)
        if wraps:
            stop = (*llm.style.stop, *stop)
        count = fields.num_return_sequences or fields.num_samples
        return [
            Request(
                tuple(prompt.ids), prompt.most, sampling, frozenset(ends), stop, seed_of(fields.seed, index),
                continues=not wraps, top_logprobs=fields.top_k_per_token,
            )
            for index in range(count)
        ]  # fmt: skip

    async def _echo(self, http: HttpRequest, fields: ProcessFields, text: str, prompt: Prompt) -> list[Token]:
        """Gives the prompt's own tokens, whose texts joined are the prompt."""
        scored = await self.served.score(http, prompt.ids, fields.top_k_per_token)
        decoder = StreamDecoder(self.served.llm.tokenizer)
        pieces = [decoder.push(token.id) for token in scored]
        pieces[-1] += decoder.finish()
        if "".join(pieces) == text:
            named = [replace(token, text=piece) for token, piece in zip(scored, pieces, strict=True)]
            return named if pieces[0] else named[1:]  # BOS says nothing
        # Cut, or in a frame: the prompt as one token, worth what was read.
        whole = sum(token.logprob for token in scored if not math.isnan(token.logprob))
        return [Token(scored[-1].id, text, whole, scored[-1].top)] if text else []

    def _reply(self, echo: Sequence[Token], answer: Answer | None) -> dict[str, Any]:
        """Gives one answer as HELM reads it: `tokens` spell `text`."""
        tokens = [*echo, *(spoken(answer) if answer else [])]
        told = [
            {"text": token.text, "logprob": worth(token.logprob), "top_logprob": self._candidates(token)}
            for token in tokens
        ]
        return {
            "text": "".join(token.text for token in tokens),
            "tokens": told,
            "logprob": sum(worth(token.logprob) for token in tokens),
        }

    def _candidates(self, token: Token) -> dict[str, float]:
        """Gives the likeliest tokens at a place; of two with one text the likelier."""
        return {self.served.token_text(other.id): worth(other.logprob) for other in reversed(token.top)}


def worth(logprob: float) -> float:
    """Gives a log-probability that JSON can carry; 0 for a first token, which nothing foretells."""
    return 0.0 if math.isnan(logprob) else max(logprob, LEAST_LOGPROB)


def whole_text(text: str) -> str:
    """Gives a text whose half characters, which JSON may hold, are replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
