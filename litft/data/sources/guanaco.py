"""OpenAssistant-Guanaco: the best path of each OpenAssistant tree, a whole dialogue in one text.

Two forms are read: `### Human: ...### Assistant: ...` as it is published, and, as many copies have it, Llama 2's
`<s>[INST] ... [/INST] ... </s>`. Source: huggingface.co/datasets/timdettmers/openassistant-guanaco.
"""

from __future__ import annotations

import re
from pathlib import Path

from litft.data.reading.faults import missing_field, shown_text, text_fault
from litft.data.reading.records import iter_records
from litft.data.reading.rows import Rejected, Row, Rows, Source
from litft.data.reading.turns import row_of

HEADED = re.compile(r"### (Human|Assistant):")
BRACKETED = re.compile(r"(\[INST\]|\[/INST\])")

# Llama 2 puts the system text into the first question, between these marks. Source: github.com/meta-llama/llama,
# `llama/generation.py`.
SYSTEM = re.compile(r"\s*<<SYS>>(.*?)<</SYS>>(.*)", re.DOTALL)

ROLES = {"Human": "user", "Assistant": "assistant", "[INST]": "user", "[/INST]": "assistant"}


def read_guanaco(path: Path) -> Rows:
    """Gives the conversations of a file, each of one or more turns.

    Raises:
        DataError: the file cannot be read; naming the line.
    """
    for line, values in iter_records(path):
        yield _read_row(line, values)


def _read_row(line: int, values: dict[str, object]) -> Row | Rejected:
    """Cuts one dialogue at its marks."""
    if "text" not in values:
        return Rejected(line, missing_field("text", values))
    text = values["text"]
    fault = text_fault(text, '"text"')
    if fault is not None:
        return Rejected(line, fault)
    is_bracketed = str(text).lstrip().startswith(("<s>", "[INST]"))
    return row_of(line, _bracketed(str(text)) if is_bracketed else _headed(str(text)))


def _headed(text: str) -> list[tuple[str, object]] | str:
    """Gives the messages of a text with `### Human:` and `### Assistant:`, or why it has none."""
    before, *parts = HEADED.split(text)
    if before.strip() or not parts:
        return f'"text" begins with {shown_text(text.strip())}; expected "### Human:" or "[INST]"'
    return [(ROLES[mark], said.strip()) for mark, said in zip(parts[::2], parts[1::2], strict=True)]


def _bracketed(text: str) -> list[tuple[str, object]] | str:
    """Gives the messages of a text with `[INST]` and `[/INST]`, or why it has none."""
    before, *parts = BRACKETED.split(text)
    if before.replace("<s>", "").strip() or not parts:
        return f'"text" begins with {shown_text(text.strip())}; expected "<s>[INST]"'
    messages: list[tuple[str, object]] = []
    for mark, said in zip(parts[::2], parts[1::2], strict=True):
        role = ROLES[mark]
        told = SYSTEM.fullmatch(said) if not messages and role == "user" else None
        if told is not None:
            messages.append(("system", told[1].strip()))
            said = told[2]
        messages.append((role, said.strip() if role == "user" else _without_marks(said)))
    return messages


def _without_marks(answer: str) -> str:
    """Takes the end mark off an answer, and the begin mark of the turn behind it."""
    return answer.strip().removesuffix("<s>").rstrip().removesuffix("</s>").strip()


SOURCE = Source(
    name="guanaco",
    repo_id="timdettmers/openassistant-guanaco",
    files=("openassistant_best_replies_train.jsonl",),
    licence="Apache-2.0",
    origin="human",
    rows=9_846,
    schema='JSON Lines or parquet of {"text": "### Human: ...### Assistant: ..."}, or "<s>[INST] ... [/INST] ... </s>"',
    read=read_guanaco,
)
