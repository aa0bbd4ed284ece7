"""What a config dataclass can be told, leaf by leaf, and what one was told. Knows no parser."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf as the parser needs it."""

    type: Any
    default: Any
    help: str
    verbatim: bool = False
    secret: bool = False

    @property
    def text_type(self) -> type[str] | type[Path] | None:
        """Text or path, optional or not: the type checker would read YAML into them; None for every other type."""
        types = set(typing.get_args(self.type) or [self.type]) - {type(None)}
        return types.pop() if types in ({str}, {Path}) else None

    @property
    def is_optional(self) -> bool:
        """Whether null is a value."""
        return type(None) in typing.get_args(self.type)

    @property
    def is_list(self) -> bool:
        """Whether `q,v` on the command line means a list."""
        return typing.get_origin(self.type) in (tuple, list)

    @property
    def is_mapping(self) -> bool:
        """Whether `a=b,c=d` on the command line means a mapping."""
        return any(typing.get_origin(part) is dict for part in (self.type, *typing.get_args(self.type)))


def list_leaves(kind: type[Any], prefix: str = "", defaults: Any = None) -> list[tuple[str, Any]]:
    """Lists (dotted name, field) of every leaf, sections opened; a leaf's default is its section's."""
    types = typing.get_type_hints(kind)
    found: list[tuple[str, Any]] = []
    for field in dataclasses.fields(kind):
        name = prefix + field.name
        if dataclasses.is_dataclass(types[field.name]):
            instance = typing.cast(Any, field).default_factory()
            found += list_leaves(typing.cast("type[Any]", types[field.name]), f"{name}.", instance)
        else:
            default = field.default if defaults is None else getattr(defaults, field.name)
            found.append((name, Leaf(types[field.name], default, **field.metadata)))
    return found


def list_headings(kind: type[Any]) -> dict[str, str]:
    """Gives the heading of each section."""
    types = typing.get_type_hints(kind)
    return {
        field.name: field.metadata["help"]
        for field in dataclasses.fields(kind)
        if dataclasses.is_dataclass(types[field.name])
    }


def told_leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Gives the values of nested sections by their dotted names, as flags name them.

    Args:
        values: as a YAML file of settings holds them.
        prefix: what each name begins with.
    """
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from told_leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
