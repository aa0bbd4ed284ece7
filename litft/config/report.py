"""What `litft report` is told. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from litft.config.fields import REQUIRED, leaf
from litft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Which runs, and where their page goes."""

    runs: tuple[Path, ...] = leaf(
        REQUIRED,
        "folders of runs, or of sweeps, whose curves are to lie over each other; may stand first, without --runs",
    )
    out: Path | None = leaf(None, "the page (default: report.html, of a run alone in its own folder)")

    def __post_init__(self) -> None:
        """Refuses to report on nothing.

        Raises:
            ConfigError: no run is named.
        """
        if not self.runs:
            raise ConfigError("runs is empty; name the folder of a run, such as out/lora/lima.")
