"""Which dataset a file looks like, where it is not the one it was given as. Knows no tokenizer."""

from __future__ import annotations

from pathlib import Path

from litft.data.sources.json import ELSEWHERE, NAMED, fitting_shapes, look_at, read_elsewhere
from litft.errors import DataError


def nearest_command(dataset: str, path: Path) -> str:
    """Gives `' The rows look like dolly (instruction, response); did you mean `litft prepare dolly`?'`.

    Empty where the rows look like nothing known, or like what they were given as.

    Args:
        dataset: which the file was given as.
        path: a file of which no row could be used.
    """
    try:
        rows = look_at(path)
    except DataError:
        return ""  # it holds no rows of fields: what is wrong with it was said
    if not rows:
        return ""
    names = fitting_shapes(rows)
    elsewhere = read_elsewhere(rows, names)
    if elsewhere is not None:
        what, command = ELSEWHERE[elsewhere]
        return "" if command == dataset else f" Perhaps {what}; did you mean `litft prepare {command}`?"
    shapes = [NAMED[name] for name in names]
    commands = [shape.command or shape.name for shape in shapes]
    if not shapes or dataset in (*names, *commands):
        return ""
    shown = " and ".join(f"{shape.name} ({', '.join(shape.needs)})" for shape in shapes)
    command = commands[0] if len(commands) == 1 else f"json --format {names[0]}"
    return f" The rows look like {shown}; did you mean `litft prepare {command} --data_file {path}`?"
