"""Bytes that change on the disk: each damaged file is found before it is used, and named; what is whole is taken."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from forked import Ended, litft, watching
from tiny_runs import World, differences, fresh, train, words

PAGE = 4096
STEP_FILES = ("trainable", "optimizer", "rng", "row_losses")


def flip(path: Path, chance: random.Random) -> None:
    """Turns one bit round."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def cut(path: Path, chance: random.Random) -> None:
    """Leaves only a beginning, down to nothing."""
    os.truncate(path, chance.randrange(path.stat().st_size))


def zero(path: Path, chance: random.Random) -> None:
    """Makes a page of it zeros, as a disk does that lost it; it had other bytes."""
    content = path.read_bytes()
    while True:
        begin = chance.randrange(0, len(content), PAGE)
        if any(content[begin : begin + PAGE]):
            break
    length = min(PAGE, len(content) - begin)
    path.write_bytes(content[:begin] + bytes(length) + content[begin + length :])


def swap(path: Path, chance: random.Random) -> None:
    """Exchanges it with another file beside it, of the same kind where there is one."""
    beside = [each for each in sorted(path.parent.iterdir()) if each.is_file() and each != path]
    alike = [each for each in beside if each.suffix == path.suffix] or beside
    other, third = chance.choice(alike), path.with_name("third")
    path.rename(third)
    other.rename(path)
    third.rename(other)


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {"flip": flip, "cut": cut, "zero": zero, "swap": swap}


def damage(path: Path, kind: str, chance: random.Random) -> None:
    """Damages a file in one way; its time stays as it was, as that of a file that rotted."""
    before = path.stat()
    DAMAGES[kind](path, chance)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def make_cut_run(world: World, method: str) -> Path:
    """Gives the folder of a run that was killed and has three step checkpoints."""
    out_dir = fresh(world.folder / f"cut-{method}")
    last = out_dir / "step-00000020"
    train(
        world.folder, method, out_dir, lambda strike: watching(out_dir, lambda _: strike() if last.exists() else None)
    )
    assert last.exists(), method
    return out_dir


def damage_step(world: World, method: str, name: str, kind: str, chance: random.Random) -> list[str]:
    """Damages a file of the newest step checkpoint, and says whether the run goes on from the one before.

    Args:
        world: holds `cut-METHOD`, from `make_cut_run`.
        method: of the run.
        name: of the file; `folder` exchanges the newest checkpoint with the one before.
        kind: of damage.
        chance: where.
    """
    out_dir = fresh(world.folder / "struck")
    shutil.copytree(world.folder / f"cut-{method}", out_dir)
    newest = out_dir / "step-00000020"
    if name == "folder":
        swap_folders(newest, out_dir / "step-00000015")
    else:
        damage(newest / name, kind, chance)
    ended = train(world.folder, method, out_dir)
    faults = [] if ended.code == 0 else [f"it did not go on: {ended.said[-500:]}"]
    if f"Warning: {newest}" not in ended.said or "Taking the one before." not in ended.said:
        faults.append(f"nobody was warned: {ended.said[:500]}")
    return faults + differences(world.straight(method), out_dir)


def swap_folders(one: Path, other: Path) -> None:
    """Exchanges two folders."""
    third = one.with_name("third")
    one.rename(third)
    other.rename(one)
    third.rename(other)


def damage_input(world: World, name: str, kind: str, chance: random.Random) -> list[str]:
    """Damages what a run reads, and says whether it is refused in one sentence before it is used.

    Args:
        world: where a run has been.
        name: the file below the world's folder.
        kind: of damage.
        chance: where.
    """
    copy = fresh(world.folder / "copied")
    for part in ("model", "data"):
        shutil.copytree(world.folder / part, copy / part)
    damage(copy / name, kind, chance)
    out_dir = copy / "out"
    faults = _refused(litft(words(copy, "lora", out_dir)).wait(), copy / name)
    if out_dir.exists():
        faults.append(f"{out_dir} was begun")
    if name.startswith("model"):
        asked = ["generate", f"--checkpoint_dir={copy / 'model'}", "--prompt=a", "--max_new_tokens=2"]
        faults += _refused(litft(asked).wait(), copy / name)
    return faults


def damage_result(world: World, method: str, kind: str, chance: random.Random) -> list[str]:
    """Damages the weights of a finished run, and says whether they are refused in one sentence."""
    copy = fresh(world.folder / "copied")
    shutil.copytree(world.straight(method) / "final", copy)
    weights = next(copy.glob("*.safetensors"))
    damage(weights, kind, chance)
    return _refused(litft(["generate", f"--checkpoint_dir={copy}", "--prompt=a", "--max_new_tokens=2"]).wait(), weights)


def _refused(ended: Ended, path: Path) -> list[str]:
    """Says what of a refusal was not as promised."""
    if ended.code != 2 or len(ended.sentences) != 1 or "Traceback" in ended.said:
        return [f"{path} was not refused: {ended.code} {ended.said[-500:]}"]
    said = ended.sentences[0]
    return [] if path.name in said or str(path.parent) in said else [f"{path} is not named: {said}"]
