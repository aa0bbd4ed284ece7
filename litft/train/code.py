"""Which code made a run: litft's own files, the recipe that was run, and what it imports from beside itself.

A copy of a recipe with another loss is another run. Files are known by their sha256, so nothing here needs git; in a
checkout the commit is told too. Knows no run and no model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import litft
from litft.checkpoint.disk import sha256_file

PACKAGE = Path(litft.__file__).parent
WITHIN = ("recipes", "config_hub")  # of an installed package: folders that stand beside it in a checkout
INSTALLED = ("site-packages", "dist-packages")
GIT_SECONDS = 10.0


def recipes_dir() -> Path:
    """Gives the folder of the recipes that come with litft: `finetune/` of a checkout, or where it was installed to."""
    spec = importlib.util.find_spec("litft.recipes")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


@lru_cache(maxsize=1)
def own_code() -> dict[str, Any]:
    """Gives what litft is here: `version`, `sha256` of its code, and in a checkout `commit` and `diff_sha256`.

    It is looked at once: what was imported stays what it is. `diff_sha256` is None where nothing differs from the
    commit. No path is told.
    """
    return {
        "version": litft.__version__,
        "sha256": sha256_of_code(PACKAGE, recipes_dir()),
        **_checkout(PACKAGE.parent),
    }


def sha256_of_code(*folders: Path) -> str:
    """Gives one hash of the names and contents of the Python files in these folders.

    It is the same of a checkout and of what is installed from it, where recipes lie within the package.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder)
            if name.parts[0] not in WITHIN:
                digest.update(f"{name.as_posix()} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _checkout(root: Path) -> dict[str, Any]:
    """Gives the commit of a checkout of litft, and the hash of what differs from it; nothing elsewhere."""
    if not (root / ".git").exists() or not (root / "finetune").is_dir():
        return {}
    commit, diff = _git(root, "rev-parse", "HEAD"), _git(root, "diff", "HEAD", "--no-ext-diff")
    if commit is None or diff is None:
        return {}
    return {"commit": commit.decode().strip(), "diff_sha256": hashlib.sha256(diff).hexdigest() if diff else None}


def _git(root: Path, *words: str) -> bytes | None:
    """Gives what git says; None where it is not there, or does not want to."""
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def recipe_code(recipe: Path | None) -> dict[str, Any]:
    """Gives the recipe of a run: `file` and `sha256`, and of a recipe of one's own `imports`, a hash for each file.

    Args:
        recipe: its file; None where it has none, as a notebook's cell.
    """
    if recipe is None or not recipe.is_file():
        return {"file": None, "sha256": None, "imports": {}}
    own = {} if is_ours(recipe) else {_label(path): sha256_file(path) for path in _beside(recipe)}
    return {"file": _label(recipe), "sha256": sha256_file(recipe), "imports": own}


def is_ours(recipe: Path) -> bool:
    """Says whether a recipe is one of those that come with litft."""
    return recipe.resolve().parent == recipes_dir().resolve()


def _beside(recipe: Path) -> list[Path]:
    """Gives the files of the modules that were imported from the recipe's own folder, or from one below it."""
    folder, ours = recipe.resolve().parent, (PACKAGE.resolve(), recipes_dir().resolve())
    names = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    starts = tuple(f"{each}{os.sep}" for each in (folder, recipe.absolute().parent))
    # By their beginnings first: a process has thousands of modules, and each path that is resolved costs a look.
    near = {
        Path(name).resolve() for name in names if isinstance(name, str) and os.path.abspath(name).startswith(starts)
    }
    found = (path for path in near if path.suffix == ".py" and path.is_file() and path != recipe.resolve())
    return sorted(
        path for path in found if not any(map(path.is_relative_to, ours)) and not set(INSTALLED) & set(path.parts)
    )


def _label(path: Path) -> str:
    """Names a file without the machine's own folders: `litft.recipes.lora`, as seen from here, or its last name."""
    if is_ours(path):
        return f"litft.recipes.{path.stem}"
    resolved, here = path.resolve(), Path.cwd().resolve()
    return resolved.relative_to(here).as_posix() if resolved.is_relative_to(here) else path.name
