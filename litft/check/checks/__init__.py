"""What must be so of a run: each file here holds one `CHECK`, and is found by its folder."""

from __future__ import annotations

import importlib
import pkgutil

from litft.check.finding import Check

_MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
CHECKS: tuple[Check, ...] = tuple(module.CHECK for module in _MODULES)
