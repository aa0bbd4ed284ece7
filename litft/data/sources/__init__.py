"""The datasets that `litft prepare` knows by name; a new one is a file here and a row in `SOURCES`."""

from __future__ import annotations

from litft.data.sources import alpaca, csv, dolly, lima
from litft.data.sources.base import Rejected, Row, Rows, Source

SOURCES: dict[str, Source] = {module.SOURCE.name: module.SOURCE for module in (alpaca, csv, dolly, lima)}

__all__ = ["SOURCES", "Rejected", "Row", "Rows", "Source"]
