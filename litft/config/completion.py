"""`litft completion SHELL`: a script that completes commands, flags and their values, made from the commands' table.

The script holds all names, so a shell that completes starts no Python. Knows no torch.
"""

from __future__ import annotations

import importlib
import typing
from collections import Counter
from collections.abc import Callable, Iterator

from litft.config.commands import COMMANDS, Command
from litft.config.contents import NothingConfig
from litft.config.leaves import Leaf, list_leaves

# Bash and zsh, whose bashcompinit reads bash's functions. A name that is not known here is a file.
BASH = """\
_litft() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    local typed="${{COMP_WORDS[1]-}}" second="${{COMP_WORDS[2]-}}" names="" flags="" values="" pair
    if [[ $COMP_CWORD == 1 ]]; then
        names="{first}"
    else
        case "$typed" in
{groups}
        esac
        case "$typed $second" in
{commands}
        esac
        if [[ $current == -* ]]; then
            names="$names $flags --config --help --print_config"
        elif [[ $COMP_CWORD == 2 && -n $names ]]; then
            :
        else
            names=""
            for pair in $values; do
                if [[ $pair == "$previous="* ]]; then names="${{pair#*=}}"; names="${{names//,/ }}"; fi
            done
        fi
    fi
    COMPREPLY=( $(compgen -W "$names" -- "$current") )
}}
complete -o default -F _litft litft
"""

ZSH = """\
(( $+functions[compdef] )) || { autoload -U +X compinit && compinit }
autoload -U +X bashcompinit && bashcompinit
"""

FISH = """\
function __litft_names
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l names
    set -l flags
    set -l values
    if test (count $words) -eq 1
        printf '%s\\n' {first}
        return
    end
    set -l second "$words[3]"
    test (count $words) -eq 2; and set second "$current"
    switch "$words[2]"
{groups}
    end
    switch "$words[2] $second"
{commands}
    end
    if string match -q -- '-*' "$current"
        printf '%s\\n' $flags --config --help --print_config
        return
    end
    if test (count $words) -eq 2; and test -n "$names"
        printf '%s\\n' $names
        return
    end
    for pair in $values
        if string match -q -- "$words[-1]=*" $pair
            string split , -- (string replace -- "$words[-1]=" '' $pair)
            return
        end
    end
    __fish_complete_path "$current"
end
complete -c litft -f -a '(__litft_names)'
"""


def complete(shell: str, config: NothingConfig, report: Callable[[str], None]) -> Iterator[str]:
    """Gives the script of a shell.

    Args:
        shell: bash, zsh or fish.
        config: says nothing.
        report: is not needed.
    """
    if shell == "fish":
        yield _fill(FISH, "        case {}\n            {}", "'{}'", " ", "set {} {}")
    else:
        yield (ZSH if shell == "zsh" else "") + _fill(BASH, "            {}) {} ;;", '"{}"', "|", '{}="{}"')


def _fill(script: str, case: str, quoted: str, between: str, setting: str) -> str:
    """Fills a script with what stands in the table of commands.

    Args:
        script: with places for `first` words, `groups` and `commands`.
        case: one case of the shell's choice, with places for its patterns and what is done.
        quoted: how a pattern is quoted.
        between: what stands between patterns.
        setting: how a variable gets a value.
    """
    first = list(dict.fromkeys(command.words[0] for command in COMMANDS))
    groups = {word: [each.words[1] for each in COMMANDS if each.words[0] == word and each.words[1:]] for word in first}
    lines = [
        case.format(quoted.format(word), setting.format("names", " ".join(names)))
        for word, names in groups.items()
        if names
    ]
    alike: dict[tuple[str, str], list[str]] = {}
    for command in COMMANDS:
        alike.setdefault(_flags_and_values(command), []).append(_pattern(command, quoted))
    cases = [
        case.format(between.join(patterns), f"{setting.format('flags', flags)}; {setting.format('values', values)}")
        for (flags, values), patterns in alike.items()
    ]
    return script.format(
        first=" ".join([*first, "--help", "--version"]), groups="\n".join(lines), commands="\n".join(cases)
    )


def _pattern(command: Command, quoted: str) -> str:
    """Gives the pattern of a command's words; one word stands before anything."""
    if len(command.words) == 2:
        return quoted.format(" ".join(command.words))
    return quoted.format(f"{command.words[0]} *") if quoted[0] == "'" else f"{quoted.format(command.words[0] + ' ')}*"


def _flags_and_values(command: Command) -> tuple[str, str]:
    """Gives a command's flags, and `--flag=a,b` for each whose values are known, as words."""
    module, _, name = command.config.partition(":")
    leaves: dict[str, Leaf] = dict(list_leaves(getattr(importlib.import_module(module), name)))
    shared = Counter(full.rpartition(".")[2] for full in leaves)
    names = {full: full for full in leaves}
    names |= {full.rpartition(".")[2]: full for full in leaves if shared[full.rpartition(".")[2]] == 1}
    values = {short: _choices(leaves[full]) for short, full in names.items()}
    told = (f"--{short}={','.join(choices)}" for short, choices in values.items() if choices)
    return " ".join(f"--{short}" for short in names), " ".join(told)


def _choices(field: Leaf) -> list[str]:
    """Gives the values of a flag that has but a few."""
    parts = [kind for kind in (typing.get_args(field.type) or [field.type]) if kind is not type(None)]
    if typing.get_origin(field.type) is typing.Literal:
        return [str(part) for part in parts]
    found = [choice for part in parts if typing.get_origin(part) is typing.Literal for choice in typing.get_args(part)]
    return [str(choice) for choice in found] + (["true", "false"] if bool in parts else [])
