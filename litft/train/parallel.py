"""Several processes train one model: whose rows are whose, what they tell each other, and how they stop together.

With one process each function here gives back what it was given. Knows rows and numbers, no model; the weights of
several processes are in parts.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

from litft.data.batches import Batching, MicroBatch, iter_micro_batches
from litft.data.store import PreparedData
from litft.errors import LitftError, StoppedElsewhereError, TrainingError

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")


@dataclass(frozen=True)
class Share:
    """What one process computes of a window.

    Attributes:
        micro_batches: its own.
        idle: computed for nothing, so that all processes make the same number of passes; see `own_share`.
        target_tokens, tokens, padding_tokens: of the whole window, over all processes.
    """

    micro_batches: list[MicroBatch]
    idle: list[MicroBatch]
    target_tokens: int
    tokens: int
    padding_tokens: int


def is_cut(fabric: Fabric) -> bool:
    """Says whether each process holds only a part of the weights, so that every pass needs all processes in step."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def deal(rows: Sequence[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    """Deals rows to processes, to each about as many rows and tokens: longest first, there and back again.

    Args:
        rows: in any order.
        lengths: tokens of each of them.
        count: processes.

    Returns:
        The rows of each process, at most one more than of another; with one process, the rows as they are.
    """
    if count == 1:
        return [list(rows)]
    hands: list[list[int]] = [[] for _ in range(count)]
    ordered = sorted(range(len(rows)), key=lambda place: lengths[place], reverse=True)
    for turn, place in enumerate(ordered):
        around, seat = divmod(turn, count)
        hands[seat if around % 2 == 0 else count - 1 - seat].append(rows[place])
    return hands


def own_share(fabric: Fabric, data: PreparedData, rows: Sequence[int], batching: Batching) -> Share:
    """Gives what this process computes of a window, and the counts of all of it.

    Where the weights are cut, each pass through a block is a call to all processes: those with fewer micro-batches
    compute the shortest row again, and count it nowhere.

    Args:
        fabric: of the run.
        data: the prepared file.
        rows: of the whole window.
        batching: how a process splits its rows.
    """
    lengths = [int(data.lengths[row]) for row in rows]
    own = deal(rows, lengths, fabric.world_size)[fabric.global_rank]
    batches = list(iter_micro_batches(data, own, batching))
    numbers = (
        len(batches),
        sum(batch.target_tokens for batch in batches),
        sum(batch.tokens for batch in batches),
        sum(batch.padding_tokens for batch in batches),
    )
    passes, *sums = zip(*gather(fabric, numbers), strict=True)
    missing = max(passes) - len(batches) if is_cut(fabric) else 0
    shortest = min(zip(lengths, rows, strict=True))[1]
    idle = list(iter_micro_batches(data, [shortest], batching)) * missing
    return Share(batches, idle, *(sum(parts) for parts in sums))


def gather(fabric: Fabric, value: Value) -> list[Value]:
    """Gives the value of every process, in their order, to all of them."""
    if fabric.world_size == 1:
        return [value]
    values: list[Any] = [None] * fabric.world_size
    dist.all_gather_object(values, value, group=cast(Any, fabric.strategy).words)
    return values


def from_first(fabric: Fabric, value: Value) -> Value:
    """Gives the first process's value to all: what a clock or a disk decides must be decided once."""
    return gather(fabric, value)[0]


def add_up(fabric: Fabric, *numbers: float) -> list[float]:
    """Gives the sums of these numbers over all processes, the same to each of them."""
    return [math.fsum(parts) for parts in zip(*gather(fabric, numbers), strict=True)]


@contextmanager
def failing_together(fabric: Fabric) -> Iterator[None]:
    """Lets a mistake or a full disk of one process in the block stop all of them at its end; the first one tells it.

    The block must not call the other processes.

    Raises:
        LitftError: on the first process, what went wrong there or elsewhere.
        StoppedElsewhereError: on the others.
    """
    error: LitftError | OSError | None = None
    try:
        yield
    except (LitftError, OSError) as found:
        error = found
    said = gather(fabric, None if error is None else str(error))
    if error is not None and fabric.global_rank == 0:
        raise error
    for rank, text in enumerate(said):
        if text is not None:
            raise told(fabric, TrainingError(f"Process {rank} of {fabric.world_size}: {text}")) from error


def told(fabric: Fabric, error: BaseException) -> BaseException:
    """Gives what this process raises where all processes raise the same error: the first one alone says it."""
    return error if fabric.global_rank == 0 else StoppedElsewhereError(str(error))


def noticing_the_lost(work: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """Gives the same function of a run, which turns a call to a process that is no more into a sentence.

    It raises TrainingError in the first process that lives, and StoppedElsewhereError in the others.
    """

    @functools.wraps(work)
    def watched(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Value:
        try:
            return work(*args, **kwargs)
        except RuntimeError as error:
            fabric = cast(Any, args[0]).fabric
            is_lost = isinstance(error, dist.DistError) or "gloo" in str(error).lower()
            if fabric.world_size == 1 or not is_lost:
                raise
            raise _losing(fabric) from error

    return watched


def _losing(fabric: Fabric) -> LitftError:
    """Gives what this process raises where another one is lost: one that lives says which, and what became of it."""
    watch = getattr(fabric.strategy, "watch", None)
    lost: dict[int, str] = watch.lost() if watch else {}
    what = "Another process of this run has ended or does not answer; what it said, if anything, stands above."
    for rank, fate in list(lost.items())[:1]:
        what = f"Process {rank} of {fabric.world_size} {fate}."
    speaker = min(rank for rank in range(fabric.world_size) if rank not in lost)
    what += " The last checkpoint stays; --resume auto goes on from it."
    return TrainingError(what) if fabric.global_rank == speaker else StoppedElsewhereError(what)


def seed_apart(fabric: Fabric, seed: int) -> None:
    """Gives each process its own chance, of dropout; that of the first stays as it is with one process."""
    if fabric.global_rank > 0:
        torch.manual_seed(seed * 1_000_003 + fabric.global_rank)
