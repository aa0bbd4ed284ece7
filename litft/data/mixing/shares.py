"""How many rows of each part a mix takes, and which. Knows no text and no order.

Shares are kept as far as rows allow: the mix is as large as the scarcest folder lets it be, and no row stands in it
more often than `repeats` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from litft.config.mix import MixConfig
from litft.data.mixing.parts import Rows
from litft.errors import DataError


def choose(config: MixConfig, rows: Sequence[Rows]) -> list[Rows]:
    """Draws rows of each part, so many as its share asks for.

    Args:
        config: shares, caps, repeats, size and seed.
        rows: what there is of each part, in the order of the folders.

    Raises:
        DataError: there are too few rows for the size or the shares asked for.
    """
    generator = torch.Generator().manual_seed(config.seed)
    most, repeats, shares = config.max_rows or {}, config.repeats or {}, config.shares
    drawn = []
    for there in rows:
        order = torch.randperm(len(there), generator=generator)[: most.get(there.part.name)]
        drawn.append(there.only(there.numbers[order]))
    room = [_size(config, there) * repeats.get(there.part.name, 1) for there in drawn]
    if shares is None:
        return [_repeated(config, there, size) for there, size in zip(drawn, room, strict=True)]
    total = _total(config, shares, drawn, room)
    return [_repeated(config, there, total * shares[there.part.name]) for there in drawn]


def _total(config: MixConfig, shares: dict[str, float], rows: Sequence[Rows], room: Sequence[float]) -> float:
    """Gives how large the mix is."""
    sizes = {there.part.name: size for there, size in zip(rows, room, strict=True)}
    scarce = min(sizes, key=lambda name: sizes[name] / shares[name])
    largest = sizes[scarce] / shares[scarce]
    if not largest:
        raise DataError(f"{scarce} has a share of {shares[scarce]:.1%}, but no row of it is left; leave it away.")
    if config.total is not None and config.total > largest:
        raise DataError(
            f"total is {config.total}, but {scarce} has {sizes[scarce]:,.0f} {config.by.replace('_', ' ')} for a share "
            f"of {shares[scarce]:.1%}, enough for {largest:,.0f}; lower total, or raise its --repeats."
        )
    return largest if config.total is None else config.total


def _size(config: MixConfig, rows: Rows) -> int:
    """Gives how large rows are, in what the shares count."""
    return len(rows) if config.by == "examples" else int(rows.target_counts.sum())


def _repeated(config: MixConfig, rows: Rows, size: float) -> Rows:
    """Takes rows from the first on, and again from the first, until they are as large as asked for."""
    whole = _size(config, rows)
    passes = int(size // whole) if whole else 0
    rest = round(size - passes * whole)
    count = rest if config.by == "examples" else int((rows.target_counts.cumsum(0) <= rest).sum())
    return rows.only(torch.cat([*[rows.numbers] * passes, rows.numbers[:count]]))
