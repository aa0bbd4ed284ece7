"""OpenAssistant Conversations: trees of messages by volunteers, with several ranked answers to a question.

Read are the nested trees (`*.trees.jsonl.gz`) and the flat messages (`*.messages.jsonl.gz`, the parquet files of the
hub). Source: huggingface.co/datasets/OpenAssistant/oasst1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from litft.data.reading.faults import absent_field
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Rows, Source
from litft.data.reading.trees import Message, Paths, build_tree, cut_tree, iter_paths, link_messages
from litft.data.reading.turns import row_of


def read_oasst1(path: Path, paths: Paths = "best", language: Sequence[str] = ()) -> Rows:
    """Gives the conversations of a file: paths through its trees that end in an answer.

    A deleted message, or one in another language, is a rejected row and no fault, and what replies to it is left out
    with it; so is a message whose parent is not in the file.

    Args:
        path: the file.
        paths: `best` takes one path of each tree, the best-ranked; `all` every path from the root to a last answer.
        language: codes of the languages to read, as in the field `lang`; none for all.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    flat: list[tuple[int, Mapping[str, object]]] = []
    for line, values in iter_records(path):
        if isinstance(values.get("prompt"), dict):
            tree = build_tree(line, values["prompt"])
            yield from [Rejected(line, tree)] if isinstance(tree, str) else _read_tree(tree, paths, language)
        elif "message_id" in values:
            flat.append((line, values))
        else:
            yield Rejected(line, absent_field("prompt", values, "a message with its replies"))
    roots, rejected = link_messages(flat)
    yield from rejected
    for root in roots:
        yield from _read_tree(root, paths, language)


def _read_tree(root: Message, paths: Paths, language: Sequence[str]) -> Rows:
    """Gives the conversations of one tree, and the messages of it that are left out."""
    kept, cut = cut_tree(root, language)
    yield from cut
    if kept is None:
        return
    if not kept.replies:
        yield Rejected(kept.line, "a question without an answer", is_fault=not cut)
        return
    for path in iter_paths(kept, paths):
        yield row_of(kept.line, [(message.role, message.text) for message in path])


SOURCE = Source(
    name="oasst1",
    repo_id="OpenAssistant/oasst1",
    files=("2023-04-12_oasst_ready.trees.jsonl.gz",),
    licence="Apache-2.0",
    origin="human",
    rows=10_364,
    schema=(
        'JSON Lines (.gz too) of trees {"prompt": {"text", "role", "replies": [...]}}, or JSON Lines or parquet of '
        'messages {"message_id", "parent_id", "text", "role"}'
    ),
    read=read_oasst1,
    folder_files=("*.trees.jsonl.gz", "*.parquet", "data/*.parquet"),
    has_fields=False,
)
