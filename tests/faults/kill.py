"""`kill -9`, of runs that are taken up again until they end: by the clock, and before every change of the disk."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from forked import Ended, Strike, after, before_operation, fork, litft, watching
from tiny_runs import World, differences, fresh, hurt, train, words

from litft.cli import main

IN_A_ROW = 4  # times that one run is killed at most, before it is left to end
HAS_ENDED = "has ended, there is nothing to resume"


def count_operations(world: World, method: str) -> int:
    """Gives how many changes of the disk a run makes in its folder."""
    out_dir, told = fresh(world.folder / "counted"), fresh(world.folder / "count")
    arm = lambda strike: watching(out_dir, lambda count: told.write_text(str(count)))  # noqa: E731
    train(world.folder, method, out_dir, arm)
    return int(told.read_text())


def strikes(
    seconds: float, operations: int, out_dir: Path, chance: random.Random
) -> Iterator[Callable[[Strike], None]]:
    """Gives ways to kill a run and what goes on from it: some by the clock, some by what they do."""
    for _ in range(chance.randint(1, IN_A_ROW)):
        if chance.random() < 0.5:
            yield after(chance.uniform(0.05, 1.1) * seconds)
        else:
            yield before_operation(chance.randint(1, operations), out_dir)


def kill_and_resume(
    world: World, method: str, ways: Iterator[Callable[[Strike], None]], places: Counter[str]
) -> list[str]:
    """Kills a run in each of these ways, one after the other, lets it end, and says what was lost.

    Args:
        world: with the run that nothing struck.
        method: of the run.
        ways: to kill it; it is taken up after each.
        places: counts where it was struck.
    """
    out_dir, faults = fresh(world.folder / "struck"), []
    for way in ways:
        ended = train(world.folder, method, out_dir, way)
        if ended.code == 0:
            break  # it had ended before it was struck
        if _is_over(ended):
            break
        if not ended.place:
            return [f"it ended with {ended.code} before it was struck: {ended.said[-500:]}"]
        places[ended.place] += 1
        faults += hurt(out_dir)
    return faults + finish(world, method, out_dir)


def finish(world: World, method: str, out_dir: Path) -> list[str]:
    """Lets a run end that was struck, and says in what it differs from the one that nothing struck."""
    ended = train(world.folder, method, out_dir)
    if _is_over(ended):  # it was killed while it drew its report, all else stands
        ended = litft(["report", str(out_dir)]).wait()
    if ended.code != 0:
        return [f"it did not go on: {ended.said[-500:]}"]
    return differences(world.straight(method), out_dir)


def _is_over(ended: Ended) -> bool:
    """Says whether a run had written all but its report when it was killed."""
    return ended.code == 2 and HAS_ENDED in ended.said


def kill_overwriting(world: World, method: str, operations: int, chance: random.Random) -> list[str]:
    """Kills a run that replaces another one, at its beginning, and says whether the same command still does it."""
    out_dir = fresh(world.folder / "struck")
    train(world.folder, method, out_dir, after(0.6 * world.seconds[method]))
    command = [*words(world.folder, method, out_dir)[:-1], "--overwrite=true"]
    fork(lambda: main(command), before_operation(chance.randint(1, operations), out_dir)).wait()
    ended = fork(lambda: main(command)).wait()
    if ended.code:
        return [f"it did not begin again: {ended.said[-500:]}"]
    return differences(world.straight(method), out_dir)
