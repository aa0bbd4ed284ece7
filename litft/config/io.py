"""Strict YAML: no surprises in, plain types out. Knows no config class.

YAML 1.1 as PyYAML reads it turns 24:00:00 into 86400, `3e-4` into a string, `no` into False and keeps the last of two
equal keys in silence. This loader follows the YAML 1.2 core schema instead, refuses repeated keys, tags that ask for
more than plain types, and texts that would become too much.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from litft.errors import ConfigError

LONGEST_BYTES = 2**22  # of a file; PyYAML reads some 200 kB a second
MOST_NODES = 2**20  # values of a file, each counted as often as aliases repeat it
DEEPEST = 100  # values within values
_CORE = "tag:yaml.org,2002:"


class StrictLoader(yaml.SafeLoader):
    """Safe loading with the YAML 1.2 core schema. Source: yaml.org/spec/1.2.2, section 10.3.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own hook
    yaml_constructors = {  # noqa: RUF012 - PyYAML's own hook
        None: yaml.SafeLoader.construct_undefined,
        **{
            _CORE + name: yaml.SafeLoader.yaml_constructors[_CORE + name]
            for name in ("null", "bool", "int", "float", "str", "seq", "map")
        },
    }

    def get_single_node(self) -> yaml.Node | None:
        """Gives the tree of the one document, if what it becomes is not too much.

        Aliases repeat what they name, and aliases of aliases repeat it often: nine lines may become a billion values.
        """
        root: yaml.Node | None = super().get_single_node()
        if root is not None:
            _refuse_more(root)
        return root

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


def _refuse_more(root: yaml.Node) -> None:
    """Refuses a tree with too many values, or too deep, as one that stands in itself is.

    Raises:
        MarkedYAMLError: naming where too much begins.
    """
    count, waiting, depth = 0, [root], 0
    while waiting:
        count, depth = count + len(waiting), depth + 1
        if count > MOST_NODES or depth > DEEPEST:
            what = f"more than {MOST_NODES:,} values" if count > MOST_NODES else f"values nested {DEEPEST} deep"
            raise yaml.MarkedYAMLError(problem=f"it holds {what}", problem_mark=waiting[0].start_mark)
        inner: list[yaml.Node] = []
        for node in waiting:
            if isinstance(node, yaml.MappingNode):
                inner += [each for pair in node.value for each in pair]
            elif isinstance(node, yaml.SequenceNode):
                inner += node.value
        waiting = inner


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
        if (size := path.stat().st_size) > LONGEST_BYTES:
            raise ConfigError(f"{path} has {size:,} bytes; a YAML file that litft reads has {LONGEST_BYTES:,} at most.")
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line} is not valid YAML: {error.problem}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text.") from error
    # Unprintable characters, endless numbers or nesting, a tag on a value that it does not fit.
    except (yaml.YAMLError, ValueError, KeyError, RecursionError) as error:
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
