"""What a chat template's rendering may cost, and what each of its operations costs before it is done. Knows no Jinja.

Work is counted in characters; a step of a loop and a call count for several. Each thread counts for itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

WORK = 2**26  # characters that one rendering may handle; a step counts for more than one. It takes some seconds
WORK_FOR_CHARACTER = 256  # and so many more for each character of what is rendered
STEP, CALL = 16, 64  # what a step of a loop, or a value, and a call count for
SECONDS = 10.0  # of computing, for what is not counted, such as comparing two long texts
LOOKS = 2**14  # work between two looks at the clock, which takes as long as ten steps
DEEPEST = 100  # values within values; hashing a tuple of some ten thousand would end the process
WIDEST = 9  # digits of a width in a form of a number
LONGEST_BETWEEN = 64  # characters between items that are made one by one
# Filters whose options may be put in at each line or value.
_MULTIPLYING = ("indent", "wordwrap", "tojson")


class TooMuchError(Exception):
    """A template did more than it may, or would have; `str(error)` goes on after "the template"."""


class _Work:
    """What one rendering may still do."""

    __slots__ = ("_look", "_until", "left")

    def __init__(self, characters: int) -> None:
        """Begins for a rendering of so many characters."""
        self.left = WORK + WORK_FOR_CHARACTER * characters
        self._until, self._look = time.thread_time() + SECONDS, self.left - LOOKS

    def spend(self, work: int) -> None:
        """Counts work that is to be done now."""
        self.left -= work
        if self.left > self._look:
            return
        self._look = self.left - LOOKS
        if self.left < 0:
            raise TooMuchError("does or writes more than any chat template needs; it may never end")
        if time.thread_time() > self._until:
            raise TooMuchError(f"takes more than {SECONDS:.0f} seconds for one conversation")


_work: ContextVar[_Work] = ContextVar("_work")  # of this thread


@contextmanager
def within_bounds(characters: int) -> Iterator[None]:
    """Counts what is done inside."""
    before = _work.set(_Work(characters))
    try:
        yield
    finally:
        _work.reset(before)


def spend(work: int) -> None:
    """Counts work of this rendering."""
    _work.get().spend(work)


def weighed(value: Any) -> Any:
    """Gives a value on, if writing it out is not too much."""
    if type(value) is not str:
        weigh(value)
    return value


def weigh(value: object) -> int:
    """Gives about how many characters a value has when it is written out, and counts them as work.

    What stands in it twice counts twice, so that this ends soon where writing it out would never end.
    """
    total, waiting, depth = 0, [value], 0
    while waiting:
        if depth > DEEPEST:
            raise TooMuchError(f"nests values more than {DEEPEST} deep")
        inner: list[object] = []
        for part in waiting:
            weight = length(part)
            spend(STEP + weight)
            total += 1 + weight
            if isinstance(part, Mapping):
                inner += [*part.keys(), *part.values()]
            elif isinstance(part, Collection) and not isinstance(part, (str, bytes, range)):
                inner += part
        waiting, depth = inner, depth + 1
    return total


def length(value: object) -> int:
    """Gives how many characters, items or bytes a value has itself."""
    if isinstance(value, int):
        return value.bit_length() // 8
    return len(value) if isinstance(value, Sized) else 0


def counted(pieces: Iterable[Any]) -> Iterator[Any]:
    """Gives pieces on and counts them."""
    spend = _work.get().spend
    for piece in pieces:
        spend(STEP + (len(piece) if type(piece) is str else length(piece)))
        yield piece


def cost_of_binop(operator: str, left: Any, right: Any) -> int:
    """Gives about how many characters, items or bytes the result has."""
    if operator == "+" and type(left) is type(right) is str:  # nearly all of them
        return len(left) + len(right)
    if operator == "%" and isinstance(left, (str, bytes)):
        return _cost_of_form(str(left), right)
    if operator in "+%":
        return length(left) + length(right)
    if operator == "*":
        for several, count in ((left, right), (right, left)):
            if isinstance(several, Sequence) and isinstance(count, int):
                return len(several) * max(count, 0)
        return length(left) + length(right)
    return max(right, 0) * (1 + length(left)) if isinstance(left, int) and isinstance(right, int) else 0


def _cost_of_form(form: str, given: object) -> int:
    """Gives about how many characters `form % given`, or `form.format(given)`, has at the most."""
    widths = re.findall(r"\d+", form)
    if any(len(width) > WIDEST for width in widths):
        raise TooMuchError("asks for a width of billions of characters")
    fields = form.count("%") + form.count("{")
    cost = len(form) + sum(map(int, widths)) + fields * weigh(given)
    if "*" in form or re.search(r"\{[^{}]*\{", form):  # a width that is given
        cost += fields * _numbers(given)
    return cost


def _numbers(value: object) -> int:
    """Gives the sum of the whole numbers that are given, each without its sign."""
    if isinstance(value, int):
        return abs(value)
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return sum(_numbers(each) for each in values)


def cost_of_call(name: str, owner: Any, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Gives about how many characters a method of a plain value handles and makes at the most."""
    given = [*args, *(value for key, value in named.items() if not key.startswith("_"))]
    if name in ("format", "format_map"):
        return _cost_of_form(str(owner), given)
    cost = length(owner) + weigh(given) + _numbers(given)
    if name == "replace":
        return cost + _cost_of_replace(owner, *given[:2])
    if name == "join":
        return cost + sum(_cost_of_join(each, owner) for each in given)
    return cost + length(owner) * cost if name in ("expandtabs", "translate") else cost


def _cost_of_replace(text: Any, old: Any = None, new: Any = None, *_: Any) -> int:
    """Gives how many characters are put in."""
    text, old, new = (each if isinstance(each, bytes) else str(each) for each in (text, old, new))
    return text.count(old) * len(new) if type(text) is type(old) else 0


def _cost_of_join(joined: object, between: object) -> int:
    """Gives how many characters are put between the items; how many those are nobody knows before they are made."""
    if isinstance(joined, Iterator) and length(between) > LONGEST_BETWEEN:
        raise TooMuchError(f"puts more than {LONGEST_BETWEEN} characters between items")
    return length(joined) * length(between)


def cost_of_filter(name: str, args: Sequence[Any], named: Mapping[str, Any]) -> int:
    """Gives about how many characters a filter handles and makes at the most."""
    options = [*args[1:], *named.values()]
    if name == "sum" and any(isinstance(each, (list, tuple)) for each in options):
        raise TooMuchError("adds up lists one by one")
    own = weigh(args[0]) if args else 0
    if name == "format":
        return _cost_of_form(str(args[0]), options)
    cost = own + weigh(options) + _numbers(options)
    if name == "replace":
        return cost + _cost_of_replace(args[0], *options)
    if name == "join" and args:
        return cost + sum(_cost_of_join(args[0], each) for each in options)
    return cost + own * (weigh(options) + _numbers(options)) if name in _MULTIPLYING else cost
