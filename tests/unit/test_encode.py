"""Ids and masks of rows: joining, cutting, and which tokens carry loss."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_text import BOS, EOS, piece_model, write_checkpoint

from litft.data.encode import BATCH_ROWS, Encoding, Example, cut_example
from litft.data.reading.rows import Rejected, Row
from litft.text.conversation import ASSISTANT, SYSTEM, TOOL, USER, Conversation, Message, dialogue, document
from litft.text.prompts import PromptStyle
from litft.text.styles import PLAIN, STYLES
from litft.text.tokenizer import Tokenizer


def row_of(turns: list[tuple[list[int], list[int]]]) -> Example:
    """Joins prompts and answers to a row whose answers are learned."""
    ids = [number for pair in turns for part in pair for number in part]
    mask = [is_answer for pair in turns for part, is_answer in zip(pair, (False, True), strict=True) for _ in part]
    return Example(ids, mask, turn_targets=tuple(len(answer) for _, answer in turns))


TWO = [([0, 10, 11], [20, 21, 1]), ([12], [22, 1])]


@pytest.mark.parametrize(
    ("length", "expected", "turns"),
    [
        (9, [0, 10, 11, 20, 21, 1, 12, 22, 1], (3, 2)),
        (8, [0, 10, 11, 20, 21, 1, 12, 22], (3, 1)),  # no stop token after a cut
        (7, [0, 10, 11, 20, 21, 1], (3, 0)),  # a prompt without its answer teaches nothing
        (6, [0, 10, 11, 20, 21, 1], (3, 0)),
        (5, [0, 10, 11, 20, 21], (2, 0)),
        (4, [0, 10, 11, 20], (1, 0)),
        (3, None, None),
        (1, None, None),
    ],
)
def test_cut(length: int, expected: list[int] | None, turns: tuple[int, ...] | None) -> None:
    row = cut_example(row_of(TWO), length)
    assert (row and row.input_ids, row and row.turn_targets) == (expected, turns)
    assert row is None or (len(row.mask) == len(row.input_ids) and row.mask[-1])


TALK = Conversation(
    (
        Message(SYSTEM, "Be kind."),
        Message(USER, "ab"),
        Message(ASSISTANT, "cde"),
        Message(USER, "f", "g"),
        Message(ASSISTANT, "hi"),
    )
)


BARS = PromptStyle(
    name="bars",
    first="{instruction}|",
    first_with_input="{instruction}|{input}|",
    later="{instruction}|",
    later_with_input="{instruction}|{input}|",
    system="{system}|",
)


def piece_folder(folder: Path) -> Path:
    """Writes a folder with a sentencepiece model alone."""
    (folder / "tokenizer.model").write_bytes(piece_model())
    return folder


@pytest.mark.parametrize(
    ("train_on", "learned"),
    [
        ("completions", "cde$hi$"),
        ("last", "hi$"),
        ("assistant", "cde$hi$"),
        ("user", "abfg"),
        ("user,assistant", "abcde$fghi$"),
        ("system", "Be kind."),
        ("all", "Be kind.|ab|cde$f|g|hi$"),
    ],
)
@pytest.mark.parametrize("pieces", [False, True])
def test_what_carries_loss(tmp_path: Path, train_on: str, learned: str, pieces: bool) -> None:
    """With a byte-level tokenizer, and with sentencepiece, whose texts begin with a space that nobody wrote."""
    tokenizer = Tokenizer(piece_folder(tmp_path) if pieces else write_checkpoint(tmp_path / "c"))
    row = Encoding(tokenizer, BARS, train_on).example(TALK)
    texts = [
        tokenizer.token_text(number) for number, is_target in zip(row.input_ids, row.mask, strict=True) if is_target
    ]
    plain = "".join(texts).replace("\u2581", " ").replace("Ġ", " ").replace("</s>", "$")
    assert re.sub("<0x(..)>", lambda byte: chr(int(byte[1], 16)), plain).replace(" ", "") == learned.replace(" ", "")
    assert row.mask[0] is False and sum(row.turn_targets) <= row.target_tokens


@pytest.mark.parametrize(
    ("targets", "learned"),
    [(None, "Zoë is 7 😀.$"), ((), "$"), (((0, 3),), "Zoë$"), (((1, 3), (9, 10)), "oë😀$")],
)
def test_spans_of_a_document(tmp_path: Path, targets: tuple[tuple[int, int], ...] | None, learned: str) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path / "c"))
    row = Encoding(tokenizer, STYLES["chatml"]).example(document("Zoë is 7 😀.", targets))
    ids = [number for number, is_target in zip(row.input_ids, row.mask, strict=True) if is_target]
    assert row.input_ids[0] == BOS and tokenizer.decode(ids) + "$" * (ids[-1] == EOS) == learned


def test_an_answer_that_is_not_to_be_learned(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path / "c"))
    silent = Message(ASSISTANT, "cde", learn=False)
    talk = Conversation((Message(USER, "ab"), silent, *dialogue("f", "hi").messages))
    row = Encoding(tokenizer, PLAIN).example(talk)
    assert row.turn_targets == (0, 3) and row.target_tokens == 3


def test_a_conversation_without_a_place_is_rejected(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path / "c"))
    asked = Conversation((Message(USER, "a"), Message(ASSISTANT, "b"), Message(TOOL, "c"), Message(ASSISTANT, "d")))
    rows = [Row(1, dialogue("a", "b")), Row(2, asked, file="x.jsonl"), Row(3, dialogue("c", "d"))]
    first, second, third = Encoding(tokenizer, PLAIN).examples(rows)
    assert isinstance(first, Example) and isinstance(third, Example)
    reason = "message 3 is a tool's; only a chat template has a place for that"
    assert second == Rejected(2, reason, file="x.jsonl")


ids = st.lists(st.integers(2, 9), min_size=1, max_size=6)


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=4), st.integers(1, 30))
def test_a_cut_row_is_a_prefix_with_targets(turns: list[tuple[list[int], list[int]]], length: int) -> None:
    whole = row_of([(prompt, [*response, EOS]) for prompt, response in turns])
    row = cut_example(whole, length)
    if row is None:
        assert not any(whole.mask[:length])
        return
    size = len(row.input_ids)
    assert size <= length and row.target_tokens > 0
    assert (whole.input_ids[:size], whole.mask[:size]) == (row.input_ids, row.mask)
    assert sum(row.turn_targets) == row.target_tokens
    assert not any(whole.mask[size:length])


def test_order_is_kept_over_batches(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path / "c"))
    rows = [Row(index, dialogue(f"q{index}", f"a{index}")) for index in range(BATCH_ROWS * 2 + 3)]
    examples = [row for row in Encoding(tokenizer, PLAIN).examples(rows) if isinstance(row, Example)]
    assert [tokenizer.decode(row.input_ids) for row in examples] == [f"q{i}a{i}" for i in range(len(rows))]
    assert all(row.input_ids[0] == BOS and row.input_ids[-1] == EOS and row.mask[-1] for row in examples)
    assert [row.target_tokens for row in examples] == [len(f"a{index}") + 1 for index in range(len(rows))]
