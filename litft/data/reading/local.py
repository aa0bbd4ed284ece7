"""Finding the files that the user names, one or a folder of them. Knows no formats and no network."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from litft.data.paths import path_hint
from litft.data.reading.faults import listed
from litft.data.reading.rows import Source
from litft.errors import DataError

# What `datasets` and the hub lay beside files of rows, to describe them.
DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")

# One of several files: `train-00000-of-00004`, and what may follow of it before the ending.
PART = re.compile(r"\d+-of-(\d+)[^.]*")


def local_files(source: Source, path: Path) -> list[Path]:
    """Gives the user's file, or the files of a folder in the order of their names.

    Args:
        source: the dataset.
        path: what the user named.

    Raises:
        DataError: there is no such file, with the nearest that is; or it cannot be read.
    """
    if path.is_file():
        _refuse_closed(path)
        return [path]
    if not path.is_dir():
        what = _no_file(path)
        raise DataError(f"data_file {path} {what}." if what else f"There is no data_file {path}.{path_hint(path)}")
    for found in _matching(source, path).values():
        for entry in found:
            if not entry.is_file():
                raise DataError(f"data_file {path} holds {entry.name}, which {_no_file(entry)}.")
            if not entry.stat().st_size:
                raise DataError(f"data_file {path} holds {entry.name}, which is empty; remove it or fetch it again.")
            _refuse_closed(entry)
        return found
    inside = sorted(entry.name for entry in path.iterdir() if entry.is_file())[:5]
    holds = f"it holds {', '.join(inside)}" if inside else "it holds no files"
    if source.folder_files:
        raise DataError(f"data_file {path} has no {' or '.join(source.folder_files)}; {holds}.")
    raise DataError(f"data_file {path} is a folder, not a file; {holds}.")


def _matching(source: Source, folder: Path) -> dict[str, list[Path]]:
    """Gives the files of a folder by the dataset's patterns that they fit, in the order of those; none is empty."""
    fitting = {
        pattern: sorted(entry for entry in folder.glob(pattern) if not entry.is_dir() and not _is_aside(entry.name))
        for pattern in source.folder_files
    }
    return {pattern: found for pattern, found in fitting.items() if found}


def _is_aside(name: str) -> bool:
    """Says whether a name is that of a file beside the rows: one that is hidden, or describes them."""
    return name.startswith(".") or name in DESCRIPTIONS


def folder_faults(source: Source, data_file: Path | None) -> list[str]:
    """Gives a sentence on the files of a folder that are not read because others are, and on those that are missing.

    Args:
        source: the dataset.
        data_file: as `find_files` takes it.
    """
    if data_file is None or not data_file.expanduser().is_dir():
        return []
    (pattern, read), *others = _matching(source, data_file.expanduser()).items()
    left = dict.fromkeys(path.name for _, found in others for path in found if path not in read)
    faults = [f"{data_file} has {there} of the {wanted} files {names}." for names, there, wanted in incomplete(read)]
    return faults + [f"Not read of {data_file}: {listed(left)}; of this folder only {pattern} is read."] * bool(left)


def incomplete(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Gives each set of files numbered `-00001-of-00003` that is not whole: its names, how many there are, of how many.

    Args:
        paths: of all files.
    """
    sets = Counter(PART.sub(r"*-of-\1", path.name) for path in paths if PART.search(path.name))
    wanted = {names: int(names.partition("*-of-")[2].partition(".")[0]) for names in sets}
    return [(names, there, wanted[names]) for names, there in sets.items() if there != wanted[names]]


def _refuse_closed(path: Path) -> None:
    """Refuses a file that may not be read, of which each library would say something else."""
    if not os.access(path, os.R_OK):
        raise DataError(f"Cannot read data_file {path}: permission denied.")


def _no_file(path: Path) -> str | None:
    """Says what stands under a name that is neither a file nor a folder; None where nothing does."""
    if path.exists():
        return "is a pipe or a device, which can be read only once; write its rows to a file, and name that"
    return "is a link that leads to no file; mend the link, or name the file itself" if path.is_symlink() else None
