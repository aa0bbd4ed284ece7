"""Paths as users write them: one that is not there, one that may be written down. Knows no formats."""

from __future__ import annotations

from pathlib import Path

from litft.errors import did_you_mean

MODEL_PLACE = "checkpoint_dir"  # of a manifest: where the model was, as `place_of` has it


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


def place_of(checkpoint_dir: Path) -> dict[str, str]:
    """Gives where a model is, for a manifest: as seen from the working folder.

    Nothing where it lies elsewhere: a manifest is shared, and such a path tells of a machine and of its user.

    Args:
        checkpoint_dir: as the user named it.
    """
    if checkpoint_dir.is_absolute() and not checkpoint_dir.is_relative_to(Path.cwd()):
        return {}
    path = checkpoint_dir.relative_to(Path.cwd()) if checkpoint_dir.is_absolute() else checkpoint_dir
    return {MODEL_PLACE: path.as_posix()}
