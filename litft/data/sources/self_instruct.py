"""Self-Instruct: the seed tasks that people wrote, and tasks that a model generated from them.

Source: github.com/yizhongw/self-instruct, `data/seed_tasks.jsonl`; on the hub as HuggingFaceH4/self-instruct-seed. Many
projects generated tasks of their own in the same way; such a file may mark what its own filters refused.
"""

from __future__ import annotations

from pathlib import Path

from litft.data.reading.faults import absent_field, kind_of, missing_field, shown
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Found, Rejected, Row, Rows, Source, read_fields

SEEDS = Found("The rows are seed tasks with instances, written by people: one row an instance.", origin="human")
GENERATED = Found("The rows are tasks that a model generated: instruction, input, output.", origin="model")


def read_self_instruct(path: Path) -> Rows:
    """Gives the rows of a file: one an instance of a seed task, or one a generated task.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    said = None
    for line, values in iter_records(path):
        form = SEEDS if "instances" in values else GENERATED
        # A file of both forms says both, so that nobody takes the answers of a model for those of people.
        if form is not said:
            yield form
            said = form
        if form is SEEDS:
            yield from _read_instances(line, values)
        else:
            yield _read_generated(line, values)


def _read_instances(line: int, values: dict[str, object]) -> Rows:
    """Gives one row for each instance of a task."""
    instances = values["instances"]
    if not isinstance(instances, list) or not instances:
        yield Rejected(line, absent_field("instances", values, "a list of inputs with their outputs"))
        return
    for number, instance in enumerate(instances, start=1):
        if not isinstance(instance, dict):
            yield Rejected(line, f'instance {number} is {kind_of(instance)}, not an object with "input" and "output"')
            continue
        told = {name: values[name] for name in ("instruction",) if name in values}
        row = _read_task(line, {**told, **instance})
        yield row if isinstance(row, Row) else Rejected(line, f"instance {number}: {row.reason}")


def _read_generated(line: int, values: dict[str, object]) -> Row | Rejected:
    """Reads one generated task, unless its file marks it as refused."""
    status = values.get("status")
    if status not in (None, "ok"):
        return Rejected(line, f"its own filter refused it (status is {shown(status)})", is_fault=False)
    return _read_task(line, values)


def _read_task(line: int, values: dict[str, object]) -> Row | Rejected:
    """Reads instruction, input and output; the input may be empty."""
    if "input" not in values and "output" not in values:
        return Rejected(line, missing_field("output", values))
    return read_fields(line, values, instruction="instruction", response="output", context="input")


SOURCE = Source(
    name="self_instruct",
    repo_id="HuggingFaceH4/self-instruct-seed",
    files=("tasks.jsonl",),
    licence="Apache-2.0",
    origin="human",
    rows=175,
    schema=(
        'JSON Lines of {"instruction", "instances": [{"input", "output"}, ...]} (seed tasks), '
        'or of {"instruction", "input", "output"} (generated tasks)'
    ),
    read=read_self_instruct,
)
