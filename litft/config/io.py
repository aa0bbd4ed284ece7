"""Strict YAML: no surprises in, plain types out. Knows no config class.

YAML 1.1 as PyYAML reads it turns 24:00:00 into 86400, `3e-4` into a string, `no` into False and keeps the last of two
equal keys in silence. This loader follows the YAML 1.2 core schema instead and refuses repeated keys.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from litft.errors import ConfigError


class StrictLoader(yaml.SafeLoader):
    """Safe loading with the YAML 1.2 core schema. Source: yaml.org/spec/1.2.2, section 10.3.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own hook

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a dict; a key that stands twice is an error."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key_node.start_mark)
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f'the key "{key_node.value}" stands twice', problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


StrictLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))  # 010 is 10, not octal


class StrictDumper(yaml.SafeDumper):
    """Quotes every text that this loader, or one of YAML 1.1, would take for something else."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        """Escapes the rarer line ends, which PyYAML writes as they are and reads as others."""
        style = '"' if re.search("[\r\x85\u2028\u2029]", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


StrictDumper.add_representer(str, StrictDumper.represent_str)

_RESOLVERS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
for _tag, _pattern, _first in _RESOLVERS:
    for _class in (StrictLoader, StrictDumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""])


def load_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that must hold a mapping (an empty file is an empty one).

    Args:
        path: the file.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds something else; with its line where there is one.
    """
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line} is not valid YAML: {error.problem}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # unprintable characters, endless numbers or nesting
        raise ConfigError(f"{path} is not valid YAML: {str(error).splitlines()[0]}.") from error
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} holds a {type(loaded).__name__}; a mapping of keys to values is needed.")
    return loaded


def dump_yaml(values: dict[str, Any]) -> str:
    """Gives YAML text that `load_yaml` reads back to the same values; keys keep their order."""
    text: str = yaml.dump(values, Dumper=StrictDumper, sort_keys=False, allow_unicode=True, width=120)
    return text
