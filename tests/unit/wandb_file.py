"""Reads what an offline run left for `wandb sync`: a LevelDB log of protobuf records.

Source: wandb 0.31, wandb-core's `transactionlog`; https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

FILE_HEADER, BLOCK, HEADER = 7, 32768, 7
FIRST, LAST = (1, 2), (1, 4)  # kinds of a piece that begins or ends a record


@dataclass
class LoggedRun:
    """What was logged."""

    run_id: str = ""
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    artifacts: list[tuple[str, str, set[str]]] = field(default_factory=list)


def read_wandb(path: Path) -> LoggedRun:
    """Gives what was logged in one start of a run."""
    run = LoggedRun()
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.run_id = record.run.run_id
            run.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            items = record.history.item
            run.history.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
        elif kind == "artifact":
            names = {entry.path for entry in record.artifact.manifest.contents}
            run.artifacts.append((record.artifact.type, record.artifact.name, names))
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _records(content: bytes) -> Iterator[Record]:
    """Gives the records of a file; one may lie in several pieces, of which none crosses the end of a block."""
    place, whole = FILE_HEADER, b""
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        size, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        whole = (b"" if kind in FIRST else whole) + content[place + HEADER : place + HEADER + size]
        place += HEADER + size
        if kind in LAST:
            record = Record()
            record.ParseFromString(whole)
            yield record
