"""From conversations to token ids and the mask of what is learned. Knows no files.

Each row is one list of ids: BOS where the model wants it, then per turn the prompt, the answer and EOS. Loss stands on
answers with their EOS (`completions`), or on everything behind BOS (`all`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from litft.data.reading.rows import TokenRow
from litft.errors import TokenizerError
from litft.text.prompts import Conversation, PromptStyle, encode_conversations
from litft.text.tokenizer import Tokenizer

# Rows handed to the tokenizer's threads at once: enough to keep them busy, few enough to show progress.
BATCH_ROWS = 256


@dataclass(frozen=True)
class Example:
    """One row's ids and, of the same length, whether each token belongs to an answer or is to be predicted."""

    input_ids: list[int]
    mask: list[bool]

    @property
    def target_tokens(self) -> int:
        """How many tokens the mask marks."""
        return sum(self.mask)


def iter_examples(tokenizer: Tokenizer, style: PromptStyle, conversations: Sequence[Conversation]) -> Iterator[Example]:
    """Gives each conversation's ids, with the mask of its answers; EOS included, nothing cut.

    Raises:
        TokenizerError: the tokenizer has no EOS.
    """
    rest = iter(conversations)
    while batch := list(islice(rest, BATCH_ROWS)):
        for turns in encode_conversations(tokenizer, style, batch):
            yield join_turns(turns)


def iter_contents(
    tokenizer: Tokenizer, style: PromptStyle, contents: Sequence[Conversation | TokenRow]
) -> Iterator[Example]:
    """Gives `iter_examples` of a dataset's rows; rows that are token ids already come as they are.

    Raises:
        TokenizerError: the tokenizer has no EOS, or not so many tokens as a row of ids says.
    """
    yield from iter_examples(tokenizer, style, [row for row in contents if isinstance(row, Conversation)])
    for row in contents:
        if isinstance(row, TokenRow):
            _refuse_unknown_ids(tokenizer, row)
            yield Example(row.input_ids.tolist(), [bool(bit) for bit in row.mask])


def _refuse_unknown_ids(tokenizer: Tokenizer, row: TokenRow) -> None:
    """Refuses ids that the tokenizer does not have."""
    largest = max(row.input_ids)
    if largest >= tokenizer.vocab_size:
        raise TokenizerError(
            f"{row.file}, line {row.line} holds the token id {largest}, but the tokenizer has {tokenizer.vocab_size} "
            "tokens; the rows were made with another tokenizer, name its model with --checkpoint_dir."
        )


def join_turns(turns: Sequence[tuple[list[int], list[int]]]) -> Example:
    """Joins the (prompt, answer) ids of a conversation to one row."""
    ids: list[int] = []
    mask: list[bool] = []
    for prompt, response in turns:
        ids += prompt + response
        mask += [False] * len(prompt) + [True] * len(response)
    return Example(ids, mask)


def cut_example(example: Example, max_seq_length: int) -> Example | None:
    """Keeps the first tokens of a row, up to the last that belongs to an answer.

    A cut answer does not end in EOS: the model must not learn to stop in mid-sentence.

    Args:
        example: a row with the mask of its answers.
        max_seq_length: tokens to keep at most.

    Returns:
        None when no part of an answer is left.
    """
    length = min(max_seq_length, len(example.mask))
    while length > 0 and not example.mask[length - 1]:
        length -= 1
    kept = Example(example.input_ids[:length], example.mask[:length])
    return kept if kept.target_tokens else None


def mark_targets(example: Example, train_on: Literal["completions", "all"]) -> Example:
    """Turns the mask of answers into the mask of tokens to be predicted.

    The first token of a row, BOS where the model has one, is never a target: nothing stands before it.

    Args:
        example: a row with the mask of its answers.
        train_on: `completions` for answers only, `all` for prompts too.
    """
    mask = [True] * len(example.mask) if train_on == "all" else list(example.mask)
    mask[0] = False
    return Example(example.input_ids, mask)
