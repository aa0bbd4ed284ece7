"""The two tokenizer libraries behind one small interface. Knows nothing of BOS rules or prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

from litft.errors import TokenizerError
from litft.text.conversation import Span
from litft.text.growth import refuse_growth
from litft.text.settings import LARGEST_ID, refuse_large
from litft.text.words import SPACE, WordByWord, words_of_json, words_of_pieces

# Source: sentencepiece writes a byte of a character that it does not know as <0xE2>
_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")


class Backend(Protocol):
    """What `Tokenizer` needs of a library.

    Attributes:
        path: the file that decides ids.
        vocab_size: tokens with added ones.
        special_ids: ids that stand for no text: BOS, EOS, markers of a chat.
        prefix: ids that the file itself puts before every text.
        specials: text and id of those that may be written out in a text.
        bos_id, eos_id: as the file itself names them.
        is_by_words: literal texts are encoded word by word.
    """

    path: Path
    vocab_size: int
    special_ids: frozenset[int]
    prefix: list[int]
    specials: dict[str, int]
    bos_id: int | None
    eos_id: int | None

    @property
    def is_by_words(self) -> bool:
        """See the class."""

    def id_of(self, token: str) -> int | None:
        """Gives the id of one token's text; None when it has none."""

    def text_of(self, number: int) -> str:
        """Gives the text of one token as its file writes it, such as `</s>`."""

    def encode_literal(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes texts in which `</s>` and the like are ordinary characters."""

    def encode_marked(self, texts: Sequence[str]) -> list[list[int]]:
        """Encodes texts in which special tokens may be written out."""

    def spans(self, text: str, is_marked: bool) -> list[Span]:
        """Gives which characters each token of a text stands for, from the first to behind the last.

        Args:
            text: any text.
            is_marked: encoded as `encode_marked` does, else as `encode_literal`.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Gives the text of ids that are all known and not special."""


class JsonBackend:
    """tokenizer.json through `tokenizers`."""

    bos_id: int | None = None
    eos_id: int | None = None

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            TokenizerError: the file is damaged.
        """
        self.path = path
        self._literal = self._open()
        self._literal.encode_special_tokens = True
        self.vocab_size = self._literal.get_vocab_size()
        added = self._literal.get_added_tokens_decoder()
        self.specials = {token.content: number for number, token in added.items() if token.special}
        self.special_ids = frozenset(self.specials.values())
        self._added = {number: token.content for number, token in added.items()}
        _refuse_ids(path, self._literal.get_vocab().values())
        refuse_growth(path, self._literal)
        with self._sound():
            self.prefix = list(self._literal.encode("").ids)

    def _open(self) -> tokenizers.Tokenizer:
        refuse_large(self.path)
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(self.path))
        except Exception as error:  # the library raises the bare class
            raise TokenizerError(f"{self.path} cannot be read ({error}); download it again.") from error
        # Published files may carry the truncation and padding of the script that saved them.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Turns the library's panics into an error: a pattern that goes back too often, a token that is not there."""
        try:
            yield
        except BaseException as error:  # what a panic raises is no Exception, and cannot be imported
            if type(error).__name__ != "PanicException":
                raise
            raise TokenizerError(f"{self.path} cannot encode a text ({error}); do not use this tokenizer.") from error

    @cached_property
    def _marked(self) -> tokenizers.Tokenizer:
        """A second reading of the file: the switch is state of the object, which threads share."""
        return self._open()

    @cached_property
    def _words(self) -> WordByWord | None:
        return words_of_json(self._literal)

    @property
    def is_by_words(self) -> bool:
        """See `Backend`."""
        return self._words is not None

    def id_of(self, token: str) -> int | None:
        """See `Backend`."""
        found: int | None = self._literal.token_to_id(token)
        return found

    def text_of(self, number: int) -> str:
        """See `Backend`."""
        # Of an added token that is normalised the library's own `id_to_token` gives the normalised text.
        text: str | None = self._added.get(number) or self._literal.id_to_token(number)
        assert text is not None
        return text

    def encode_literal(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Backend`."""
        with self._sound():
            if self._words is not None:
                return self._words.encode(texts)
            encodings = self._literal.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]

    def encode_marked(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Backend`."""
        with self._sound():
            encodings = self._marked.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]

    def spans(self, text: str, is_marked: bool) -> list[Span]:
        """See `Backend`."""
        with self._sound():
            offsets: list[Span] = (
                (self._marked if is_marked else self._literal).encode(text, add_special_tokens=False).offsets
            )
            return offsets

    def decode(self, ids: Sequence[int]) -> str:
        """See `Backend`."""
        with self._sound():
            text: str = self._literal.decode(list(ids), skip_special_tokens=False)
            return text


class PieceBackend:
    """tokenizer.model through `sentencepiece`, with the tokens that JSON files add to it."""

    def __init__(self, path: Path, added: dict[str, int]) -> None:
        """Opens the file.

        Args:
            path: a sentencepiece model.
            added: text and id of tokens that may lie outside its vocabulary.

        Raises:
            TokenizerError: the file is damaged or no sentencepiece model.
        """
        self.path = path
        self._pieces = open_pieces(path)
        self._size = self._pieces.get_piece_size()
        self._added = {text: number for text, number in added.items() if number >= self._size}
        _refuse_ids(path, self._added.values())
        self.vocab_size = max([self._size, *(number + 1 for number in self._added.values())])
        control = [number for number in range(self._size) if self._pieces.is_control(number)]
        self.special_ids = frozenset([*control, self._pieces.unk_id(), *self._added.values()])
        self.specials = {self._pieces.id_to_piece(number): number for number in control} | self._added
        self.prefix: list[int] = []
        self.bos_id = _or_none(self._pieces.bos_id())
        self.eos_id = _or_none(self._pieces.eos_id())

    @cached_property
    def _words(self) -> WordByWord | None:
        return words_of_pieces(self._pieces)

    @property
    def is_by_words(self) -> bool:
        """See `Backend`."""
        return self._words is not None

    def id_of(self, token: str) -> int | None:
        """See `Backend`."""
        if token in self._added:
            return self._added[token]
        number = self._pieces.piece_to_id(token)
        return number if self._pieces.id_to_piece(number) == token else None

    def text_of(self, number: int) -> str:
        """See `Backend`."""
        if number >= self._size:
            return next(text for text, added in self._added.items() if added == number)
        text: str = self._pieces.id_to_piece(number)
        return text

    def encode_literal(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Backend`."""
        if self._words is not None:
            return self._words.encode(texts)
        ids: list[list[int]] = self._pieces.encode(list(texts))  # in threads
        return ids

    def encode_marked(self, texts: Sequence[str]) -> list[list[int]]:
        """See `Backend`; what stands between special tokens is encoded piece by piece."""
        pattern = special_pattern(self.specials)
        parts = [list(filter(None, pattern.split(text))) for text in texts]
        plain = iter(self.encode_literal([part for each in parts for part in each if part not in self.specials]))
        return [
            [number for part in each for number in ([self.specials[part]] if part in self.specials else next(plain))]
            for each in parts
        ]

    def spans(self, text: str, is_marked: bool) -> list[Span]:
        """See `Backend`."""
        spans: list[Span] = []
        place = 0
        for part in filter(None, special_pattern(self.specials).split(text) if is_marked else [text]):
            if is_marked and part in self.specials:
                spans.append((place, place + len(part)))
            else:
                spans += [(place + begin, place + end) for begin, end in self._spans_of_plain(part)]
            place += len(part)
        return spans

    def _spans_of_plain(self, text: str) -> Iterator[Span]:
        """Walks through a text by the pieces that it becomes; several byte pieces may be one character."""
        parts = [_bytes_of(piece) for piece in self._pieces.encode(text, out_type=str)]
        whole = b"".join(parts)
        if whole not in (text.encode(), b" " + text.encode()):
            raise TokenizerError(
                f"{self.path} rewrites texts, so that loss on single characters or roles cannot be told from its "
                "pieces; leave --train_on and spans away."
            )
        # The space that sentencepiece puts before a text is no character of it.
        place, pending = len(text.encode()) - len(whole) and -1, b""
        for part in parts:
            pending += part
            said = pending.decode("utf-8", errors="ignore")
            yield max(place, 0), max(place + len(said), 0) if said else max(place, 0) + 1
            if said:
                place, pending = place + len(said), b""

    def decode(self, ids: Sequence[int]) -> str:
        """See `Backend`."""
        text: str = self._pieces.decode([number for number in ids if number < self._size])
        return text


def _bytes_of(piece: str) -> bytes:
    """Gives the text of a piece of sentencepiece's, which may be one byte of a character."""
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()


def special_pattern(specials: Mapping[str, int]) -> re.Pattern[str]:
    """Gives what finds special tokens in a text and, as one group, cuts it there; of two that fit the longer."""
    return _pattern_of(frozenset(specials))


@lru_cache(maxsize=16)
def _pattern_of(specials: frozenset[str]) -> re.Pattern[str]:
    """Builds it once for a tokenizer; without special tokens it finds nothing."""
    longest_first = sorted(specials, key=lambda text: (-len(text), text))
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


def open_pieces(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Opens a sentencepiece model.

    Raises:
        TokenizerError: the file is damaged, or is Llama 3's rank file under the same name.
    """
    if is_rank_file(path):
        raise TokenizerError(
            f"{path} is a tiktoken rank file (Llama 3), not a sentencepiece model, and there is no tokenizer.json "
            "beside it; download tokenizer.json too."
        )
    refuse_large(path)
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        pieces.id_to_piece(list(range(pieces.get_piece_size())))  # all of them are text
        pieces.id_to_piece(pieces.unk_id())  # and there is one for what is none of them
        return pieces
    except (RuntimeError, OSError, UnicodeDecodeError, IndexError) as error:
        raise TokenizerError(f"{path} is not a readable sentencepiece model; download it again.") from error


def is_rank_file(path: Path) -> bool:
    """Says whether a tokenizer.model holds tiktoken ranks: lines of base64, a space and a number.

    Source: Llama 3's `original/tokenizer.model`, read by `tiktoken.load.load_tiktoken_bpe`.
    """
    with path.open("rb") as file:
        return re.fullmatch(rb"[A-Za-z0-9+/=]+ \d+\r?\n?", file.readline(200)) is not None


def _refuse_ids(path: Path, ids: Iterable[int]) -> None:
    """Refuses ids that no matrix has a row for.

    Raises:
        TokenizerError: naming the largest.
    """
    largest = max(ids, default=0)
    if largest > LARGEST_ID:
        raise TokenizerError(
            f"{path}, or a file beside it, has the token id {largest}, and no model has more than {LARGEST_ID:,} "
            "tokens; do not use this tokenizer."
        )


def _or_none(number: int) -> int | None:
    """Sentencepiece says -1 for a token that it does not have."""
    return None if number < 0 else number
