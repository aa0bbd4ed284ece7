"""How a configuration field is declared: one line with its default and its help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from litft.errors import ConfigError

REQUIRED = dataclasses.MISSING
LARGEST_SEED = 2**32 - 1  # Source: `max_seed_value` of lightning_fabric's seed.py


def leaf(default: Any, help: str, verbatim: bool = False) -> Any:
    """Declares one field of a config dataclass.

    The flag, the YAML key, the dump and the help text follow from the field's name, type and this line.

    Args:
        default: its value when nobody says otherwise; `REQUIRED` when somebody must.
        help: one sentence for `--help`, with units.
        verbatim: text for a model to read or write: `null` and spaces at its ends are meant as they stand.
    """
    return dataclasses.field(default=default, metadata={"help": help, "verbatim": verbatim})


def section(kind: Callable[..., Any], help: str, **defaults: Any) -> Any:
    """Declares a nested group of fields.

    Args:
        kind: a frozen dataclass whose fields all have defaults.
        help: the heading of the group in `--help`.
        defaults: fields whose default differs here, such as a method's own learning rate.
    """
    return dataclasses.field(default_factory=partial(kind, **defaults), metadata={"help": help})


def require_seed(seed: int | None) -> None:
    """Refuses a seed that a generator of chance cannot take; None passes.

    Raises:
        ConfigError: naming the seed and the range.
    """
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed}; it must be from 0 to {LARGEST_SEED}.")
