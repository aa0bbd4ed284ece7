"""The runs of a sweep: every combination of the values of some leaves, and a name for each. Knows no torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litft.errors import ConfigError

PREFIX = "sweep."  # of a flag or key whose values are swept
# Where, how and whether runs are taken up: the same for all runs of a sweep.
OF_THE_WHOLE = ("out_dir", "resume", "overwrite", "dry_run", "measure", "sweep_jobs", "num_nodes")
LONGEST_NAME = 120  # characters; a file system takes 255 bytes, and temporary names are longer


@dataclass(frozen=True)
class SweptRun:
    """One run.

    Attributes:
        name: safe as the name of a folder; empty for a run that is no part of a sweep.
        values: what is its own, by dotted leaf.
        config: its config, checked.
    """

    name: str
    values: dict[str, Any]
    config: Any


@dataclass(frozen=True)
class Runs:
    """What a command line asks for.

    Attributes:
        runs: in the order in which they run: the last leaf changes fastest.
        yaml: plain types that `--config` reads back to the same.
    """

    runs: list[SweptRun]
    yaml: dict[str, Any]

    @property
    def is_sweep(self) -> bool:
        """Whether there are leaves with several values, or one value under `--sweep`."""
        return bool(self.runs[0].values)


def split_values(value: Any, origin: str) -> list[Any]:
    """Gives the values of `1e-4,3e-4`, `[q,v],[q,k,v]` or of a YAML list.

    Args:
        value: text, or what YAML made of it.
        origin: where it came from, for the sentence.

    Raises:
        ConfigError: there is none, or an empty one.
    """
    if isinstance(value, str):
        parts = [part.strip() for part in re.split(r",(?![^\[{]*[\]}])", value)]  # no comma within brackets
    else:
        parts = list(value) if isinstance(value, (list, tuple)) else [value]
    if not parts or any(part in ("", []) for part in parts):
        raise ConfigError(f'{origin} is "{value}"; write the values to be tried, such as 1e-4,3e-4.')
    return parts


def check_axis(leaf: str, origin: str, values: Sequence[Any]) -> None:
    """Refuses a leaf that belongs to the whole sweep, and a value that stands twice.

    Raises:
        ConfigError: naming it.
    """
    if leaf in OF_THE_WHOLE:
        raise ConfigError(f"{origin} cannot be swept: {leaf} is the same for all runs; write --{leaf} alone.")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ConfigError(f"{origin} has {value} twice; write each value once.")


def combine(axes: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Gives every combination of the values, the last leaf changing fastest; one empty one without leaves."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def name_runs(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Gives each run a name made of its values, such as `learning_rate-0.0001_r-8`, each another.

    Args:
        points: the values of each run, by dotted leaf.
    """
    leaves = list(points[0])
    ends = [leaf.rpartition(".")[2] for leaf in leaves]
    shown = [end if ends.count(end) == 1 else leaf for leaf, end in zip(leaves, ends, strict=True)]
    names: list[str] = []
    for point in points:
        parts = (f"{name}-{_text(value)}" for name, value in zip(shown, point.values(), strict=True))
        name = re.sub(r"[^\w.+-]", "-", "_".join(parts), flags=re.ASCII)[:LONGEST_NAME]
        same = sum(re.fullmatch(re.escape(name) + r"(--\d+)?", other, re.IGNORECASE) is not None for other in names)
        names.append(f"{name}--{same + 1}" if same else name)  # some disks take upper and lower case for the same
    return names


def _text(value: Any) -> str:
    """Gives a value as a part of a name; of a path its last part."""
    if isinstance(value, (list, tuple)):
        return "-".join(_text(each) for each in value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return value.name if isinstance(value, Path) else str(value)
