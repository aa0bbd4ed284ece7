"""Safe writing: files that appear whole or not at all, folders that no command takes by accident. Knows no model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litft.errors import CheckpointError, ConfigError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, which becomes `path` if the block ends well and vanishes if it does not.

    Args:
        path: the file that is to appear whole or not at all; its folder exists.
    """
    remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
        _flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Removes what killed processes left of an `atomic_path`; those that still run on this machine keep theirs.

    Args:
        path: the file that they were to write.
    """
    name = re.compile(re.escape(f".{path.name}.") + r"(\d{1,9})\.tmp")
    for found in path.parent.iterdir():
        match = name.fullmatch(found.name)
        if match and not _is_running(int(match[1])):
            found.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    """Says whether a process of this number exists, whoever's it is."""
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush_to_disk(path: Path) -> None:
    """Waits until a file's contents, or a folder's list of names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(temporary: Path, target: Path) -> None:
    """Lets a folder that was built under another name appear as `target`, whole, in place of a former one.

    Args:
        temporary: beside target; every file in it is flushed first.
        target: what it becomes.
    """
    for path in (*temporary.rglob("*"), temporary):
        _flush_to_disk(path)
    former = target.with_name(f".{target.name}.{os.getpid()}.former")
    if target.exists():
        target.rename(former)
    temporary.rename(target)
    _flush_to_disk(target.parent)
    shutil.rmtree(former, ignore_errors=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder beside `target`, which becomes `target` if the block ends well and vanishes if it does not.

    Args:
        target: the folder that is to appear whole or not at all, in place of a former one; its parents are made.
    """
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        publish_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Gives the SHA-256 of a file as hexadecimal digits, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def weights_sha256(path: Path) -> str:
    """Gives the SHA-256 of a weight file; what it once was is kept beside it, in `NAME.sha256`.

    Args:
        path: the weights. Their former digest is believed while their size and time are what they were then.
    """
    cache = path.with_name(f"{path.name}.sha256")
    found = path.stat()
    mark = [str(found.st_size), str(found.st_mtime_ns)]
    if cache.is_file():
        digest, *former = cache.read_text(encoding="ascii", errors="replace").split() or [""]
        if former == mark and re.fullmatch("[0-9a-f]{64}", digest):
            return digest
    digest = sha256_file(path)
    with contextlib.suppress(OSError), atomic_path(cache) as temporary:  # a folder that may only be read: no cache
        temporary.write_text(" ".join([digest, *mark]) + "\n", encoding="ascii")
    return digest


def require_space(folder: Path, needed_bytes: int) -> int:
    """Refuses to start writing what will not fit.

    Args:
        folder: exists, on the disk to be written.
        needed_bytes: how much will be written.

    Returns:
        How many bytes are free.

    Raises:
        CheckpointError: less is free than is needed.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise CheckpointError(
            f"{folder} has {plain_size(free_bytes)} free and {plain_size(needed_bytes)} are needed; "
            "free some space or choose another disk."
        )
    return free_bytes


def plain_size(n_bytes: int) -> str:
    """Gives a size as a person reads it, such as 2.2 GB."""
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


def require_free(out_dir: Path, overwrite: bool, mark: str, advice: str, inputs: Iterable[Path] = ()) -> None:
    """Refuses an out_dir that a command must not write to.

    Args:
        out_dir: where the result would go.
        overwrite: a former result of the same command may be replaced.
        mark: the file by which such a result is known.
        advice: what to do when it is not empty, after "is not empty; ".
        inputs: folders that the command reads.

    Raises:
        ConfigError: out_dir is or lies in a file, holds what is read, or holds something and either overwrite is not
            set or it is no result of this command.
    """
    for folder in (out_dir, *out_dir.parents):
        if folder.is_file():
            raise ConfigError(f"out_dir is {out_dir}, but {folder} is a file; name a folder.")
    for folder in inputs:
        if folder.resolve().is_relative_to(out_dir.resolve()):
            raise ConfigError(f"out_dir {out_dir} holds {folder}, which this command reads; name another --out_dir.")
    if not out_dir.is_dir() or not any(out_dir.iterdir()):
        return
    if not overwrite:
        raise ConfigError(f"out_dir {out_dir} is not empty; {advice}.")
    if not (out_dir / mark).exists():
        raise ConfigError(f"out_dir {out_dir} holds no {mark}, so this command did not write it; it is not replaced.")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, is not JSON, or holds something else than an object.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error.strerror}; is {path.parent} a model folder?") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}); download it again.") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}; a JSON object is needed.")
    return loaded


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a JSON object, indented as Hugging Face does."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
