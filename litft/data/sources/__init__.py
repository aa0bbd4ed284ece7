"""The datasets that `litft prepare` knows by name: each file here holds one `SOURCE`."""

from __future__ import annotations

import importlib
import pkgutil

from litft.data.reading.rows import Source

_MODULES = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
SOURCES: dict[str, Source] = {module.SOURCE.name: module.SOURCE for module in _MODULES}
