"""The words of this process as `ps` shows them to everybody on the machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def hide_argument(text: str) -> None:
    """Puts stars where a secret stands among the words that started this process; on Linux, elsewhere it stays.

    Source: proc(5); a process may write to its own words, whose place fields 48 and 49 of /proc/self/stat tell.

    Args:
        text: the secret; not empty.
    """
    secret = os.fsencode(text)
    with suppress(OSError):  # another system, or a sandbox without /proc
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()  # from field 3 on
        start, end = int(fields[45]), int(fields[46])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            words = memory.read(end - start)
            memory.seek(start)
            memory.write(words.replace(secret, b"*" * len(secret)))
