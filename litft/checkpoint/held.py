"""A folder that one process writes to, and no other meanwhile: two runs in one folder would mix their files."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from litft.errors import ConfigError

# What a file system answers that keeps no locks of folders, as NFS, which asks for a file that may be written.
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_held: dict[Path, int] = {}  # of this process, by the folder


def hold_folder(folder: Path, advice: str) -> None:
    """Keeps a folder for this process until it lets go of it or ends, however it ends; nothing is written for that.

    Where the file system keeps no such locks, as some network ones do not, nobody is kept out.

    Args:
        folder: exists. One that this process holds already, as after a run that failed, it goes on holding.
        advice: what to do where another process holds it, as an imperative.

    Raises:
        ConfigError: another process holds it.
    """
    release_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(f"Another process writes to {folder} now; {advice}.") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
    _held[folder.resolve()] = descriptor


def release_folder(folder: Path) -> None:
    """Lets go of a folder, if this process holds it."""
    descriptor = _held.pop(folder.resolve(), None)
    if descriptor is not None:
        os.close(descriptor)
