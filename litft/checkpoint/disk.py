"""Safe writing: files that appear whole or not at all, folders that no command takes by accident. Knows no model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litft.errors import CheckpointError, ConfigError

# What is being written, replaced or removed has such a name, until it is done.
_UNFINISHED = re.compile(r"\..+\.(?:(?P<pid>\d{1,9})\.(?:tmp|former|gone)|partial)")
_DIGEST_SUFFIX = ".sha256"
_LARGEST_JSON = 2**26  # bytes; an index of the largest models has two millions


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
    """Removes what killed processes left beside a file or folder; those that still run on this machine keep theirs.

    Args:
        path: what they were to write or to replace.
    """
    name = re.compile(re.escape(f".{path.name}.") + r"(\d{1,9})\.(tmp|former|gone)")
    for found in path.parent.iterdir():
        match = name.fullmatch(found.name)
        if match and not _is_running(int(match[1])):
            _remove(found)


def remove_unfinished(folder: Path) -> None:
    """Removes what killed processes left half written, half replaced or half removed in a folder that one run owns.

    Args:
        folder: its own files, and those of the folders right below it; this process has written nothing there yet.
    """
    for found in [*folder.glob(".*"), *folder.glob("*/.*")]:
        match = _UNFINISHED.fullmatch(found.name)
        pid = int(match["pid"] or os.getpid()) if match else None
        if pid is not None and (pid == os.getpid() or not _is_running(pid)):
            _remove(found)


def _remove(found: Path) -> None:
    """Removes a file, or a folder and all in it."""
    if found.is_dir():
        shutil.rmtree(found)
    else:
        found.unlink(missing_ok=True)


def is_empty(folder: Path) -> bool:
    """Says whether a folder is not there or holds nothing, but for what a killed process left half written."""
    return not folder.is_dir() or all(_UNFINISHED.fullmatch(found.name) for found in folder.iterdir())


def remove_folder(folder: Path) -> None:
    """Removes a folder that must not be met half removed: it loses its name first."""
    gone = folder.with_name(f".{folder.name}.{os.getpid()}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


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
    remove_leftovers(target)
    former = target.with_name(f".{target.name}.{os.getpid()}.former")
    shutil.rmtree(former, ignore_errors=True)  # of a process that was killed here and had this one's number
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
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")  # two that write the same never mix
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    remove_leftovers(target)
    try:
        yield temporary
        publish_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Gives the SHA-256 of a file as hexadecimal digits, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 16):
            digest.update(piece)
    return digest.hexdigest()


def flush_and_hash(path: Path) -> str:
    """Gives the SHA-256 of a file that was just written, computed while the disk takes it."""
    with ThreadPoolExecutor(1) as beside:
        flushed = beside.submit(_flush_to_disk, path)
        digest = sha256_file(path)
        flushed.result()
    return digest


def weights_sha256(path: Path) -> str:
    """Gives the SHA-256 of a weight file, which is kept beside it in `NAME.sha256`.

    Args:
        path: the weights. What is kept is believed while their size and times are what they were then.

    Raises:
        CheckpointError: they are no longer what they were when it was kept.
    """
    kept = _digest_file(path)
    digest, mark = _kept_digest(kept)
    if digest and mark == _mark(path):
        return digest
    found = sha256_file(path)
    if digest and digest != found:
        raise CheckpointError(
            f"{path} has changed since it was written or first used: its sha256 is not the one in {kept}. Make or "
            f"download it again, or remove {kept.name} if the change is meant."
        )
    _keep(path, found)
    return found


def keep_sha256(path: Path, digest: str | None = None) -> None:
    """Keeps the SHA-256 of weights that were just written, so that damage is found when they are used.

    Args:
        path: the weights.
        digest: where it is known; else they are read.
    """
    _keep(path, digest or sha256_file(path))


def kept_sha256(path: Path) -> str | None:
    """Gives the SHA-256 that is kept of weights, whatever they are now; None where none is."""
    return _kept_digest(_digest_file(path))[0]


def sha256_of_files(folder: Path) -> dict[str, str]:
    """Gives the SHA-256 of each file in a folder that was just written, by its name; what is kept is believed."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != _DIGEST_SUFFIX)
    return {path.relative_to(folder).as_posix(): _kept_or_read(path) for path in found}


def _kept_or_read(path: Path) -> str:
    """Gives the digest that is kept of a file that was not touched since, or reads it."""
    digest, mark = _kept_digest(_digest_file(path))
    return digest if digest and mark == _mark(path) else sha256_file(path)


def require_unchanged(path: Path) -> None:
    """Refuses weights that are no longer what they were; those whose digest nobody kept are not read for it.

    Raises:
        CheckpointError: as `weights_sha256`.
    """
    if _kept_digest(_digest_file(path))[0]:
        weights_sha256(path)


def forget_sha256(path: Path) -> None:
    """Drops what is kept of weights that are about to be replaced."""
    _digest_file(path).unlink(missing_ok=True)


def _digest_file(path: Path) -> Path:
    """Gives the file beside the weights that keeps their digest."""
    return path.with_name(f"{path.name}{_DIGEST_SUFFIX}")


def _mark(path: Path) -> list[str]:
    """Gives what a file that was not touched keeps; its ctime changes also where a tool sets the mtime back."""
    found = path.stat()
    return [str(found.st_size), str(found.st_mtime_ns), str(found.st_ctime_ns)]


def _kept_digest(kept: Path) -> tuple[str | None, list[str]]:
    """Gives a kept digest, None where none is there or it is damaged itself, and the mark of the file that it is of."""
    if not kept.is_file():
        return None, []
    *words, check = kept.read_text(encoding="ascii", errors="replace").split() or [""]
    is_whole = len(words) == 4 and check == _check_of(words)
    return (words[0], words[1:]) if is_whole else (None, [])


def _check_of(words: list[str]) -> str:
    """Gives the word that ends a kept digest, by which it is known to be whole."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def _keep(path: Path, digest: str) -> None:
    """Writes a digest beside its file; not in a folder that may only be read."""
    words = [digest, *_mark(path)]
    with contextlib.suppress(OSError), atomic_path(_digest_file(path)) as temporary:
        temporary.write_text(" ".join([*words, _check_of(words)]) + "\n", encoding="ascii")


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
    if is_empty(out_dir):
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
        if (size := path.stat().st_size) > _LARGEST_JSON:
            raise CheckpointError(f"{path} has {size:,} bytes; such a file has {_LARGEST_JSON:,} at most.")
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
