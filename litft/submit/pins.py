"""Which versions a submission installs: those that run here, and of the run's own packages those that trained."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from importlib import metadata

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
SERVING = ("fastapi", "uvicorn")
QUANTIZING = ("bitsandbytes",)
BUILDER = "setuptools"  # what builds the copy of litft in the image
TO_BUILD = "80.9.0"  # where no setuptools is installed here


def pinned(extra: Iterable[str], trained: dict[str, str]) -> dict[str, str]:
    """Gives name -> version of all packages that litft needs, with what those need themselves.

    Args:
        extra: packages beside the ones that litft always needs.
        trained: versions that the run wrote down; they are taken where they are of such a package.
    """
    found: dict[str, str] = {}
    waiting = [*_needs("litft"), *extra]
    while waiting:
        name = plain_name(waiting.pop())
        if name in found or name == "litft":
            continue
        try:
            found[name] = _public(metadata.version(name))
        except metadata.PackageNotFoundError:  # for another system, or another Python
            continue
        waiting += _needs(name)
    theirs = {plain_name(name): _public(version) for name, version in trained.items()}
    return {name: theirs.get(name, version) for name, version in sorted(found.items())}


def _needs(package: str) -> list[str]:
    """Gives the packages that one names as its own needs, those of extras left out."""
    lines = metadata.requires(package) or []
    plain = (line for line in lines if not re.search(r";.*\bextra\b", line))
    return [found[0] for line in plain if (found := NAME.match(line))]


def plain_name(name: str) -> str:
    """Gives a package's name as the index spells it. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _public(version: str) -> str:
    """Takes off what names a build, such as +cpu, which the index does not have. Source: PEP 440."""
    return version.partition("+")[0]


def builder_version() -> str:
    """Gives the version of what builds the copy of litft in the image."""
    try:
        return metadata.version(BUILDER)
    except metadata.PackageNotFoundError:
        return TO_BUILD


def python_version(trained: dict[str, str]) -> str:
    """Gives the Python that trained, or else this one."""
    return trained.get("python", platform.python_version())
