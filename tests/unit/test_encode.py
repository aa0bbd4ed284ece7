"""Ids and masks of rows: joining, cutting, and which tokens carry loss."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_text import BOS, EOS, write_checkpoint

from litft.data.encode import BATCH_ROWS, Example, cut_example, iter_examples, join_turns, mark_targets
from litft.text.prompts import Conversation, Turn
from litft.text.styles import PLAIN
from litft.text.tokenizer import Tokenizer

ONE = [([0, 10, 11], [20, 21, 1])]
TWO = [*ONE, ([12], [22, 1])]


@pytest.mark.parametrize(
    ("turns", "mask"),
    [(ONE, "...xxx"), (TWO, "...xxx.xx"), ([([], [20, 1])], "xx"), ([], "")],
)
def test_answers_are_masked(turns: list[tuple[list[int], list[int]]], mask: str) -> None:
    row = join_turns(turns)
    assert row.input_ids == [number for pair in turns for part in pair for number in part]
    assert row.mask == [mark == "x" for mark in mask]


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (9, [0, 10, 11, 20, 21, 1, 12, 22, 1]),
        (8, [0, 10, 11, 20, 21, 1, 12, 22]),  # no stop token after a cut
        (7, [0, 10, 11, 20, 21, 1]),  # a prompt without its answer teaches nothing
        (6, [0, 10, 11, 20, 21, 1]),
        (5, [0, 10, 11, 20, 21]),
        (4, [0, 10, 11, 20]),
        (3, None),
        (1, None),
    ],
)
def test_cut(length: int, expected: list[int] | None) -> None:
    row = cut_example(join_turns(TWO), length)
    assert (row and row.input_ids) == expected
    assert row is None or (len(row.mask) == len(row.input_ids) and row.mask[-1])


def test_train_on_all_leaves_out_only_the_first_token() -> None:
    assert mark_targets(join_turns(TWO), "all").mask == [False] + [True] * 8


def test_train_on_completions() -> None:
    assert mark_targets(join_turns(TWO), "completions") == join_turns(TWO)


def test_first_token_is_never_a_target() -> None:
    assert mark_targets(join_turns([([], [20, 1])]), "completions").mask == [False, True]


ids = st.lists(st.integers(2, 9), min_size=1, max_size=6)


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=4), st.integers(1, 30))
def test_a_cut_row_is_a_prefix_with_targets(turns: list[tuple[list[int], list[int]]], length: int) -> None:
    whole = join_turns([(prompt, [*response, EOS]) for prompt, response in turns])
    row = cut_example(whole, length)
    if row is None:
        assert not any(whole.mask[:length])
        return
    size = len(row.input_ids)
    assert size <= length and row.target_tokens > 0
    assert Example(whole.input_ids[:size], whole.mask[:size]) == row
    assert not any(whole.mask[size:length])


def test_order_is_kept_over_batches(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path / "c"))
    rows = [Conversation((Turn(f"q{index}", response=f"a{index}"),)) for index in range(BATCH_ROWS * 2 + 3)]
    examples = list(iter_examples(tokenizer, PLAIN, rows))
    assert [tokenizer.decode(row.input_ids) for row in examples] == [f"q{i}a{i}" for i in range(len(rows))]
    assert all(row.input_ids[0] == BOS and row.input_ids[-1] == EOS and row.mask[-1] for row in examples)
    assert [row.target_tokens for row in examples] == [len(f"a{index}") + 1 for index in range(len(rows))]
