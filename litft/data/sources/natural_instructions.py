"""Super-NaturalInstructions: one JSON file for each task, with its definition, examples and instances.

Source: github.com/allenai/natural-instructions, `tasks/*.json` (Wang et al. 2022, arXiv 2204.07705).
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litft.data.reading.faults import absent_field, kind_of, missing_field, text_fault
from litft.data.reading.kinds import other_form
from litft.data.reading.lists import read_json_object
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Row, Rows, Source, read_fields
from litft.errors import DataError, did_you_mean
from litft.text.conversation import Conversation, completion

# Source: the words of Tk-Instruct's `src/ni_collator.py`, which made the paper's prompts. Its full stop behind every
# text that ends in none is left out: an answer shown would differ from the answers learnt.
EXAMPLE_FRAME = "{kind} Example {number} -\nInput: {input}\nOutput: {output}\n\n"
FRAME = "Definition: {definition}\n\n{examples}Now complete the following example -\nInput: {input}\nOutput:"

SEVERAL = "the first of several right answers is taken"
NOT_DRAWN = "it was not drawn (--rows_per_task)"


@dataclass(frozen=True)
class Task:
    """What all rows of a task share.

    Attributes:
        definition: what is to be done.
        examples: the frames of the examples to show, one behind the other; empty where none are shown.
    """

    definition: str
    examples: str

    def instance(self, input: str, output: str) -> Conversation:
        """Gives one instance: in the frame where examples are shown, else as instruction and input."""
        if not self.examples:
            return completion(self.definition, output, input)
        return completion(FRAME.format(definition=self.definition, examples=self.examples, input=input), output)


def read_tasks(
    path: Path,
    tasks: Sequence[str] = (),
    rows_per_task: int | None = None,
    examples: tuple[int, int] = (0, 0),
    seed: int = 42,
) -> Rows:
    """Gives the instances of one task, each one turn.

    Args:
        path: the task's file.
        tasks: heeded by `choose_tasks`, which chooses the files.
        rows_per_task: how many to draw; None for all. The others count as rejected, not as faults.
        examples: how many positive and negative examples to show before each.
        seed: the same seed and task give the same rows.

    Raises:
        DataError: the file is no task.
    """
    values, places = read_json_object(path, "Instances")
    task = _task(path, values, examples)
    instances: list[object] = values["Instances"]
    drawn = range(len(instances))
    chosen = set(drawn)
    if rows_per_task is not None and rows_per_task < len(instances):
        chosen = set(random.Random(f"{seed} {path.stem}").sample(drawn, rows_per_task))
    for index, (place, instance) in enumerate(zip(places, instances, strict=True)):
        yield _read_instance(place, instance, task) if index in chosen else Rejected(place, NOT_DRAWN, is_fault=False)


def read_flat(path: Path) -> Rows:
    """Gives the rows of the flat form: definition, inputs and targets in each.

    Source: huggingface.co/datasets/Muennighoff/natural-instructions.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield read_fields(line, values, instruction="definition", response="targets", context="inputs")


def choose_tasks(paths: list[Path], tasks: Sequence[str] = (), **_: object) -> list[Path]:
    """Gives the files of the tasks asked for, in their order by name.

    Args:
        paths: one file for each task, called as the task is.
        tasks: names, in which `*` stands for any part; empty for all.

    Raises:
        DataError: a name fits none; with the nearest.
    """
    names = [path.stem for path in paths]
    for pattern in tasks:
        if not fnmatch.filter(names, pattern):
            shown = f"{len(names)} task{'s' * (len(names) != 1)} of {paths[0].parent}"
            raise DataError(f'--tasks names "{pattern}", which is none of the {shown}.{did_you_mean(pattern, names)}')
    wanted = list(tasks) or ["*"]
    return [path for path in paths if any(fnmatch.fnmatchcase(path.stem, pattern) for pattern in wanted)]


def _task(path: Path, values: dict[str, Any], examples: tuple[int, int]) -> Task:
    """Reads what all rows share."""
    definition = values.get("Definition")
    texts: Any = [definition] if isinstance(definition, str) else definition
    if not isinstance(texts, list) or not texts:
        fault: str | None = absent_field("Definition", values, "a list with a text")
    elif not isinstance(values.get("Instances"), list):
        fault = absent_field("Instances", values, "a list")
    else:
        fault = text_fault(texts[0], '"Definition"')
    if fault is not None:
        raise DataError(f"{path} is no task: {fault}.{other_form(path, 'natural_instructions')}")
    kinds = zip(("Positive", "Negative"), examples, strict=True)
    return Task(str(texts[0]).strip(), "".join(_examples(path, values, kind, count) for kind, count in kinds))


def _examples(path: Path, values: dict[str, Any], kind: str, count: int) -> str:
    """Gives the frames of the first examples of a kind; fewer where the task has fewer."""
    listed = values.get(f"{kind} Examples")
    # A task without examples of a kind may hold a lone "-" there.
    given = [example for example in listed if isinstance(example, dict)] if isinstance(listed, list) else []
    frames = []
    for number, example in enumerate(given[:count], start=1):
        for name in ("input", "output"):
            fault = text_fault(example.get(name), f'"{name}" of {kind} Example {number}', may_be_empty=True)
            if fault is not None:
                raise DataError(f"{path}: {fault}.")
        shown = {name: example[name].strip() for name in ("input", "output")}
        frames.append(EXAMPLE_FRAME.format(kind=kind, number=number, **shown))
    return "".join(frames)


def _read_instance(line: int, instance: object, task: Task) -> Row | Rejected:
    """Reads one instance; of several right answers the first."""
    if not isinstance(instance, dict):
        return Rejected(line, f'the instance is {kind_of(instance)}, not an object with "input" and "output"')
    outputs = instance.get("output")
    outputs = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(outputs, list) or not outputs:
        return Rejected(line, absent_field("output", instance, "a text or a list of texts"))
    if "input" not in instance:
        return Rejected(line, missing_field("input", instance))
    text, answer = instance["input"], outputs[0]
    fault = text_fault(text, '"input"', may_be_empty=True) or text_fault(answer, '"output"')
    if fault is not None:
        return Rejected(line, fault)
    notes = (SEVERAL,) if len(outputs) > 1 else ()
    return Row(line, task.instance(str(text).strip(), str(answer).strip()), notes)


SOURCE = Source(
    name="natural_instructions",
    repo_id=None,
    files=(),
    licence="Apache-2.0; the tasks keep their own",
    origin="human",
    rows=None,
    schema=(
        'a task file, or a folder of them: {"Definition", "Positive Examples", "Negative Examples", '
        '"Instances": [{"input", "output": [...]}]}'
    ),
    read=read_tasks,
    folder_files=("task*.json", "tasks/task*.json"),
    choose=choose_tasks,
    has_fields=False,
)
