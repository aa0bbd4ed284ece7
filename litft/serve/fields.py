"""The body of a request: its size, its JSON, and its fields, each mistake a refusal of one sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from litft.errors import did_you_mean
from litft.serve.refusal import Refusal

Body = TypeVar("Body", bound="Fields")

# What is too large is still read up to here: a client that is cut off while it sends never sees why.
MOST_DISCARDED_BYTES = 64 * 2**20
LONGEST_BODY_SECONDS = 60.0
MOST_BODIES = 64  # of the largest size that are held at the same time
SMALL_BODY_BYTES = 2**16  # always taken; there are no more of them than connections
SHOWN_CHARACTERS = 60
TOLD = ("prompt", "text", "messages", "stop", "stop_sequences")  # what a model is told is in no error


class Fields(BaseModel):
    """The fields of a request; null stands for a field that is not there.

    Attributes:
        ignored: fields that change no answer.
        refused: fields that would change the answer, and the values of them that do not.
        takes_unknown: whether fields that nobody knows are ignored, not refused.
    """

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
    ignored: ClassVar[frozenset[str]] = frozenset()
    refused: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    takes_unknown: ClassVar[bool] = False


@dataclass
class Bodies:
    """The bodies that are read at the moment; together they take only so much memory.

    Attributes:
        most_bytes: of one.
        held: bytes of all that are being read.
    """

    most_bytes: int
    held: int = 0

    async def gather(self, chunks: AsyncIterator[bytes]) -> bytes:
        """Gives a body whole.

        Raises:
            Refusal: it is too large, or too many large ones are being read.
        """
        content, size, counted = bytearray(), 0, 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size <= self.most_bytes:
                    content += chunk
                    self.held, counted = self.held + len(chunk), counted + len(chunk)
                    self._refuse_many(size)
                elif size > MOST_DISCARDED_BYTES:
                    break
        finally:
            self.held -= counted
        if size > self.most_bytes:
            raise Refusal(413, f"The request is larger than {self.most_bytes:,} bytes, which is all this server reads.")
        return bytes(content)

    def _refuse_many(self, size: int) -> None:
        """Refuses a large body where as much is being read as may be; small ones do no harm."""
        if size > SMALL_BODY_BYTES and self.held > MOST_BODIES * self.most_bytes:
            message = "The server is reading as many large requests as it can hold; ask again later."
            raise Refusal(503, message, code="unavailable", retry_after=1)


async def read_body(chunks: AsyncIterator[bytes], bodies: Bodies) -> Any:
    """Gives the JSON of a request.

    Args:
        chunks: of its body.
        bodies: those that are read beside it.

    Raises:
        Refusal: it is too large, no JSON, or did not come in time.
    """
    try:
        content = await asyncio.wait_for(bodies.gather(chunks), LONGEST_BODY_SECONDS)
    except asyncio.TimeoutError as error:
        raise Refusal(408, f"The request did not come within {LONGEST_BODY_SECONDS:.0f} s.") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"The request is not JSON: {error}.") from error


def read_fields(kind: type[Body], values: Any) -> Body:
    """Gives the fields of a request.

    Args:
        kind: what it may hold.
        values: its JSON.

    Raises:
        Refusal: it is no mapping, a value has the wrong type, or a field would change the answer and is not known.
    """
    if not isinstance(values, dict):
        raise Refusal(400, f"The request must be a JSON object, not {_kind(values)}.")
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        _refuse_unknown(kind, name, value)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from error


def _refuse_unknown(kind: type[Fields], name: str, value: Any) -> None:
    """Refuses a field that would change the answer, if it were known."""
    if name in kind.refused:
        if value not in kind.refused[name]:
            raise Refusal(400, f"{name} is {_shown(value)}; this server cannot do that, leave it out.", name)
    elif not kind.takes_unknown and name not in kind.model_fields and name not in kind.ignored:
        hint = did_you_mean(name, kind.model_fields)
        raise Refusal(400, f"The field {_shown(name)} is not known.{hint}", name, "unknown_field")


def _refusal(error: ValidationError) -> Refusal:
    """Makes a sentence of the first mistake."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return Refusal(400, f"{name} is missing.", name)
    said = str(first["msg"]).removeprefix("Value error, ").replace("Input should", "it should")
    value = first["input"]
    shown = _kind(value) if first["loc"][0] in TOLD else _shown(value)
    return Refusal(400, f"{name} is {shown}; {said}.", name)


def _kind(value: Any) -> str:
    """Gives what kind of JSON a value is, and no word of it; numbers say nothing of a prompt."""
    kinds: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}
    return kinds.get(type(value)) or _shown(value)


def _shown(value: Any) -> str:
    """Gives the beginning of a value as JSON."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
