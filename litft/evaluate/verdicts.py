"""How a model is asked which of two answers is better, how its reply is read, and what two replies come to.

Source: the pairwise judge, and asking in both orders because models favour a position, are of arXiv 2306.05685 (Zheng
et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena"). The words are our own; the reason stands before
the verdict, so that it is thought of first.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from litft.asking.asker import Reply

PROMPT = """\
Two assistants answered the same user. Which answer is better: more true, more helpful, closer to what was asked for? \
The order of the two says nothing, and neither does their length.

=== user ===
{question}
=== answer 1 ===
{first}
=== answer 2 ===
{second}
=== end of answers ===

Reply with one JSON object and nothing else. "better" is "1", "2", or "tie" where neither is better:
{"reason": "in one or two sentences, why", "better": "1"}"""

_FIELD = re.compile(r"\{(question|first|second)\}")
_THOUGHT = re.compile(r".*</think>", re.DOTALL)

EMPTY = "the reply is empty"

A, B, TIE = "a", "b", "tie"
FLIP, UNREADABLE, UNANSWERED = "flip", "unreadable", "unanswered"

Side = Literal["a", "b", "tie"]


class Verdict(NamedTuple):
    """What a judge says of one pair in one order.

    Attributes:
        side: who is better; None where the reply cannot be read.
        reason: why, in the judge's words, or why it cannot be read.
    """

    side: Side | None
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of one pair.

    Attributes:
        kind: `a`, `b` or `tie` where both orders say the same; `flip` where they do not; `unreadable` where one cannot
            be read; `unanswered` where nothing was judged.
        verdicts: with the answer of a first, and with that of b first; none where nobody was asked.
        note: what else is to be known.
    """

    kind: str
    verdicts: tuple[Verdict, ...] = ()
    note: str = ""

    @property
    def is_consistent(self) -> bool:
        """Whether it counts."""
        return self.kind in (A, B, TIE)

    @property
    def favoured(self) -> int | None:
        """Which position, 1 or 2, was preferred in both orders; None elsewhere."""
        sides = tuple(verdict.side for verdict in self.verdicts)
        return {(A, B): 1, (B, A): 2}.get(sides)  # type: ignore[arg-type]


def ask_text(question: str, first: str, second: str) -> str:
    """Gives what a judge is asked; braces in the texts stay as they are."""
    texts = {"question": question, "first": first, "second": second}
    return _FIELD.sub(lambda found: texts[found[1]].strip(), PROMPT)


def read_verdict(reply: Reply, is_swapped: bool) -> Verdict:
    """Reads a reply: the last JSON object in it that names the better answer.

    Args:
        reply: of the judge; a thought before `</think>` is left out.
        is_swapped: whether the answer of b stood first.
    """
    if reply.refused is not None:
        return Verdict(None, f"the server refused the request: {reply.refused}")
    text = _THOUGHT.sub("", reply.text)
    if not text.strip():
        return Verdict(None, EMPTY)
    for start in reversed([found.start() for found in re.finditer(r"\{", text)]):
        try:
            values, _ = json.JSONDecoder().raw_decode(text[start:])
        except ValueError:
            continue
        if isinstance(values, dict) and (side := _side(values.get("better"), is_swapped)) is not None:
            return Verdict(side, " ".join(str(values.get("reason") or "no reason given").split()))
    return Verdict(None, f"no verdict in: {' '.join(text.split())[:200]}")


def _side(better: object, is_swapped: bool) -> Side | None:
    """Gives who stands at the place that is named."""
    first, second = (B, A) if is_swapped else (A, B)
    named: dict[str, Side] = {"1": first, "2": second, TIE: TIE}  # type: ignore[dict-item]
    return named.get(str(better).strip().lower())


def outcome_of(verdicts: tuple[Verdict, Verdict]) -> Outcome:
    """Gives what the verdicts of both orders come to."""
    first, second = (verdict.side for verdict in verdicts)
    if first is None or second is None:
        return Outcome(UNREADABLE, verdicts)
    return Outcome(first if first == second else FLIP, verdicts)
