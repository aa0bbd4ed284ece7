"""What Self-Instruct asks a model for, and how its replies are read and filtered. Asks nobody and knows no files.

Source: arXiv 2212.10560 (Wang et al. 2022) and github.com/yizhongw/self-instruct, `bootstrap_instructions.py` and
`prepare_for_finetuning.py`: the list of tasks to be continued, and what is dropped. The words of the prompts are ours,
and the examples in them are the user's seeds. Tasks of classification are not asked for apart: all get inputs first.
"""

from __future__ import annotations

import random
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

# Source: `bootstrap_instructions.py`. What a model of text cannot see or do, as whole words.
FORBIDDEN = (
    "image",
    "images",
    "graph",
    "graphs",
    "picture",
    "pictures",
    "file",
    "files",
    "map",
    "maps",
    "draw",
    "plot",
)
FORBIDDEN_WORDS = re.compile(rf"\b({'|'.join(FORBIDDEN)}|go to)\b", re.IGNORECASE)
FEWEST_WORDS, MOST_WORDS = 4, 150

# Of the listed instructions, two are grown ones once there are some; a list is continued up to 16.
LISTED, LISTED_GROWN, LIST_END = 8, 2, 16
LIST_STOP = (f"\n{LIST_END + 1}.",)

SHOWN_TASKS, LONGEST_SHOWN = 4, 500
MOST_INSTANCES = 5
TASK_STOP = ("\nTask:",)

_ITEM = re.compile(r"(?:^|\n)[\s*]*\d+\s*[.)][\s*]*")
_EXAMPLE = re.compile(r"(?:^|\n)[ \t*#]*Example\s*\d+[ \t*:.]*(?=\n|$)", re.IGNORECASE)
_INPUT = re.compile(r"^\s*\**Input\s*\d*\s*:\**", re.IGNORECASE)
_NEXT_INPUT = re.compile(r"\n\s*\**Input\s*\d*\s*:", re.IGNORECASE)
_OUTPUT = re.compile(r"(?:^|\n)\s*\**Output\s*\d*\s*:\**", re.IGNORECASE)
_NO_INPUT = re.compile(r"[<(\[]?\s*(?:none|n/a|no\s?input(?: needed| required)?)\s*[>)\]]?\.?", re.IGNORECASE)
_THOUGHT = re.compile(r".*</think>", re.DOTALL)


class Instance(NamedTuple):
    """One case of a task; the input may be empty."""

    input: str
    output: str


class Task(NamedTuple):
    """An instruction and its cases."""

    instruction: str
    instances: tuple[Instance, ...]


def without_thought(text: str) -> str:
    """Leaves out what a model thinks before `</think>`."""
    return _THOUGHT.sub("", text)


def list_prompt(instructions: Sequence[str]) -> str:
    """Asks for more instructions: a list to be continued."""
    lines = [f"{number}. {_one_line(text).rstrip(':')}" for number, text in enumerate(instructions, start=1)]
    head = f"Come up with a series of {LIST_END} varied tasks for a language model, in one line each:"
    return "\n".join([head, "", *lines, f"{len(lines) + 1}."])


def read_list(reply: str, is_whole: bool, dropped: Counter[str]) -> list[str]:
    """Gives the instructions of a reply, unfiltered.

    Args:
        reply: goes on behind the number of the first, or begins with a number.
        is_whole: whether it was not cut; the last instruction of a cut one is dropped.
        dropped: counts what is left out.
    """
    first, *rest = _ITEM.split(without_thought(reply))
    if rest and first.strip().endswith(":"):
        first = ""  # a remark before the list
    found = [line for line in map(_one_line, (first, *rest)) if line]
    if found and not is_whole:
        dropped["cut off"] += 1
        found.pop()
    return found


def fault_of(instruction: str) -> str | None:
    """Says why an instruction is dropped, whatever the others are; None where it is not."""
    count = len(instruction.split())
    if not FEWEST_WORDS <= count <= MOST_WORDS:
        return f"shorter than {FEWEST_WORDS} words" if count < FEWEST_WORDS else f"longer than {MOST_WORDS} words"
    if FORBIDDEN_WORDS.search(instruction):
        return "names an image, a graph, a file or the like"
    if instruction.lower().startswith("write a program"):
        return "begins with: write a program"
    if instruction[0] in string.punctuation:
        return "begins with punctuation"
    return None if instruction[0].isascii() else "begins with a character that is not English"


def task_prompt(instruction: str, seeds: Sequence[Task], chance: random.Random) -> str:
    """Asks for cases of a task, behind a few seeds with theirs.

    Args:
        instruction: the task.
        seeds: tasks with instances; long ones are not shown.
        chance: draws those that are.
    """
    short = [seed for seed in seeds if seed.instances and len(_shown(seed)) <= LONGEST_SHOWN]
    shown = chance.sample(short, min(SHOWN_TASKS, len(short)))
    head = (
        f"Write examples for the last task, up to {MOST_INSTANCES}, in the form of the tasks before it. "
        "Where a task needs no input, write its output alone."
    )
    return "\n\n".join([head, *map(_shown, shown), f"Task: {_one_line(instruction)}\n"])


def _shown(task: Task) -> str:
    """Writes a task as a model is to write it."""
    if not task.instances[0].input.strip():
        return f"Task: {_one_line(task.instruction)}\nOutput: {task.instances[0].output.strip()}"
    cases = (
        f"Example {number}\nInput: {case.input.strip()}\nOutput: {case.output.strip()}"
        for number, case in enumerate(task.instances[:2], start=1)
    )
    return "\n".join([f"Task: {_one_line(task.instruction)}", *cases])


def read_instances(reply: str, is_whole: bool, dropped: Counter[str]) -> tuple[Instance, ...]:
    """Gives the cases of a reply that can be used.

    Args:
        reply: begins behind the task.
        is_whole: whether it was not cut; the last case of a cut one is dropped.
        dropped: counts what is left out.
    """
    parts = [part.strip() for part in _EXAMPLE.split(without_thought(reply)) if part.strip()]
    if parts and not is_whole:
        dropped["instance: cut off"] += 1
        parts.pop()
    found: list[Instance] = []
    for part in parts:
        fault = _fault_of_instance(case := _read_instance(part), found)
        if fault is None and case is not None:
            found.append(case)
        else:
            dropped[f"instance: {fault}"] += 1
    inputs = Counter(case.input for case in found if case.input)
    if any(count > 1 for count in inputs.values()):  # the task is unclear: all of it goes
        dropped["instance: another output for the same input"] += len(found)
        return ()
    dropped["instance: beyond the first five"] += max(len(found) - MOST_INSTANCES, 0)
    return tuple(found[:MOST_INSTANCES])


def _read_instance(text: str) -> Instance | None:
    """Reads one case; None where nothing in it is an output."""
    found = _OUTPUT.search(text)
    if found is None:
        return None
    given = _INPUT.sub("", text[: found.start()]).strip()
    output = _NEXT_INPUT.split(text[found.end() :], maxsplit=1)[0]
    return Instance("" if _NO_INPUT.fullmatch(given) else given, output.strip())


def _fault_of_instance(case: Instance | None, before: Sequence[Instance]) -> str | None:
    """Says why a case is dropped; None where it is not."""
    if case is None or not case.output:
        return "no output"
    if case.input == case.output:
        return "the output is the input"
    if case.input.endswith(":") or case.output.endswith(":"):
        return "ends in a colon"
    return "equal to another" if case in before else None


def _one_line(text: str) -> str:
    """Makes each run of spaces and line ends one space."""
    return " ".join(text.split())
