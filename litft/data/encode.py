"""From conversations to token ids and the mask of what is learned. Knows no files and no lengths.

Each row is one list of ids: what stands before each answer, the answer and the token that ends it. What of that carries
loss is `Learned`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice

from litft.data.reading.places import shown_place
from litft.data.reading.rows import Rejected, Row, TokenRow
from litft.errors import TokenizerError
from litft.text.conversation import ASSISTANT, Conversation, Exchange, Message, Piece, Span, StyleError
from litft.text.encoding import Encoded, Style, encode_exchanges, tail_of, text_of_end
from litft.text.tokenizer import Tokenizer

AnyRow = Row | TokenRow | Rejected

# Rows handed to the tokenizer's threads at once: enough to keep them busy, few enough to show progress.
BATCH_ROWS = 256


@dataclass(frozen=True)
class Example:
    """One row as it may be written.

    Attributes:
        input_ids: its tokens.
        mask: of the same length, whether each token is to be predicted.
        template_tokens: how many of them the frame alone makes, texts left out.
        turn_targets: for each answer how many of its tokens are to be predicted.
        found: how each answer was found in its frame.
        unserved: answers before which a server that asks this model feeds something else.
    """

    input_ids: list[int]
    mask: list[bool]
    template_tokens: int = 0
    turn_targets: tuple[int, ...] = ()
    found: tuple[str, ...] = ()
    unserved: int = 0

    @property
    def target_tokens(self) -> int:
        """How many tokens are to be predicted."""
        return self.mask.count(True)


@dataclass(frozen=True)
class Encoding:
    """What becomes of a conversation.

    Attributes:
        tokenizer, style: of the model.
        train_on: what carries loss: `completions`, `all`, `last`, or roles, as `PrepareConfig` has it.
    """

    tokenizer: Tokenizer
    style: Style
    train_on: str = "completions"
    roles: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Takes the roles apart."""
        object.__setattr__(self, "roles", frozenset(self.train_on.split(",")))

    def examples(self, rows: Iterable[AnyRow]) -> Iterator[Example | Rejected]:
        """Gives each row's ids with the mask of what is learned, nothing cut; or why it cannot be used.

        Args:
            rows: are read a batch at a time; one that is rejected already stays so.

        Raises:
            TokenizerError: the tokenizer lacks an end token, or rewrites texts where loss stands on single characters;
                or a row of ids has one that the tokenizer has not.
        """
        rest = iter(rows)
        while batch := list(islice(rest, BATCH_ROWS)):
            framed = [self._framed(row) if isinstance(row, Row) else row for row in batch]
            encoded = iter(encode_exchanges(self.tokenizer, [each for each in framed if isinstance(each, list)]))
            for row, each in zip(batch, framed, strict=True):
                if isinstance(each, Rejected):
                    yield each
                elif isinstance(row, Row) and isinstance(each, list):
                    yield self._join(row.conversation, each, next(encoded))
                elif isinstance(each, TokenRow):
                    yield example_of_ids(self.tokenizer, each)

    def example(self, conversation: Conversation) -> Example:
        """Gives one conversation's ids and mask; the style has a place for it."""
        exchanges = self.style.exchanges(conversation)
        return self._join(conversation, exchanges, encode_exchanges(self.tokenizer, [exchanges])[0])

    def _framed(self, row: Row) -> list[Exchange] | Rejected:
        """Gives a row's exchanges, or why there are none."""
        try:
            return self.style.exchanges(row.conversation)
        except StyleError as error:
            return Rejected(row.line, str(error), file=row.file)

    def _join(self, conversation: Conversation, exchanges: Sequence[Exchange], encoded: Sequence[Encoded]) -> Example:
        """Joins the exchanges of a conversation to one row."""
        ids: list[int] = []
        mask: list[bool] = []
        targets, before = [], ""
        for number, (exchange, (prompt, answer)) in enumerate(zip(exchanges, encoded, strict=True), start=1):
            message = conversation.messages[exchange.message]
            learned = self._mask_of_answer(exchange, message, len(answer), is_last=number == len(exchanges))
            ids += prompt + answer
            mask += self._mask_of_prompt(exchange, conversation, prompt, before) + learned
            before = text_of_end(self.tokenizer, exchange)
            targets.append(learned.count(True))
        mask[0] = False  # nothing stands before it
        return Example(
            ids,
            mask,
            sum(_frame_tokens(self.tokenizer, exchange.prompt) for exchange in exchanges),
            tuple(targets),
            tuple(exchange.found for exchange in exchanges),
            sum(not exchange.is_served for exchange in exchanges),
        )

    def _mask_of_answer(self, exchange: Exchange, message: Message, count: int, is_last: bool) -> list[bool]:
        """Says which of an answer's tokens are learned; the last of them ends it."""
        by_turn = (
            is_last if self.train_on == "last" else self.train_on in ("completions", "all") or ASSISTANT in self.roles
        )
        if not message.learn or not by_turn or message.targets is None:
            return [message.learn and by_turn] * count
        start = 0
        for piece in exchange.answer:
            if piece.message == exchange.message:
                break
            start += len(piece.text)
        spans = self.tokenizer.spans(exchange.answer, tail_of(self.tokenizer, exchange.prompt))
        return [_is_within((begin - start, end - start), message.targets) for begin, end in spans] + [True]

    def _mask_of_prompt(
        self, exchange: Exchange, conversation: Conversation, prompt: list[int], before: str
    ) -> list[bool]:
        """Says which tokens before an answer are learned."""
        if self.train_on == "all":
            return [True] * len(prompt)
        messages, pieces = conversation.messages, exchange.prompt
        learned = [piece.message is not None and messages[piece.message].role in self.roles for piece in pieces]
        if not any(learned):
            return [False] * len(prompt)
        owners = [is_learned for piece, is_learned in zip(pieces, learned, strict=True) for _ in piece.text]
        spans = self.tokenizer.spans(exchange.prompt, "" if exchange.bos else before)
        mask = [begin < len(owners) and owners[begin] for begin, _ in spans]
        return [False] * (len(prompt) - len(mask)) + mask


def _is_within(span: Span, targets: Sequence[Span]) -> bool:
    """Says whether all characters of a token carry loss."""
    begin, end = span
    return any(first <= begin and end <= last for first, last in targets)


def _frame_tokens(tokenizer: Tokenizer, pieces: Sequence[Piece]) -> int:
    """Counts the tokens that a prompt's frame makes alone."""
    return sum(_count_tokens(tokenizer, piece.text) for piece in pieces if piece.message is None and piece.text)


@lru_cache(maxsize=512)
def _count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Counts the tokens of a text of the frame."""
    return len(tokenizer.encode_pieces([(Piece(text),)], ["\n"])[0])


def example_of_ids(tokenizer: Tokenizer, row: TokenRow) -> Example:
    """Gives a row that is token ids already.

    Raises:
        TokenizerError: an id is beyond the tokenizer's.
    """
    largest = max(row.input_ids)
    if largest >= tokenizer.vocab_size:
        raise TokenizerError(
            f"{row.file}, {shown_place(row.line)} holds the token id {largest}, but the tokenizer has "
            f"{tokenizer.vocab_size} tokens; the rows were made with another tokenizer, name its model with "
            "--checkpoint_dir."
        )
    mask = [bool(bit) for bit in row.mask]
    mask[0] = False
    return Example(row.input_ids.tolist(), mask, turn_targets=(sum(mask),), found=("labels",))


def cut_example(example: Example, max_seq_length: int) -> Example | None:
    """Keeps the first tokens of a row, up to the last with loss.

    A cut answer does not end in its end token: the model must not learn to stop in mid-sentence.

    Args:
        example: a row.
        max_seq_length: tokens to keep at most.

    Returns:
        None when no token with loss is left.
    """
    length = min(max_seq_length, len(example.mask))
    while length > 0 and not example.mask[length - 1]:
        length -= 1
    if not length:
        return None
    lost, turns = sum(example.mask[length:]), list(example.turn_targets)
    for index in range(len(turns) - 1, -1, -1):
        taken = min(lost, turns[index])
        turns[index], lost = turns[index] - taken, lost - taken
    return replace(example, input_ids=example.input_ids[:length], mask=example.mask[:length], turn_targets=tuple(turns))
