"""What a check is, and what comes of one. Knows no check."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litft.errors import LitftError

if TYPE_CHECKING:
    from litft.check.bench import Bench

NAME_WIDTH, WIDTH = 16, 110
PASS, FAIL, SKIP = "pass", "fail", "skip"


class NotSoError(Exception):
    """What was to be is not, with the numbers; the table shows the text."""


class CannotTellError(Exception):
    """Why a check does not apply, or cannot be made here."""


@dataclass(frozen=True)
class Check:
    """One thing that must be so.

    Attributes:
        name: its word in the table.
        claim: what must be so.
        run: tries it, and gives the numbers; it raises NotSoError or CannotTellError.
    """

    name: str
    claim: str
    run: Callable[[Bench], str]


@dataclass(frozen=True)
class Finding:
    """What came of a check.

    Attributes:
        name, claim: of the check.
        verdict: pass, fail or skip.
        text: the numbers, or the reason.
    """

    name: str
    claim: str
    verdict: str
    text: str

    def lines(self) -> Iterator[str]:
        """Gives what is printed of it."""
        head = f"{self.name:<{NAME_WIDTH}} {self.verdict:<5}"
        for number, text in enumerate((self.claim, self.text)):
            first = head if number == 0 else " " * len(head)
            below = " " * (len(head) + 1)
            for line in textwrap.wrap(text, WIDTH, initial_indent=f"{first} ", subsequent_indent=below):
                yield f"{line}\n"


def find(check: Check, bench: Bench) -> Finding:
    """Makes a check."""
    try:
        verdict, text = PASS, check.run(bench)
    except CannotTellError as reason:
        verdict, text = SKIP, str(reason)
    except (NotSoError, LitftError) as reason:
        verdict, text = FAIL, str(reason)
    return Finding(check.name, check.claim, verdict, text)


def within(gaps: Mapping[str, float], tolerance: float, why: str) -> str:
    """Gives the numbers of differences that are small enough.

    Args:
        gaps: what differs, and by how much.
        tolerance: by no more than this.
        why: that much is right.

    Raises:
        NotSoError: one is larger, or no number.
    """
    told = ", ".join(f"{what} {gap:.1e}" for what, gap in gaps.items())
    text = f"off by: {told}; at most {tolerance:.0e} ({why})"
    if not all(gap <= tolerance for gap in gaps.values()):
        raise NotSoError(text)
    return text
