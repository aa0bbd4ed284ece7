"""The exact versions that are installed of what litft needs, as a constraints file; nothing that merely lies beside it.

`--runtime` leaves out what only the tests need. Suffixes of local builds such as +cpu are left out: no index has them.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEAD = """\
# Made by `make constraints`: what the demo and the tests were last run with, on Python {python}.
# pip install -c constraints.txt 'litft[serve]'
"""


def main() -> None:
    """Writes them to stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", action="store_true", help="without what only the tests need")
    is_runtime = parser.parse_args().runtime
    lines = [f"{name}=={distribution(name).version.partition('+')[0]}\n" for name in sorted(needed(is_runtime))]
    head = HEAD.format(python=".".join(platform.python_version_tuple()[:2]))
    sys.stdout.writelines(["" if is_runtime else head, *lines])


def needed(is_runtime: bool) -> set[str]:
    """Gives the names of all packages that litft needs and that are installed.

    Args:
        is_runtime: whether the extra `dev` is left out.
    """
    extras = set(distribution("litft").metadata.get_all("Provides-Extra") or ())
    open_, seen = [("litft", frozenset(extras - {"dev"} if is_runtime else extras))], set[tuple[str, frozenset[str]]]()
    while open_:
        name, wanted = open_.pop()
        if (name, wanted) not in seen:
            seen.add((name, wanted))
            open_ += [found for found in requirements(name, wanted) if is_installed(found[0])]
    return {name for name, _ in seen} - {"litft"}


def requirements(name: str, extras: Iterable[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Gives what a package needs on this machine, with the extras that it wants of each."""
    for line in distribution(name).requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield canonicalize_name(wanted.name), frozenset(wanted.extras)


def is_installed(name: str) -> bool:
    """Whether a package is there; of an extra that is not installed, what it would bring is not."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
