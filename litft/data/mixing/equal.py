"""Rows that are equal, id for id and in what is learned of them: of those the first is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from litft.data.kept import digest_of
from litft.data.mixing.parts import Rows
from litft.data.mixing.removed import Removed
from litft.data.store import TEST_FILE

EQUAL = "equal"


def leave_equal(rows: Sequence[Rows], known: Sequence[Rows], removed: Removed) -> list[Rows]:
    """Gives the first of rows that are equal, and none that is known already.

    Args:
        rows: of all parts.
        known: rows that none may be equal to.
        removed: takes the others.
    """
    seen: dict[bytes, str] = {}
    for there in known:
        for number, digest in _digests(there):
            seen.setdefault(digest, shown_row(there, number))
    made = []
    for there in rows:
        details = {}
        for number, digest in _digests(there):
            if digest in seen:
                details[number] = f"equal to {seen[digest]}"
            else:
                seen[digest] = shown_row(there, number)
        made.append(removed.take(there, EQUAL, details))
    return made


def shown_row(rows: Rows, number: int) -> str:
    """Says which row it is."""
    held_out = ", held out" if rows.file == TEST_FILE else ""
    return f"row {number} of {rows.part.name}{held_out}"


def _digests(rows: Rows) -> Iterator[tuple[int, bytes]]:
    """Gives each row with what tells it from others."""
    data = rows.data
    ids, mask, offsets = data.input_ids.numpy(), data.target_mask.numpy(), data.offsets.tolist()
    for number in rows.numbers.tolist():
        begin, end = offsets[number], offsets[number + 1]
        yield number, digest_of(ids[begin:end].tobytes(), mask[begin:end].tobytes())
