"""Trees of messages: links flat messages to trees, cuts what is not to be learnt, and gives the paths. Knows no file.

Nothing here calls itself: how deep a tree is, its file decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from litft.data.reading.faults import kind_of, missing_field, shown, text_fault
from litft.data.reading.rows import Rejected

Paths = Literal["best", "all"]

ROLES = {"prompter": "user", "assistant": "assistant"}


@dataclass(eq=False)
class Message:
    """One message of a tree.

    Attributes:
        line: where it, or its tree, begins.
        role: `user`, `assistant`, or what the file calls a role that is neither.
        text: what it says, unchecked.
        language: its code, such as `en`; None where it has none.
        rank: 0 for the best of its siblings; None where nobody ranked it.
        is_deleted: whether the file says that it was taken back.
        replies: the messages that answer it, in the file's order.
    """

    line: int
    role: str
    text: object
    language: object
    rank: int | None
    is_deleted: bool
    replies: list[Message] = field(default_factory=list)


def read_message(line: int, values: Mapping[str, object]) -> Message | str:
    """Gives one message without its replies, or the reason why it is none.

    Args:
        line: where it, or its tree, begins.
        values: the fields of the published files: text, role, lang, rank, deleted.
    """
    for name in ("role", "text"):
        if name not in values:
            return missing_field(name, values)
    role, rank = values["role"], values.get("rank")
    if not isinstance(role, str):
        return f'"role" is {kind_of(role)}, not text'
    return Message(
        line,
        ROLES.get(role, role),
        values["text"],
        values.get("lang"),
        rank if isinstance(rank, int) else None,
        values.get("deleted") is True,
    )


def build_tree(line: int, prompt: Mapping[str, object]) -> Message | str:
    """Gives the root of a nested tree, or the reason why it is none.

    Args:
        line: where the tree begins.
        prompt: the root's fields; `replies` holds those of the messages below it, and so on.
    """
    root = read_message(line, prompt)
    if isinstance(root, str):
        return root
    waiting: list[tuple[Message, Mapping[str, object]]] = [(root, prompt)]
    while waiting:
        parent, values = waiting.pop()
        replies = values.get("replies") or []
        for reply in replies if isinstance(replies, list) else [replies]:
            if not isinstance(reply, dict):
                return f'"replies" holds {kind_of(reply)}, not messages'
            message = read_message(line, reply)
            if isinstance(message, str):
                return f"a reply: {message}"
            parent.replies.append(message)
            waiting.append((message, reply))
    return root


def link_messages(flat: Sequence[tuple[int, Mapping[str, object]]]) -> tuple[list[Message], list[Rejected]]:
    """Gives the roots of flat messages, in the file's order, and the messages that belong to no tree.

    What replies to such a message goes with it.

    Args:
        flat: line and fields of each message; `message_id` and `parent_id` tell the tree.
    """
    known, rejected = _by_name(flat)
    roots: list[Message] = []
    orphans: list[Message] = []
    for message, parent in known.values():
        if parent is None:
            roots.append(message)
        elif isinstance(parent, str) and parent in known:
            known[parent][0].replies.append(message)
        else:
            orphans.append(message)
    reached = {id(message) for top in (*roots, *orphans) for message in walk(top)}
    circling = [message for message, _ in known.values() if id(message) not in reached]
    rejected += [Rejected(each.line, "a message whose parent is not in the file", is_fault=False) for each in orphans]
    rejected += [Rejected(each.line, "a message whose parents run in a circle") for each in circling]
    return roots, rejected


def cut_tree(root: Message, languages: Sequence[str]) -> tuple[Message | None, list[Rejected]]:
    """Takes out of a tree what is not to be learnt: messages that were deleted or are in another language, each with
    what replies to it, and then questions without answers.

    Args:
        root: of the tree, which is changed.
        languages: codes of those to keep; none for all.

    Returns:
        The root, None where it is cut itself, and the messages that were cut, questions without answers left out.
    """
    cut: list[Rejected] = []

    def is_kept(message: Message) -> bool:
        reason = _reason_to_cut(message, languages)
        if reason is not None:
            cut.append(Rejected(message.line, reason, is_fault=False))
        return reason is None

    if not is_kept(root):
        return None, cut
    for message in walk(root):
        message.replies = [reply for reply in message.replies if is_kept(reply)]
    for message in reversed(list(walk(root))):
        message.replies = [reply for reply in message.replies if reply.role != "user" or reply.replies]
    return root, cut


def iter_paths(root: Message, paths: Paths) -> Iterator[list[Message]]:
    """Gives the paths from the root to a message without replies.

    Args:
        root: of a tree that was cut.
        paths: `best` gives one, by the rank of each reply, the first where nobody ranked; `all` gives each.
    """
    waiting: list[list[Message]] = [[root]]
    while waiting:
        path = waiting.pop()
        while replies := path[-1].replies:
            first, *others = [min(replies, key=_order)] if paths == "best" else replies
            waiting += [[*path, reply] for reply in reversed(others)]
            path.append(first)
        yield path


def walk(root: Message) -> Iterator[Message]:
    """Gives all messages of a tree, each before its replies."""
    waiting = [root]
    while waiting:
        message = waiting.pop()
        yield message
        waiting += reversed(message.replies)


def _by_name(
    flat: Sequence[tuple[int, Mapping[str, object]]],
) -> tuple[dict[str, tuple[Message, object]], list[Rejected]]:
    """Gives each message and its parent's name by its own name, and the messages that have none of their own."""
    known: dict[str, tuple[Message, object]] = {}
    rejected: list[Rejected] = []
    for line, values in flat:
        message, name = read_message(line, values), values.get("message_id")
        fault = message if isinstance(message, str) else text_fault(name, '"message_id"')
        if fault is None and name in known:
            fault = f"the message_id {shown(name)} is there twice"
        if isinstance(message, str) or fault is not None:
            rejected.append(Rejected(line, str(fault)))
        else:
            known[str(name)] = (message, values.get("parent_id"))
    return known, rejected


def _reason_to_cut(message: Message, languages: Sequence[str]) -> str | None:
    """Says why a message is not to be learnt; None where it is."""
    if message.is_deleted:
        return "a deleted message"
    if languages and message.language not in languages:
        return f"a message whose language is {shown(message.language)}, not {' or '.join(languages)}"
    return None


def _order(message: Message) -> tuple[bool, int]:
    """Puts ranked messages in front, the best first."""
    return message.rank is None, message.rank or 0
