"""Text that a terminal only shows: names, answers and settings come from anybody, and a terminal obeys escapes in them.

They may clear the screen, rewrite what stands above, or set a title that is typed back. And text without secrets:
terminals are recorded, and their logs are kept.
"""

from __future__ import annotations

import os
import re
import sys

# Control characters but tab and line end, and those that turn the direction of what follows.
# Source: ECMA-48 (C0 and C1); Unicode's bidirectional embeddings, overrides and isolates.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SECRET_NAMES = re.compile("KEY|TOKEN|PASSWORD|SECRET")  # of environment variables
SHORTEST_SECRET = 6  # characters; less would be found in any sentence


class Painted(str):
    """Text with escapes of our own, whose writer has taken out all others."""


def harmless(text: str) -> str:
    """Gives a text with what a terminal would obey written out, such as `\\x1b`."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def without_secrets(text: str) -> str:
    """Gives a text with passwords in addresses, and the values of environment variables that hold keys, as `***`."""
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name.upper()) and len(value.strip()) >= SHORTEST_SECRET:
            text = text.replace(value.strip(), "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def for_stdout(text: str) -> str:
    """Gives an answer as it is to be written to stdout: harmless on a terminal, elsewhere as it is."""
    return harmless(text) if sys.stdout.isatty() and not isinstance(text, Painted) else text
