"""An append-only file of JSON Lines that outlives a killed run: what is done is never done again. Knows no models."""

from __future__ import annotations

import contextlib
import fcntl
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from litft.errors import DataError


class Journal:
    """What is done so far, line by line.

    Attributes:
        path: the file.
        entries: what it held when it was opened.
    """

    def __init__(self, path: Path, head: dict[str, Any] | None = None, restart: bool = False) -> None:
        """Opens a journal, or begins one; its folder is made.

        Args:
            path: the file. A last line that a kill cut short is taken off.
            head: the first entry of a new journal, written with the next.
            restart: forget what it holds.

        Raises:
            DataError: another process writes to it, it cannot be written, or a line of it is no JSON object.
        """
        self.path = path
        self._made = [folder for folder in path.parents if not folder.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab+")
        except OSError as error:
            raise DataError(f"Cannot write {path}: {error.strerror}.") from error
        try:
            self._claim()
            if restart:
                self._file.truncate(0)
            self.entries = self._read()
        except DataError:
            self._file.close()
            raise
        self._head = head if not self.entries else None

    def add(self, *entries: dict[str, Any]) -> None:
        """Writes entries behind the others, and hands them to the system before it returns."""
        text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
        if self._head is not None:
            text = json.dumps(self._head, ensure_ascii=False) + "\n" + text
            self._head = None
        self._file.write(text.encode("utf-8", "surrogatepass"))
        self._file.flush()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.tell():  # nothing was done: nothing is left behind
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others may have written there
                for folder in self._made:
                    folder.rmdir()
        self._file.close()

    def _claim(self) -> None:
        """Keeps other processes away until this one ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"Another litft is writing {self.path}; wait for it, or name another place.") from error

    def _read(self) -> list[dict[str, Any]]:
        """Gives the entries, and takes off what stands behind the last whole line."""
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        self._file.truncate(whole)
        return [self._entry(number, line) for number, line in enumerate(content[:whole].splitlines(), start=1)]

    def _entry(self, number: int, line: bytes) -> dict[str, Any]:
        """Reads one line."""
        try:
            entry = json.loads(line.decode("utf-8", "surrogatepass"))
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise DataError(f"{self.path}, line {number} is damaged; remove the line, or the file to begin again.")
        return entry
