"""Texts that nobody asked for, with loss on all of them or on some of their characters. Knows no file format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise

from litft.data.reading.faults import kind_of, missing_field, shown, text_fault
from litft.data.reading.rows import Rejected, Row
from litft.text.conversation import Span, document

# Characters without loss, and with it: each span from its first character to its last, both included.
# Source: `loss_masking_spans` of Fast-LLM (its documentation, "Instruction finetuning").
OFF, ON = "loss_masking_spans", "target_spans"

# Of what should have been a pair, so many items are shown at most.
LISTED_ITEMS = 4


def read_document(line: int, values: Mapping[str, object]) -> Row | Rejected:
    """Reads `{"text"}`, with `loss_masking_spans` or `target_spans` beside it where only a part is to be learned."""
    if "text" not in values:
        return Rejected(line, missing_field("text", values))
    text = values["text"]
    fault = text_fault(text, '"text"')
    if fault is not None:
        return Rejected(line, fault)
    targets = _targets(str(text), values)
    return Rejected(line, targets) if isinstance(targets, str) else Row(line, document(str(text), targets))


def _targets(text: str, values: Mapping[str, object]) -> tuple[Span, ...] | str | None:
    """Gives the characters with loss, None for all of them, or what is wrong."""
    given = [name for name in (OFF, ON) if values.get(name) is not None]
    if not given:
        return None
    if len(given) > 1:
        return f'"{OFF}" and "{ON}" are both there; one of them says it all'
    spans = _spans(given[0], values[given[0]], len(text))
    if isinstance(spans, str) or given[0] == ON:
        return spans
    edges = [0, *chain.from_iterable(spans), len(text)]
    return tuple((begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True) if begin < end)


def _spans(name: str, listed: object, length: int) -> tuple[Span, ...] | str:
    """Gives spans from their first to behind their last character, in order; or what is wrong."""
    pairs = listed if isinstance(listed, list | tuple) else [listed]
    spans: list[Span] = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or not _are_numbers(pair):
            return f'"{name}" holds {_shown_pair(pair)}, not pairs [first, last] of characters'
        first, last = pair
        if not 0 <= first <= last < length:
            return f'"{name}" has [{shown(first)}, {shown(last)}], which are no characters of a text of {length:,}'
        spans.append((first, last + 1))
    spans.sort()
    if any(begin < end for (_, end), (begin, _) in pairwise(spans)):
        return f'"{name}" has spans that overlap'
    return tuple(spans)


def _shown_pair(pair: object) -> str:
    """Gives what stands in the place of a pair, to be read."""
    if not isinstance(pair, list | tuple):
        return shown(pair)
    return f"[{', '.join(map(shown, pair))}]" if len(pair) < LISTED_ITEMS else f"a {kind_of(pair)} of {len(pair)}"


def _are_numbers(pair: Sequence[object]) -> bool:
    """Whether it is two whole numbers."""
    return len(pair) == 2 and all(type(number) is int for number in pair)
