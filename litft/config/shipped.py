"""The files of settings that litft brings, found by their names wherever litft is installed. Reads none of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from litft.errors import ConfigError, did_you_mean

HUB = "config_hub"  # a folder of a checkout, and in an installed litft a part of the package


def find_config(path: Path) -> Path:
    """Gives the file that is meant: `path` itself, or the one of that name that litft brings.

    Args:
        path: as it was typed; `config_hub/neurips/4090.yaml` is found from any folder.

    Raises:
        ConfigError: it begins with `config_hub`, and litft brings no such file.
    """
    if path.exists() or path.parts[:1] != (HUB,):
        return path
    found = shipped_configs()
    if str(path) not in found:
        hint = did_you_mean(str(path), found)
        raise ConfigError(f"There is no {path}, neither here nor with litft.{hint} `litft list configs` shows all.")
    return found[str(path)]


def shipped_configs() -> dict[str, Path]:
    """Gives the files that litft brings by the names to type, such as `config_hub/neurips/4090.yaml`."""
    return {
        f"{HUB}/{path.relative_to(place).as_posix()}": path for place in _places() for path in place.rglob("*.yaml")
    }


def _places() -> Iterator[Path]:
    """Gives the folder of the package, if there is one."""
    spec = find_spec("litft.config_hub")
    if spec is not None and spec.submodule_search_locations:
        yield Path(next(iter(spec.submodule_search_locations)))
