"""How a configuration field is declared: one line with its default and its help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

REQUIRED = dataclasses.MISSING


def leaf(default: Any, help: str) -> Any:
    """Declares one field of a config dataclass.

    The flag, the YAML key, the dump and the help text follow from the field's name, type and this line.

    Args:
        default: its value when nobody says otherwise; `REQUIRED` when somebody must.
        help: one sentence for `--help`, with units.
    """
    return dataclasses.field(default=default, metadata={"help": help})


def section(kind: Callable[..., Any], help: str, **defaults: Any) -> Any:
    """Declares a nested group of fields.

    Args:
        kind: a frozen dataclass whose fields all have defaults.
        help: the heading of the group in `--help`.
        defaults: fields whose default differs here, such as a method's own learning rate.
    """
    return dataclasses.field(default_factory=partial(kind, **defaults), metadata={"help": help})
