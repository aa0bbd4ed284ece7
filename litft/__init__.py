"""litft: finetune open LLMs on instruction data.

`from litft import LLM, finetune, Result` are imported when asked for; importing litft alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litft import finetune
    from litft.api import LLM
    from litft.result import Result

__all__ = ["LLM", "Result", "finetune"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what is offered, and torch with it where that needs it, only when it is used."""
    if name == "finetune":
        return import_module("litft.finetune")
    if name in __all__:
        return getattr(import_module("litft.api" if name == "LLM" else "litft.result"), name)
    raise AttributeError(f"module 'litft' has no attribute {name!r}")
