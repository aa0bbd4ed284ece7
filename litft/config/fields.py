"""How a configuration field is declared: one line with its default and its help."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from litft.errors import ConfigError

REQUIRED = dataclasses.MISSING
# How an item of a list looks, for the sentence about one that cannot be read.
LIST_ITEMS = {float: "0.9", int: "2"}
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


def require_at_least(section_name: str, config: object, least: dict[str, float]) -> None:
    """Refuses numbers below their least sensible value, and what is no number; None passes.

    Args:
        section_name: what stands before the field's name in a sentence, such as `train`; empty for nothing.
        config: holds the fields.
        least: the smallest value of each.

    Raises:
        ConfigError: naming the field, its value and the least.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not value >= bound:  # nan is below nothing
            place = f"{section_name}.{name}" if section_name else name
            raise ConfigError(f"{place} is {value}; it must be at least {bound}.")


def require_interval(name: str, value: float) -> None:
    """Refuses an interval that is neither a fraction of the run below 1 nor a whole number of steps.

    Raises:
        ConfigError: naming the field and its value.
    """
    if value <= 0:
        raise ConfigError(f"{name} is {value}; it must be above 0.")
    if value > 1 and value != int(value):
        raise ConfigError(f"{name} is {value}; write a fraction of the run below 1, or a whole number of steps.")


def describe_type(kind: Any) -> str:
    """Says in words what a type admits."""
    if kind is type(None):
        return "null"
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return (
            ", ".join(str(choice) for choice in arguments[:-1]) + f"{' or ' if arguments[:-1] else ''}{arguments[-1]}"
        )
    if typing.get_origin(kind) in (tuple, list):
        shown = (LIST_ITEMS.get(part, "name") for part in arguments if part is not ...)
        return f"a list such as [{', '.join(shown)}]"
    if typing.get_origin(kind) is dict:
        return "a mapping such as key=value"
    if arguments:
        return " or ".join(describe_type(argument) for argument in arguments)
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}[kind]
