"""YAML files that begin with the sha256 of the rest, so that one damaged bit in them is known before they are used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from litft.checkpoint.disk import atomic_path
from litft.config.io import dump_yaml, load_yaml
from litft.errors import ConfigError

_SEAL = b"# sha256 of the rest: "


def seal(text: str) -> str:
    """Gives a text with the line above it by which `load_sealed` knows that it is whole."""
    return f"{_SEAL.decode()}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def write_sealed(path: Path, values: dict[str, Any]) -> None:
    """Writes plain types as YAML under their seal, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(seal(dump_yaml(values)), encoding="utf-8")


def load_sealed(path: Path) -> dict[str, Any]:
    """Reads such a file; one without a seal is read too: if damage took that, all else is whole.

    Raises:
        ConfigError: it is missing, is no YAML, or is not what was written.
    """
    values = load_yaml(path)
    first, _, rest = path.read_bytes().partition(b"\n")
    is_sealed = _SEAL.strip(b"# :") in first
    if is_sealed and first != _SEAL + hashlib.sha256(rest).hexdigest().encode():
        raise ConfigError(f"{path} is damaged or was changed: its sha256 is not the one in its first line.")
    return values
