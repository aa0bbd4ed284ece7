"""Builds a config from flags and YAML: strict keys, short leaf names, one sentence for a mistake.

jsonargparse checks the types. What it leaves to us: a leaf name that stands alone (`--max_iters`),
lists written `q,v`, "did you mean", and errors of one sentence that say where the value came from.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from litft.config.fields import REQUIRED, describe_type
from litft.config.help import first_word, flags_help
from litft.config.io import dump_yaml, load_yaml
from litft.config.leaves import Leaf, list_headings, list_leaves
from litft.config.other_names import LIT_GPT_NAMES, OTHERS_NAMES
from litft.config.shipped import find_config
from litft.config.sweep import PREFIX, Runs, SweptRun, check_axis, combine, name_runs, split_values
from litft.errors import ConfigError, did_you_mean
from litft.terminal.argv import hide_argument

Config = TypeVar("Config")

COMMAND_LINE = "the command line"


class HelpRequest(Exception):  # noqa: N818 - no error
    """`--help` or `--print_config` was asked for; `str(request)` is the text to print."""


@dataclasses.dataclass(frozen=True)
class Given:
    """One value somebody set, text or what YAML made of it, and where it came from."""

    value: Any
    origin: str

    @property
    def text(self) -> str:
        """The value as the type checker reads it."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value, default=str)


def parse_config(kind: type[Config], args: Sequence[str], prog: str, description: str) -> Config:
    """Gives the config that flags and YAML ask for, of a sweep that of its first run; `parse_runs` says the rest."""
    return typing.cast(Config, parse_runs(kind, args, prog, description).runs[0].config)


def parse_runs(kind: type[Any], args: Sequence[str], prog: str, description: str, first: str | None = None) -> Runs:
    """Gives what flags and YAML ask for; flags override `--config FILE`.

    Args:
        kind: a frozen dataclass declared with `leaf` and `section`; one with `sweep_jobs` takes `--sweep.LEAF A,B`.
        args: the words after the command.
        prog: the command as typed, for the help.
        description: what the command does and an example or two, for the help.
        first: the flag whose value may stand right behind the command, without its name.

    Raises:
        ConfigError: an unknown, missing, repeated or mistyped value.
        HelpRequest: the help, or the config as YAML, is to be printed instead.
    """
    fields = dict(list_leaves(kind))
    flags = _read_flags(args, fields)
    if "help" in flags:
        raise HelpRequest(flags_help(prog, description, fields, list_headings(kind), first))
    given: dict[str, Given] = {}
    if "config" in flags:
        given |= _read_file(_path(flags.pop("config").text), fields)
    printing = flags.pop("print_config", None)
    given |= flags
    swept = {name.removeprefix(PREFIX): given.pop(name) for name in list(given) if name.startswith(PREFIX)}
    for name in swept.keys() & flags.keys():
        raise ConfigError(f"{flags[name].origin} and {swept[name].origin} are both given; leave one out.")
    values = _checked(fields, given)
    axes = {name: _values(fields[name], name, value) for name, value in swept.items()}
    told = _plain(_nested(values)) | ({"sweep": _plain(axes)} if axes else {})
    if printing:
        raise HelpRequest(dump_yaml({name: value for name, value in told.items() if not _is_secret(fields, name)}))
    missing = [name for name, field in fields.items() if field.default is REQUIRED and name not in {*given, *axes}]
    if missing:
        named = " and ".join(first_word(name) if name == first else f"--{name}" for name in missing)
        form = f": {prog} {first_word(first)}" if first in missing else ""
        raise ConfigError(f"{named} must be given{form}; see {prog} --help.")
    points = combine(axes)
    runs = [
        SweptRun(name, point, _build(kind, _nested(values | point)))
        for name, point in zip(name_runs(points), points, strict=True)
    ]
    return Runs(runs, told)


def build_config(kind: type[Config], values: dict[str, Any], origin: str) -> Config:
    """Gives the config that values of Python ask for.

    Args:
        kind: as `parse_runs` takes it.
        values: by dotted or lone leaf name; a section is a mapping, or an object of its class.
        origin: who gave them, for the sentence.

    Raises:
        ConfigError: an unknown, missing, repeated or mistyped value.
    """
    fields = dict(list_leaves(kind))
    opened = {
        name: dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        for name, value in values.items()
    }
    given = _read_values(_plain(opened), fields, origin)
    if swept := next((name for name in given if name.startswith(PREFIX)), None):
        raise ConfigError(f"{swept} in {origin} is for the command line; write a loop over {origin} instead.")
    missing = [name for name, field in fields.items() if field.default is REQUIRED and name not in given]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} must be given to {origin}.")
    return typing.cast(Config, _build(kind, _nested(_checked(fields, given))))


def _values(field: Leaf, name: str, given: Given) -> list[Any]:
    """Gives the values of one leaf of a sweep, each of the leaf's type."""
    values = [_typed(field, Given(part, given.origin)) for part in split_values(given.value, given.origin)]
    check_axis(name, given.origin, values)
    return values


def _is_secret(fields: dict[str, Leaf], name: str) -> bool:
    """Says whether a leaf is never shown."""
    return name in fields and fields[name].secret


def config_to_dict(config: Any) -> dict[str, Any]:
    """Gives a config as nested plain types, as `run.yaml` holds it; `--config` reads it back."""
    return typing.cast("dict[str, Any]", _plain(dataclasses.asdict(config)))


def _full_name(name: str, fields: dict[str, Leaf], origin: str, before: str = "") -> str:
    """Gives the dotted name of a flag or key, which may be a lone leaf name or a Lit-GPT spelling.

    Args:
        name: as it was written, less `before`.
        fields: all that there are.
        origin: where it was written.
        before: `sweep.`, where that stood before it.
    """
    if name in fields:
        return before + name
    if name.startswith(PREFIX) and "sweep_jobs" in fields:
        return _full_name(name.removeprefix(PREFIX), fields, origin, PREFIX)
    leaf = LIT_GPT_NAMES.get(name, name)
    found = [full for full in fields if full.rpartition(".")[2] == leaf]
    if len(found) == 1:
        return before + found[0]
    if found:
        raise ConfigError(f'"{before}{name}" in {origin} could be {" or ".join(found)}; write the one you mean.')
    below = next((full for full in fields if full.startswith(f"{name}.")), None)
    if below:
        what, mend = f'"{before}{name}" in {origin}', before + below
        if origin == COMMAND_LINE:
            what, mend = f"--{before}{name}", f"--{before}{below} VALUE"
        raise ConfigError(f"{what} is a section, not a value; set the keys in it, such as {mend}.")
    known = [*fields, *(full.rpartition(".")[2] for full in fields), *_sections(fields)]
    what = f"flag --{before}{name}" if origin == COMMAND_LINE else f'key "{before}{name}" in {origin}'
    meant = OTHERS_NAMES.get(name.rpartition(".")[2])
    start = f"--{before}" if origin == COMMAND_LINE else before
    hint = f' Did you mean "{start}{meant}"?' if meant in fields else did_you_mean(name, known, start)
    raise ConfigError(f"Unknown {what}.{hint or ' --help lists all flags.' * (origin == COMMAND_LINE)}")


def _sections(fields: dict[str, Leaf]) -> list[str]:
    """Gives the dotted names of all sections, each once."""
    found = (full.split(".")[:depth] for full in fields for depth in range(1, full.count(".") + 1))
    return list(dict.fromkeys(".".join(parts) for parts in found))


def _read_flags(args: Sequence[str], fields: dict[str, Leaf]) -> dict[str, Given]:
    """Reads `--name value` and `--name=value`; every flag takes one value, of which only true may be left out."""
    given: dict[str, Given] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            return {"help": Given("", "")}
        if not word.startswith("--"):
            raise ConfigError(f'"{word}" on the command line belongs to no flag; write --name value.')
        name, equals, text = word[2:].partition("=")
        if name == "print_config":
            given[name] = Given("", "")
            continue
        full = name if name == "config" else _full_name(name, fields, COMMAND_LINE)
        if not equals:
            if words and not _is_flag(words[0], fields):
                text = words.pop(0)
            elif full in fields and fields[full].type is bool:
                text = "true"
            else:
                raise ConfigError(f"--{name} needs a value.")
        if full in given:
            raise ConfigError(f"--{name} is given twice.")
        if text and _is_secret(fields, full):
            hide_argument(text)
        given[full] = Given(text, f"--{name}")
    return given


def _read_file(path: Path, fields: dict[str, Leaf]) -> dict[str, Given]:
    """Reads a YAML file of nested sections, dotted names or lone leaf names."""
    return _read_values(load_yaml(find_config(path)), fields, str(path))


def _read_values(values: dict[str, Any], fields: dict[str, Leaf], origin: str) -> dict[str, Given]:
    """Gives nested sections, dotted names or lone leaf names by their dotted names."""
    given: dict[str, Given] = {}
    for name, value in _flatten(values, fields):
        full = _full_name(name, fields, origin)
        if full in given:
            raise ConfigError(f"{origin} sets {full} twice.")
        given[full] = Given(value, f"{name} in {origin}")
    return given


def _is_flag(word: str, fields: dict[str, Leaf]) -> bool:
    """Says whether a word is one of the command's flags, and so no value unless written `--name=WORD`."""
    name = word[2:].partition("=")[0]
    leaves = {full.rpartition(".")[2] for full in fields}
    known = {*fields, *leaves, *LIT_GPT_NAMES, "config", "print_config", "help"}
    return word.startswith("--") and (name in known or name.startswith(PREFIX))


def _flatten(values: dict[str, Any], fields: dict[str, Leaf], prefix: str = "") -> list[tuple[str, Any]]:
    """Opens nested sections into (dotted name, value); a mapping that is itself a leaf stays whole."""
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        leaf = name.removeprefix(PREFIX)
        is_section = leaf not in fields and (
            f"{leaf}." == PREFIX or any(each.startswith(f"{leaf}.") for each in fields)
        )
        if is_section and (value is None or isinstance(value, dict)):  # None: a heading with nothing below
            found += _flatten(value or {}, fields, f"{name}.")
        else:
            found.append((name, value))
    return found


def _checked(fields: dict[str, Leaf], given: dict[str, Given]) -> dict[str, Any]:
    """Gives a value of its type for every leaf: the given one or the default, None where neither is."""
    defaults = {name: None if field.default is REQUIRED else field.default for name, field in fields.items()}
    return defaults | {name: _typed(fields[name], value) for name, value in given.items()}


def _typed(field: Leaf, given: Given) -> Any:
    """Converts a value to its leaf's type, or says that it cannot be."""
    from jsonargparse import ArgumentError, ArgumentParser  # 0.1 s, which --help need not pay

    try:
        if field.text_type:
            return _text(field, given.value)
        # One parser for each value: jsonargparse goes through all that a parser knows, several times.
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--value", type=field.type | None if field.default is REQUIRED else field.type)
        value = parser.parse_args([f"--value={_argument(field, given.text)}"])["value"]
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("not finite")
    except (ArgumentError, ValueError) as error:
        said = "***" if field.secret else given.text
        raise ConfigError(f'{given.origin} is "{said}"; it must be {describe_type(field.type)}.') from error
    return value


def _text(field: Leaf, value: Any) -> str | Path | None:
    """Gives a text or path as it was written; `null` on the command line is null unless the field is verbatim.

    Raises:
        ValueError: YAML gave a list, a mapping, or null for what may not be null.
    """
    if value is None or (value == "null" and not field.verbatim):
        if not field.is_optional:
            raise ValueError("null")
        return None
    if isinstance(value, (list, dict)):
        raise ValueError("not a text")
    text = value if isinstance(value, str) else json.dumps(value)
    return _path(text) if field.text_type is Path else text


def _path(text: str) -> Path:
    """Gives a path; `~` is the home folder in YAML and in `--flag=~/x` too, where no shell opens it."""
    return Path(os.path.expanduser(text))


def _argument(field: Leaf, text: str) -> str:
    """Writes lists and mappings as jsonargparse reads them: `q,v` -> `["q", "v"]`, `a=b` -> `{"a": "b"}`."""
    if field.is_list and field.verbatim:
        return text if _is_json_list(text) else json.dumps(text.split(","))
    if field.is_list and not text.lstrip().startswith("["):
        parts = [part.strip() for part in text.split(",")]
        kind = next((kind for kind in (int, float) if kind in typing.get_args(field.type)), None)
        return json.dumps([_number(part, kind) if kind else part for part in parts])
    if field.is_mapping and "=" in text and not text.lstrip().startswith("{"):
        pairs = (part.partition("=") for part in text.split(","))
        return json.dumps({key.strip(): value.strip() for key, _, value in pairs})
    return text


def _is_json_list(text: str) -> bool:
    """Says whether a text is a JSON list."""
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def _number(text: str, kind: type[int] | type[float]) -> float | str:
    """Gives a number where the text is one, for lists such as `0.9,0.95` and `2,0`."""
    try:
        return kind(text)
    except ValueError:
        return text


def _nested(values: dict[str, Any]) -> dict[str, Any]:
    """Puts values by dotted leaf name into a mapping for each section."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *sections, leaf = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    return nested


def _build(kind: type[Any], values: dict[str, Any]) -> Any:
    """Builds the dataclass, its sections first."""
    types = typing.get_type_hints(kind)
    built = {
        name: _build(types[name], value) if dataclasses.is_dataclass(types[name]) else _frozen(value)
        for name, value in values.items()
    }
    return kind(**built)


def _frozen(value: Any) -> Any:
    """Lists become tuples, as the dataclasses declare them."""
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Turns paths and tuples into what YAML writes."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
