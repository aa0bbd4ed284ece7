"""The body of a request: its size, its JSON, and its fields, each mistake a refusal of one sentence."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from litft.errors import did_you_mean
from litft.serve.refusal import Refusal

Body = TypeVar("Body", bound="Fields")

# What is too large is still read up to here: a client that is cut off while it sends never sees why.
MOST_DISCARDED_BYTES = 64 * 2**20
LONGEST_BODY_SECONDS = 60.0
SHOWN_CHARACTERS = 60


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


async def read_body(chunks: AsyncIterator[bytes], most_bytes: int) -> Any:
    """Gives the JSON of a request.

    Args:
        chunks: of its body.
        most_bytes: its largest size.

    Raises:
        Refusal: it is too large, no JSON, or did not come in time.
    """
    try:
        content = await asyncio.wait_for(_gather(chunks, most_bytes), LONGEST_BODY_SECONDS)
    except asyncio.TimeoutError as error:
        raise Refusal(408, f"The request did not come within {LONGEST_BODY_SECONDS:.0f} s.") from error
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"The request is not JSON: {error}.") from error


async def _gather(chunks: AsyncIterator[bytes], most_bytes: int) -> bytes:
    """Gives a body whole."""
    content, size = bytearray(), 0
    async for chunk in chunks:
        size += len(chunk)
        if size <= most_bytes:
            content += chunk
        elif size > MOST_DISCARDED_BYTES:
            break
    if size > most_bytes:
        raise Refusal(413, f"The request is larger than {most_bytes:,} bytes, which is all this server reads.")
    return bytes(content)


def read_fields(kind: type[Body], values: Any) -> Body:
    """Gives the fields of a request.

    Args:
        kind: what it may hold.
        values: its JSON.

    Raises:
        Refusal: it is no mapping, a value has the wrong type, or a field would change the answer and is not known.
    """
    if not isinstance(values, dict):
        raise Refusal(400, f"The request must be a JSON object, not {_shown(values)}.")
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
    return Refusal(400, f"{name} is {_shown(first['input'])}; {said}.", name)


def _shown(value: Any) -> str:
    """Gives the beginning of a value as JSON."""
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
