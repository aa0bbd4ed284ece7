"""The texts of `--help`: of litft, of a group of commands, of one command's flags. Knows no parser and no torch."""

from __future__ import annotations

import shutil
import textwrap
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from litft.config.commands import COMMANDS, GROUPS, SUMMARIES, Command
from litft.config.fields import REQUIRED
from litft.config.leaves import Leaf

NARROWEST, WIDEST = 60, 100  # columns
FLAG_COLUMN = 32  # where a flag's text begins; a longer flag has a line of its own
LONGEST_CHOICE = 32  # characters of a|b|c behind a flag's name
LONGEST_NAMES = 40  # the same, of the commands of a group
WORDS = {bool: "true|false", int: "N", float: "X", str: "TEXT", Path: "PATH"}


def top_help() -> str:
    """Gives the text of `litft --help`: all commands by what they are for."""
    rows = {title: _summary_rows(words) for title, words in GROUPS.items()}
    width = max(len(name) for group in rows.values() for name, _ in group)
    lines = ["usage: litft COMMAND [--flag value ...]", "", "Finetune open LLMs on instruction data."]
    for title, group in rows.items():
        lines += ["", f"{title}:", *_table(group, width)]
    lines += ["", "Each command explains its flags: litft COMMAND --help. Start with: litft demo"]
    return "\n".join(lines)


def group_help(group: str) -> str:
    """Gives the text of `litft prepare --help` and the like."""
    members = [command for command in COMMANDS if command.words[0] == group]
    rows = [(" ".join(command.words), command.help) for command in members]
    example = f"example: {members[0].example}"
    names = "|".join(command.words[1] for command in members)
    if len(names) > LONGEST_NAMES:
        names = SUMMARIES[group][0].removeprefix(f"{group} ")
    bare = f" {first_word(members[0].first)}" if members[0].first else ""
    usage = f"usage: litft {group} {names}{bare} [--flag value ...]"
    return "\n".join([usage, "", *_table(rows), "", example])


def first_word(name: str) -> str:
    """Gives what stands in a usage for a value without its flag, such as RUN.

    Args:
        name: of the flag.
    """
    return name.removesuffix("s").upper()


def flags_help(
    prog: str, description: str, fields: Mapping[str, Leaf], headings: Mapping[str, str], first: str | None = None
) -> str:
    """Gives the text of a command's own `--help`.

    Args:
        prog: the command as it was typed.
        description: what it does, and examples.
        fields: every flag by its dotted name.
        headings: what each section is.
        first: the flag whose value may stand right behind the command, without its name.
    """
    needed = [name for name, field in fields.items() if field.default is REQUIRED]
    shown = [first_word(name) if name == first else f"--{name} {_value(name, fields[name])[0]}" for name in needed]
    usage = " ".join([prog, *shown, "[--flag value ...]"])
    lines = [f"usage: {usage}", "", description]
    groups: dict[str, list[str]] = {name: [] for name in ("", *headings)}
    for name, field in fields.items():
        groups[name.partition(".")[0] if "." in name else ""] += _flag(name, field)
    groups[""] += _entry("--config FILE", "a YAML file with any of the flags; flags override it")
    groups[""] += _entry("--print_config", "print the resulting YAML and stop")
    for name, own in groups.items():
        lines += ["", f"{name}: {headings[name]}" if name else "flags:", *own]
    return "\n".join(lines)


def _summary_rows(words: Sequence[str]) -> list[tuple[str, str]]:
    """Gives the rows of some first words; commands that are alike share one."""
    found: dict[str, str] = {}
    for command in (each for word in words for each in COMMANDS if each.words[0] == word):
        name, text = SUMMARIES.get(command.words[0], ("", "")) if _is_one_of_many(command) else ("", "")
        found[name or " ".join(command.words)] = text or command.help
    return list(found.items())


def _is_one_of_many(command: Command) -> bool:
    """Says whether a command differs from its neighbours by a name alone."""
    return command.words[0] in SUMMARIES and (command.bound is not None or bool(command.flags))


def _table(rows: Iterable[tuple[str, str]], width: int | None = None) -> list[str]:
    """Gives lines of two columns, the second one wrapped."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows) if width is None else width
    return [line for name, text in rows for line in _entry(name, text, width + 4)]


def _flag(name: str, field: Leaf) -> list[str]:
    """Gives the lines of one flag."""
    value, choices = _value(name, field)
    text = field.help + (f"; one of {choices}" if choices else "")
    if field.default is REQUIRED:
        text += " (required)"
    elif field.default not in (None, "", ()) and not field.secret:
        text += f" (default: {_shown(field.default)})"
    return _entry(f"--{name} {value}", text)


def _entry(name: str, text: str, column: int = FLAG_COLUMN) -> list[str]:
    """Gives a name and its text beside it, or below it where the name is long."""
    width = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    first = f"  {name}"
    wrapped = textwrap.wrap(text, width - column, break_long_words=False, break_on_hyphens=False) or [""]
    if len(first) + 2 > column:
        return [first, *(" " * column + line for line in wrapped)]
    return [f"{first:<{column}}{wrapped[0]}", *(" " * column + line for line in wrapped[1:])]


def _value(name: str, field: Leaf) -> tuple[str, str]:
    """Gives what stands behind a flag's name, and the choices that are too long to stand there."""
    if field.text_type is Path:
        return ("DIR" if name.endswith("_dir") else "FILE" if name.endswith("_file") else "PATH"), ""
    if field.is_list or field.is_mapping:
        return ("A,B" if field.is_list else "A=B"), ""
    found = [kind for kind in (typing.get_args(field.type) or [field.type]) if kind is not type(None)]
    parts = typing.get_args(field.type) if typing.get_origin(field.type) is typing.Literal else found
    words = [str(each) for part in parts for each in _words(part)]
    joined = "|".join(dict.fromkeys(words))
    return (joined, "") if len(joined) <= LONGEST_CHOICE else ("NAME", ", ".join(words))


def _words(part: Any) -> Sequence[Any]:
    """Gives the values that a part of a type admits, or a word for them."""
    if typing.get_origin(part) is typing.Literal:
        return typing.get_args(part)
    return [WORDS[part] if isinstance(part, type) and part in WORDS else part]


def _shown(value: Any) -> str:
    """Writes a default as it would be typed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
