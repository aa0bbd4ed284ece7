"""The command line: finds the command, builds its config, imports its function only then, and turns errors into a
sentence and exit code 2. Knows no command's work.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import json
import os
import shlex
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from litft import __version__
from litft.config.commands import COMMANDS, Command
from litft.config.help import group_help, top_help
from litft.config.processes import is_first
from litft.errors import ConfigError, FaultsFoundError, LitftError, PreemptedError, StoppedElsewhereError, did_you_mean
from litft.terminal.bars import close_all, say
from litft.terminal.shown import for_stdout

FAULTS_FOUND = 1
USER_MISTAKE = 2
INTERRUPTED = 130
# What a write to an open file may meet: no space, a quota or a limit that is reached, a disk that fails or went away.
DISK_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)
TRAINING = ("finetune", "plan", "check")  # commands that take the settings of a run
NAMES_HINT = """A last name that is unique may stand alone: --max_iters is --train.max_iters.
--sweep.LEAF A,B runs every combination of such values: --sweep.learning_rate 1e-4,3e-4 --sweep.seed 1,2."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and gives the exit code: 0, 1 for faults found, 2 for a mistake of the user's, 130 for Ctrl-C.

    Args:
        args: the words after `litft`; None takes them from the process.
    """
    words = sys.argv[1:] if args is None else list(args)
    return _answer(lambda: _run_command(words))


def run_recipe(method: str, file: str) -> NoReturn:
    """Runs a recipe's own file as a script: parses the flags, imports the file only then, calls its `main`, exits.

    Args:
        method: which method's flags it takes; a copy under another name keeps its method.
        file: the recipe's `__file__`.
    """
    command = find_command(["finetune", method])[0]
    words, prog, start = sys.argv[1:], f"python {file}", [sys.executable, file]
    sys.exit(_answer(lambda: _call(command, lambda *given: _import_file(Path(file)).main(*given), words, prog, start)))


def find_command(words: Sequence[str]) -> tuple[Command, list[str]]:
    """Gives the command that the first words name, and its flags.

    Raises:
        ConfigError: there is no such command; with the nearest one.
    """
    for command in COMMANDS:
        size = len(command.words)
        if tuple(words[:size]) == command.words:
            rest = list(words[size:])
            if command.first and rest and not rest[0].startswith("-"):
                count = len(list(takewhile(lambda word: not word.startswith("-"), rest))) if command.takes_many else 1
                value = json.dumps(rest[:count]) if command.takes_many else rest[0]
                rest[:count] = [f"--{command.first}={value}"]
            return command, [*command.flags, *rest]
    typed = [word for word in words[:2] if not word.startswith("-")]
    known = [" ".join(command.words) for command in COMMANDS]
    below = [name.split(" ")[1] for name in known if typed and name.startswith(f"{typed[0]} ")]
    if below and len(typed) == 1:
        raise ConfigError(f"{typed[0]} needs a name behind it: litft {typed[0]} --help lists them.")
    hint = did_you_mean(" ".join(typed), known) or did_you_mean(typed[0] if typed else "", known)
    raise ConfigError(f'There is no command "litft {" ".join(typed)}"; see litft --help.{hint}')


def _run_command(words: list[str]) -> None:
    """Runs what the words ask for."""
    groups = {command.words[0] for command in COMMANDS if len(command.words) > 1}
    if words[:1] == ["help"] and len(words) > 1:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(top_help())  # noqa: T201 - the command line's own output
    elif len(words) == 2 and words[0] in groups and words[1] in ("-h", "--help"):
        print(group_help(words[0]))  # noqa: T201
    elif words[0] in ("--version", "-V"):
        print(f"litft {__version__}")  # noqa: T201
    else:
        if len(words) == 1 and words[0] in groups:
            report(group_help(words[0]) + "\n")
        command, rest = find_command(words)
        _call(command, lambda *given: _import_target(command)(*given), rest)


def _call(
    command: Command,
    target: Callable[..., Any],
    words: list[str],
    prog: str | None = None,
    start: Sequence[str] | None = None,
) -> None:
    """Builds the command's config, or those of a sweep, and calls its function.

    Args:
        command: which one.
        target: its function.
        words: its flags.
        prog: the command as it was typed.
        start: the words that start it in another process.
    """
    from litft.config.parse import HelpRequest, parse_runs  # YAML, which `litft --help` need not know

    module, _, name = command.config.partition(":")
    kind = getattr(importlib.import_module(module), name)
    prog = prog or f"litft {' '.join(command.words)}"
    try:
        runs = parse_runs(kind, words, prog, _description(command), command.first)
    except HelpRequest as request:
        print(str(request).rstrip())  # noqa: T201
        return
    config = runs.runs[0].config
    if runs.is_sweep and command.words[0] == "check":
        raise ConfigError("--sweep is for litft finetune and litft plan; check one of its runs.")
    if runs.is_sweep:
        sweep = importlib.import_module("litft.train.sweep").run_sweep
        folder = f"out/{command.words[1]}/{config.data_dir.name}-sweep"
        sweep(runs, target, start or [sys.executable, "-m", "litft", *command.words], folder, report)
        return
    if command.words[0] in TRAINING:
        require_checkpoint(config.checkpoint_dir)
    speaks = is_first(getattr(config, "processes", 1))
    try:
        result = target(*([command.bound] if command.bound else []), config, report if speaks else _say_nothing)
    except PreemptedError as error:
        report(f"{error} Go on with: {prog} {shlex.join(_without(words, '--resume', '--overwrite'))} --resume auto")
        return
    if isinstance(result, Iterator):  # an answer, piece by piece
        for piece in result:
            sys.stdout.write(for_stdout(piece))
            sys.stdout.flush()


def _without(words: Sequence[str], *flags: str) -> list[str]:
    """Gives the words of a command without these flags and their values."""
    kept, is_value = [], False
    for word in words:
        is_flag = word.startswith("--")
        if (is_value and not is_flag) or word.partition("=")[0] in flags:
            is_value = is_flag and "=" not in word
        else:
            kept.append(word)
            is_value = False
    return kept


def _import_target(command: Command) -> Callable[..., Any]:
    """Gives the function of a command.

    Raises:
        ConfigError: this litft was copied without it, as into a submission, which holds no demo.
    """
    module, _, name = command.target.partition(":")
    try:
        return typing.cast("Callable[..., Any]", getattr(importlib.import_module(module), name))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(f"This copy of litft is without {error.name}; an installed litft has it.") from error


def require_checkpoint(path: Path) -> None:
    """Says that a folder is not there now, and not after the seconds that the imports of a run take.

    Raises:
        CheckpointError: naming the nearest that is.
    """
    from litft.checkpoint.files import resolve_checkpoint_dir

    resolve_checkpoint_dir(path)


def _description(command: Command) -> str:
    """Gives what stands above the flags in a command's help."""
    hint = f"\n\n{NAMES_HINT}" if command.words[0] in TRAINING else ""
    return f"{command.help}\n\nexample: {command.example}{hint}"


def _import_file(path: Path) -> Any:
    """Imports a Python file by its path."""
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def report(text: str) -> None:
    """Shows a person what is going on; answers alone go to stdout."""
    say(text)


def _say_nothing(text: str) -> None:
    """Takes what the first process of a run says for all of them."""


def _answer(work: Callable[[], object]) -> int:
    """Does the work and turns what a user can mend into one sentence."""
    try:
        work()
    except StoppedElsewhereError:  # not a failure of this process: a launcher would kill the one that says why
        return 0
    except FaultsFoundError as error:
        report(f"litft: {error}")
        return FAULTS_FOUND
    except LitftError as error:
        report("litft: " + str(error).replace("\n", "\\n"))  # a value may hold line ends; the sentence has one line
        return USER_MISTAKE
    except KeyboardInterrupt:
        report("litft: stopped.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `litft --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a full disk, a folder that may not be written
        if error.filename is None and error.errno not in DISK_FAILURES:
            raise
        report(f"litft: {error.filename or 'A file cannot be written'}: {error.strerror}.")
        return USER_MISTAKE
    finally:
        close_all()
    return 0
