"""The settings of runs: what differs from the defaults, and from each other. Knows no files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litft.config.leaves import told_leaves
from litft.config.parse import config_to_dict
from litft.config.run import AdapterRun, FullRun, LoRARun, RunConfig
from litft.data.view import Table
from litft.report.read import RunFolder

PLACES = ("checkpoint_dir", "data_dir", "out_dir")  # which have no default worth a line
UNSET = "-"


def defaults_for(method: str) -> dict[str, Any]:
    """Gives the defaults of a run of this method, by dotted names."""
    kinds: dict[str, type[RunConfig]] = {"lora": LoRARun, "adapter": AdapterRun, "adapter_v2": AdapterRun}
    kind = kinds.get(method, FullRun)
    return dict(told_leaves(config_to_dict(kind(checkpoint_dir=Path(), data_dir=Path()))))


def changed(run: RunFolder) -> Table:
    """Gives the settings of a run that are not the defaults, beside these."""
    defaults = defaults_for(run.method)
    rows: list[tuple[str, ...]] = [
        (name, _shown(value), _shown(defaults[name]) if name in defaults else "not known to this version")
        for name, value in told_leaves(run.settings)
        if name not in PLACES and (name not in defaults or _shown(value) != _shown(defaults[name]))
    ]
    notes = () if rows else ("All settings are the defaults.",)
    return Table("Settings that are not the defaults", ("setting", "this run", "default"), rows, notes)


def differing(runs: Sequence[RunFolder]) -> Table:
    """Gives the settings in which runs differ, a column for each run."""
    told = [dict(told_leaves(run.settings)) for run in runs]
    names = dict.fromkeys(name for each in told for name in each)
    lines = ((name, *(_shown(each[name]) if name in each else UNSET for each in told)) for name in names)
    rows = [line for line in lines if len(set(line[1:])) > 1]
    return Table("Settings that differ", ("setting", *(run.name for run in runs)), rows)


def command_again(run: RunFolder) -> str:
    """Gives the command that runs a run again, and compares what comes of it."""
    return shlex.join(["litft", "repeat", str(run.path)])


def _shown(value: object) -> str:
    """Writes a value as YAML would, lists on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(_shown(each) for each in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
