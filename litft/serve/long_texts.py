"""Work on long texts, beside the event loop: few at once, as ids and what a tokenizer notes of them take memory.

Knows no tokenizer.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from litft.serve.refusal import Refusal

Result = TypeVar("Result")

SHORT_TEXT = 2000  # characters; more must not hold up the event loop
LONG_TEXT = 100_000  # a tokenizer takes a hundred bytes for each character of such a text
AT_ONCE = 2
MOST_WAITING = 32


@dataclass
class LongTexts:
    """Who works on a long text, and who waits for that.

    Attributes:
        taken: both.
    """

    taken: int = 0
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def work(self, size: int, work: Callable[[], Result]) -> Result:
        """Works on a text.

        Args:
            size: its characters.
            work: gives the result.

        Raises:
            Refusal: too many long texts wait.
        """
        if size <= SHORT_TEXT:
            return work()
        if size <= LONG_TEXT:
            return await asyncio.to_thread(work)
        if self.taken >= AT_ONCE + MOST_WAITING:
            message = "The server is reading as many long texts as it can; ask again later."
            raise Refusal(503, message, code="unavailable", retry_after=5)
        self.taken += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(_tidily, work)
        finally:
            self.taken -= 1


def _tidily(work: Callable[[], Result]) -> Result:
    """Works, and gives the memory back: glibc would keep a gigabyte of it for threads that may never need it again."""
    try:
        return work()
    finally:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none, and keep less
        if trim is not None:
            trim(0)
