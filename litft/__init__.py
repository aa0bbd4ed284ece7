"""litft: finetune open LLMs on instruction data.

`from litft import LLM` is imported when asked for; importing litft alone costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from litft.api import LLM

__all__ = ["LLM"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports LLM, and torch with it, only when it is used."""
    if name == "LLM":
        from litft.api import LLM

        return LLM
    raise AttributeError(f"module 'litft' has no attribute {name!r}")
