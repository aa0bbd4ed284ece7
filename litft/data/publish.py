"""The folder of prepared data: written whole, or marked unfinished by a missing manifest. Knows no rows."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import atomic_path, sha256_file
from litft.checkpoint.sealed import seal
from litft.config.io import dump_yaml
from litft.data.kept import Part
from litft.data.store import MANIFEST_FILE, TEST_FILE, TRAIN_FILE, save_prepared
from litft.data.vocabulary import publish_tokenizer
from litft.errors import DataError


def refuse_taken(destination: Path, overwrite: bool) -> None:
    """Refuses to replace data that nobody asked to replace.

    Raises:
        DataError: the folder is taken.
    """
    if destination.exists() and not destination.is_dir():
        raise DataError(f"destination_path {destination} is a file; name a folder.")
    found = next((name for name in (MANIFEST_FILE, TRAIN_FILE) if (destination / name).exists()), None)
    if found and not overwrite:
        raise DataError(
            f"destination_path {destination} already holds prepared data ({found}); name another folder, or replace it "
            "with --overwrite true."
        )


def damaged_file(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Path | None:
    """Gives a file of prepared data that is missing or was changed; None where all are as they were written.

    Args:
        folder: the data.
        files: what its manifest says of them.
    """
    for name, values in files.items():
        if not (folder / name).is_file() or sha256_file(folder / name) != values["sha256"]:
            return folder / name
    return None


def publish(
    destination: Path,
    parts: dict[str, Part],
    meta: dict[str, Any],
    manifest: dict[str, Any],
    tokenizer: Path | None,
    texts: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Writes the folder. The old manifest goes before the first new file comes, the new one comes last.

    Args:
        destination: the folder.
        parts: for each file its rows.
        meta: what a finetuning must know of them.
        manifest: what is said of them; `files` is added.
        tokenizer: a folder with the tokenizer that goes with them; None where it is the model's.
        texts: other files and what they say; an empty one is not there, nor its former self.

    Returns:
        For each file its rows, tokens and sha256.

    Raises:
        DataError: it cannot be written.
    """
    files: dict[str, Any] = {
        name: {"rows": len(part["source"]), "tokens": len(part["input_ids"])} for name, part in parts.items()
    }
    written = {name: text for name, text in (texts or {}).items() if text}
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            described = stack.enter_context(atomic_path(destination / MANIFEST_FILE))  # the first gets its name last
            for name, tensors in parts.items():
                path = stack.enter_context(atomic_path(destination / name))
                save_prepared(path, **tensors, meta=meta)
                files[name]["sha256"] = sha256_file(path)
            for name, text in written.items():
                stack.enter_context(atomic_path(destination / name)).write_text(text, encoding="utf-8")
            described.write_text(seal(dump_yaml({**manifest, "files": files})), encoding="utf-8")
            # All of it has found its space: what was there may go.
            for name in (MANIFEST_FILE, TEST_FILE, *(texts or {})):
                if name not in parts and name not in written:
                    (destination / name).unlink(missing_ok=True)
            publish_tokenizer(tokenizer, destination)
    except OSError as error:
        raise DataError(f"Cannot write to destination_path {destination}: {error.strerror}.") from error
    return files
