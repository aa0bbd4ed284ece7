"""`litft copy-recipe`: a recipe as a file of one's own, for who has no checkout. Imports no recipe."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from litft.checkpoint.disk import atomic_path
from litft.config.contents import CopyRecipeConfig
from litft.errors import ConfigError


def copy_recipe(method: str, config: CopyRecipeConfig, report: Callable[[str], None]) -> None:
    """Writes the file that `litft finetune METHOD` runs to another place, where `python FILE` runs it too.

    Args:
        method: whose recipe.
        config: where to.
        report: told what to type next.

    Raises:
        ConfigError: there is a file already, its folder is not there, or it is no Python file.
    """
    path = config.path
    if path.suffix != ".py":
        raise ConfigError(f"path is {path}; name a Python file, such as my_{method}.py.")
    if path.exists():
        raise ConfigError(f"{path} exists already; name another file, or remove it first.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder; make it first.")
    text = (resources.files("litft.recipes") / f"{method}.py").read_text(encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    report(f"{path} is written; what you will want to change is at its end, the loss.\nNext: python {path} --help")
