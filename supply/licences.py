"""The licences of what litft needs at run time, as a table; fails where one is unknown, or asks for one's own code.

Packages of the extras count too. What CUDA builds of torch bring from NVIDIA is not on every machine and is not judged.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from email.message import Message
from importlib.metadata import distribution
from typing import cast

from versions import needed

# Words of the licences that ask nothing for one's own code. MPL asks for changes to the package's own files alone.
FREE = {
    "MIT": r"\bMIT\b|Expat",
    "BSD": r"\bBSD\b|0BSD",
    "Apache-2.0": r"Apache",
    "PSF": r"\bPSF|Python Software Foundation|CNRI",
    "ISC": r"\bISC\b",
    "MPL-2.0": r"\bMPL|Mozilla Public",
    "Unlicense": r"Unlicense|Public Domain",
    "Zlib": r"\bzlib\b",
    "HPND": r"HPND",
}
SHARING = r"GPL|Affero|GNU General Public|\bSSPL|Commons Clause|CC-BY-NC|\bEUPL"
# Read one by one: weak copyleft, of a package that is imported as it is and that litft does not ship.
KNOWN = {"chardet": "LGPL-2.1"}  # of the extra eval: lm-eval -> pytablewriter -> mbstrdecoder


def main() -> int:
    """Prints the table; gives the exit code."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(needed(is_runtime=True)):
        if not name.startswith(("nvidia-", "cuda-")):
            found[kind_of(name)].append(name)
    for kind, names in sorted(found.items(), key=lambda pair: -len(pair[1])):
        sys.stdout.write(f"{kind:12} {len(names):3}  {', '.join(names)}\n")
    bad = [kind for kind in found if kind in ("unknown", "sharing")]
    if bad:
        sys.stderr.write(f"{len(bad)} kinds of licence above must be looked at: {', '.join(bad)}.\n")
    return 1 if bad else 0


def kind_of(name: str) -> str:
    """Gives the kind of a package's licence: a name of `FREE` or `KNOWN`, `sharing` or `unknown`."""
    if name in KNOWN:
        return KNOWN[name]
    said = told_by(name)
    kinds = [kind for kind, words in FREE.items() if re.search(words, said, re.IGNORECASE)]
    if re.search(SHARING, said) and not (kinds and re.search(r"\bOR\b", said)):
        return "sharing"
    return kinds[0] if kinds else "unknown"


def told_by(name: str) -> str:
    """Gives what a package says of its licence: an expression, else classifiers, else the first line of a text."""
    metadata = cast("Message", distribution(name).metadata)
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [line for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    return "; ".join(classifiers) or (metadata.get("License") or "").strip()[:60]


if __name__ == "__main__":
    sys.exit(main())
