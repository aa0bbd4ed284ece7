"""What a user may have meant by a path that is not there. Knows no formats."""

from __future__ import annotations

from pathlib import Path

from litft.errors import did_you_mean


def path_hint(path: Path) -> str:
    """Gives `' Did you mean "x"?'` for the nearest path that exists, or an empty string when none is near.

    An absolute path whose relative twin exists (`/data/lima` for `data/lima`) is the commonest slip.

    Args:
        path: what the user wrote; it does not exist.
    """
    if path.is_absolute():
        relative = path.relative_to(path.anchor)
        if relative.parts and relative.exists():
            return f' Did you mean "{relative}"?'
    if not path.parent.is_dir():
        return ""
    return did_you_mean(str(path), [str(entry) for entry in path.parent.iterdir()])
