"""JSON or parquet of the user's own, in any shape that another dataset has: told by the fields of its rows.

Each shape is read by its own dataset's reader; this file only finds which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from litft.data.reading.documents import OFF, ON, read_document
from litft.data.reading.faults import listed
from litft.data.reading.kinds import TABLES, plain_suffix
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Found, Rows, Source
from litft.data.sources.alpaca import read_alpaca
from litft.data.sources.dolly import read_dolly
from litft.data.sources.flan import read_flan
from litft.data.sources.guanaco import read_guanaco
from litft.data.sources.lima import read_lima
from litft.data.sources.longform import read_longform
from litft.data.sources.magpie import read_magpie
from litft.data.sources.messages import read_messages
from litft.data.sources.natural_instructions import read_flat
from litft.data.sources.p3 import read_p3
from litft.data.sources.self_instruct import read_self_instruct
from litft.data.sources.sharegpt import read_sharegpt
from litft.errors import DataError, did_you_mean

# Rows looked at to tell the shape: enough to pass over a few broken ones, few enough to be read twice.
LOOKED_AT = 100

# Fields of rows that another command reads where no shape but plain text fits: what they are, and the command.
ELSEWHERE = {
    "input_ids": ("they are token ids already", "tokenized"),
    "message_tree_id": ("they are OpenAssistant's messages or trees", "oasst1"),
    "Instances": ("they are a task of Natural-Instructions", "natural_instructions"),
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the rows of a dataset look like.

    Attributes:
        name: as `--format` calls it.
        needs: fields that each row has.
        read: gives the rows of a file, as its dataset does.
        may: fields that are read where they are there.
        items: type of what the first field holds, or of the items where it is a list.
        is_list: whether the first field is a list.
        begins: one of these begins the first field; empty for no matter what.
        beats: shapes that fit too wherever this one does, and say less.
        command: of `litft prepare`, which reads such rows; empty where that is the shape's name.
    """

    name: str
    needs: tuple[str, ...]
    read: Callable[[Path], Rows]
    may: tuple[str, ...] = ()
    items: type = str
    is_list: bool = False
    begins: tuple[str, ...] = ()
    beats: tuple[str, ...] = ()
    command: str = ""

    def fits(self, values: Mapping[str, object]) -> bool:
        """Says whether a row is of this shape."""
        first = values.get(self.needs[0])
        if any(values.get(name) is None for name in self.needs) or isinstance(first, list) != self.is_list:
            return False
        items = first if isinstance(first, list) else [first]
        begins = not self.begins or (isinstance(first, str) and first.lstrip().startswith(self.begins))
        return begins and all(isinstance(item, self.items) for item in items)


def read_documents(path: Path) -> Rows:
    """Gives the documents of a file of `{"text"}`.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield read_document(line, values)


SHAPES = (
    Shape(
        name="messages",
        needs=("messages",),
        read=read_messages,
        may=("tools",),
        items=dict,
        is_list=True,
        beats=("text",),
    ),
    Shape(
        name="sharegpt",
        needs=("conversations",),
        read=read_sharegpt,
        items=dict,
        is_list=True,
        beats=("dolly", "magpie", "text"),
    ),
    Shape(name="lima", needs=("conversations",), read=read_lima, is_list=True, beats=("text",)),
    Shape(name="self_instruct", needs=("instances", "instruction"), read=read_self_instruct, items=dict, is_list=True),
    Shape(
        name="magpie",
        needs=("responses", "instruction"),
        read=read_magpie,
        may=("rewards", "reward"),
        is_list=True,
        beats=("text",),
    ),
    Shape(name="alpaca", needs=("instruction", "output"), read=read_alpaca, may=("input",), beats=("longform", "text")),
    Shape(name="dolly", needs=("instruction", "response"), read=read_dolly, may=("context",), beats=("text",)),
    Shape(
        name="natural_instructions",
        needs=("definition", "inputs", "targets"),
        read=read_flat,
        beats=("flan", "text"),
        command="json",
    ),
    Shape(name="flan", needs=("inputs", "targets"), read=read_flan, beats=("text",)),
    Shape(name="p3", needs=("inputs_pretokenized", "targets_pretokenized"), read=read_p3, may=("is_correct",)),
    Shape(name="prompt_completion", needs=("prompt", "completion"), read=read_p3, beats=("text",), command="p3"),
    Shape(
        name="prompt_completion_messages",
        needs=("prompt", "completion"),
        read=read_messages,
        items=dict,
        is_list=True,
        beats=("text",),
        command="messages",
    ),
    Shape(name="longform", needs=("input", "output"), read=read_longform, beats=("text",)),
    Shape(
        name="guanaco",
        needs=("text",),
        read=read_guanaco,
        begins=("### Human:", "<s>[INST]", "<s> [INST]", "[INST]"),
        beats=("text",),
    ),
    Shape(name="text", needs=("text",), read=read_documents, may=(OFF, ON)),
)
NAMED = {shape.name: shape for shape in SHAPES}


def read_json(path: Path, format: str | None = None) -> Rows:
    """Gives the rows of a file, as the reader of its shape does.

    Args:
        path: a JSON list, JSON Lines or parquet.
        format: name of the shape; None to tell it by the fields.

    Raises:
        DataError: the file cannot be read; its rows are of no known shape, or of two; or there is no such format.
    """
    if format is not None and format not in NAMED:
        raise DataError(f'--format is "{format}"; it must be one of {", ".join(NAMED)}.{did_you_mean(format, NAMED)}')
    shape = _detect(path) if format is None else NAMED[format]
    if shape is None:
        return
    why = "" if format is None else ", as --format says"
    yield Found(f"The rows are of the shape {shape.name} ({', '.join((*shape.needs, *shape.may))}){why}.")
    yield from shape.read(path)


def unused_fields(path: Path, format: str | None = None, used: Collection[str] = ()) -> str | None:
    """Gives a sentence on the fields that `read_json` leaves aside, None where there are none.

    Args:
        path, format: as `read_json` takes them; the file was read before.
        used: fields that are read beside the rows.
    """
    shape = _detect(path) if format is None else NAMED[format]
    if shape is None:
        return None
    fields = dict.fromkeys(name for values in look_at(path) for name in values)
    unused = [name for name in fields if name not in (*shape.needs, *shape.may, *used)]
    return f"Not used of {path}: {listed(unused)}." if unused else None


def look_at(path: Path) -> list[dict[str, object]]:
    """Gives the first rows of a file.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    return [values for _, values in islice(iter_records(path), LOOKED_AT)]


def _detect(path: Path) -> Shape | None:
    """Finds the one shape that most rows have; None where there are no rows."""
    suffix = plain_suffix(path)
    if suffix in TABLES:
        raise DataError(f"{path} is no JSON; `litft prepare {TABLES[suffix]}` reads {suffix} files.")
    looked_at = look_at(path)
    if not looked_at:
        return None
    left = fitting_shapes(looked_at)
    elsewhere = read_elsewhere(looked_at, left)
    if elsewhere is not None:
        what, command = ELSEWHERE[elsewhere]
        raise DataError(
            f"The rows of {path} have {listed(looked_at[0])}: {what}; `litft prepare {command}` reads them."
        )
    if len(left) == 1:
        return NAMED[left[0]]
    raise DataError(_unclear(path, left) if left else _mixed(path, looked_at) or _unknown(path, looked_at))


def fitting_shapes(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Gives the names of the shapes that most rows have, those left out that say less than another of them.

    Args:
        rows: the first of a file, at least one.
    """
    found = [shape.name for shape in SHAPES if 2 * sum(map(shape.fits, rows)) > len(rows)]
    beaten = {name for winner in found for name in NAMED[winner].beats}
    return [name for name in found if name not in beaten]


def read_elsewhere(rows: Sequence[Mapping[str, object]], names: Sequence[str]) -> str | None:
    """Gives the key of `ELSEWHERE` that says what rows are, where no shape but plain text fits them.

    Args:
        rows: as `fitting_shapes` takes them.
        names: what that gives for them.
    """
    return next((name for name in ELSEWHERE if name in rows[0]), None) if list(names) in ([], ["text"]) else None


def _unclear(path: Path, names: Iterable[str]) -> str:
    """Says that rows have two shapes at once."""
    shown = " and ".join(f"{name} ({', '.join(NAMED[name].needs)})" for name in names)
    return f"The rows of {path} could be {shown}; say which with --format NAME."


def _mixed(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    """Says which shapes some rows have where no shape is that of most; an empty text where none has any."""
    told = [
        f"{count} {name}" for name, count in ((shape.name, sum(map(shape.fits, rows))) for shape in SHAPES) if count
    ]
    if not told:
        return ""
    return (
        f"The rows of {path} are of no one shape: of the first {len(rows)} fit {' and '.join(told)}. Put the rows of "
        "each shape into a file of their own, or say with --format NAME which to read."
    )


def _unknown(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    """Says that rows have no known shape, which fields they have, and what comes nearest."""
    values = rows[0]
    within = next((name for name, value in values.items() if _holds_rows(value)), None)
    if len(rows) == 1 and within is not None:
        return (
            f"{path} holds one object, whose {listed([within])} is a list of objects; if these are the rows, save that "
            "list alone."
        )
    nearest = max(SHAPES, key=lambda shape: sum(name in values for name in shape.needs) / len(shape.needs))
    wanted = listed(nearest.needs)
    kind = f"a list of {'objects' if nearest.items is dict else 'texts'}" if nearest.is_list else "text"
    return (
        f"The rows of {path} have {listed(values)}, which is no known shape; the nearest is {nearest.name}, with "
        f'{wanted} ("{nearest.needs[0]}" is {kind}). Rename the fields, or name the shape with --format.'
    )


def _holds_rows(value: object) -> bool:
    """Says whether a value is a list of objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


SOURCE = Source(
    name="json",
    repo_id=None,
    files=(),
    licence="your own",
    origin="unknown",
    rows=None,
    schema=f"a JSON list, JSON Lines or parquet of one of the shapes {', '.join(NAMED)}",
    read=read_json,
    folder_files=("*.parquet", "*.json", "*.jsonl"),
    unused=unused_fields,
)
