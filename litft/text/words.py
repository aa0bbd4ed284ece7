"""Encoding word by word, where a tokenizer never joins two words: what a word becomes is remembered. Knows no files.

Llama's and Mistral's pieces have a space at their beginning or nowhere, so no merge reaches from one word into the
next, and the ids of a text are those of its words. Their libraries encode each text anew, the same words again and
again.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice

import sentencepiece
import tokenizers

SPACE = "\u2581"  # Source: sentencepiece and the files made from it write a space so

# Words that are remembered: about 50 MB of them, each short enough to come again.
REMEMBERED_WORDS = 1 << 18
LONGEST_WORD = 32

_WORDS = re.compile(" +[^ ]*")
_SPACE_WITHIN = re.compile(f"[^{SPACE}]{SPACE}")

# Source: `normalizer` of tokenizer.json of Llama 2 and Mistral 0.1.
_NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    ],
}

# Source: `sentencepiece_model.proto`: fields of ModelProto, TrainerSpec and NormalizerSpec.
_TRAINER, _NORMALIZER_SPEC = 2, 3
_MODEL_TYPE, _BPE, _SPACE_AS_SUFFIX = 3, 2, 24
_CHARSMAP, _DUMMY_PREFIX, _FEWER_SPACES, _ESCAPED_SPACES = 2, 3, 4, 5


class WordByWord:
    """The ids of each word met, as int32. A word stands without the space before it, where there is but one."""

    def __init__(self, encode: Callable[[list[str]], list[list[int]]]) -> None:
        """Begins with no word.

        Args:
            encode: the library's, for many texts at once; it puts a space before each.
        """
        self._encode = encode
        self._known: dict[str, bytes] = {}

    def __len__(self) -> int:
        """How many words are remembered."""
        return len(self._known)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Gives the ids of texts as the library does; texts that are equal are encoded once."""
        parted = {text: _words_of(text) for text in dict.fromkeys(texts)}
        words = list(chain.from_iterable(parted.values()))
        new = list(set(words).difference(self._known))
        self._known.update(zip(new, map(_packed, self._encode(new)), strict=True))
        known = map(self._known.__getitem__, words)
        ids = {text: memoryview(b"".join(islice(known, len(each)))).cast("i") for text, each in parted.items()}
        self._forget(new)
        return [ids[text].tolist() for text in texts]

    def _forget(self, new: Sequence[str]) -> None:
        """Remembers no word that is unlikely to come again, and not too many others."""
        for word in new:
            if len(word) > LONGEST_WORD:
                del self._known[word]
        if len(self._known) > REMEMBERED_WORDS:
            self._known.clear()


def _packed(ids: Sequence[int]) -> bytes:
    """Gives ids as int32."""
    return array("i", ids).tobytes()


def _words_of(text: str) -> list[str]:
    """Parts a text at the spaces before words, and takes the last of them away, as the library puts it there again."""
    if SPACE in text:  # which the library reads as a space
        return [text]
    if "  " not in text and text[:1] != " " != text[-1:]:
        return text.split(" ")
    words = _WORDS.findall(f" {text}")
    if text.endswith(" "):
        words[-2:] = ["".join(words[-2:])]
    return [word[1:] for word in words]


def split_frame(frame: str) -> tuple[str, str]:
    """Parts a text in two at its last space; both encoded alone give, one behind the other, its ids.

    Returns:
        What stands before that space and what behind it; nothing before where that would not hold.
    """
    head, _, tail = frame.rpartition(" ")
    return ("", frame) if head.endswith(" ") or not tail or SPACE in frame else (head, tail)


def words_of_json(tokenizer: tokenizers.Tokenizer) -> WordByWord | None:
    """Gives the encoding by words of a tokenizer.json, special tokens ordinary text; None where it may join words."""
    model, normalizer = tokenizer.model, tokenizer.normalizer
    if not isinstance(model, tokenizers.models.BPE) or model.dropout or model.ignore_merges:
        return None
    is_plain = normalizer is not None and json.loads(normalizer.__getstate__()) == _NORMALIZER
    if not is_plain or tokenizer.pre_tokenizer is not None:
        return None
    # An added word that is not special is cut out of texts before anything else.
    if not all(token.special for token in tokenizer.get_added_tokens_decoder().values()):
        return None
    if _joins_words(tokenizer.get_vocab()):
        return None
    # The model alone, of words as the normalizer would write them, takes half the time of the whole tokenizer.
    return WordByWord(lambda words: [_ids(model, SPACE + word.replace(" ", SPACE)) if word else [] for word in words])


def _ids(model: tokenizers.models.BPE, word: str) -> list[int]:
    """Encodes a word."""
    return [token.id for token in model.tokenize(word)]


def words_of_pieces(pieces: sentencepiece.SentencePieceProcessor) -> WordByWord | None:
    """Gives the encoding by words of a sentencepiece model; None where it may join words or rewrites texts."""
    model = dict(_fields(pieces.serialized_model_proto()))
    trainer, normalizer = (dict(_fields(bytes(model.get(number, b"")))) for number in (_TRAINER, _NORMALIZER_SPEC))
    is_bpe = trainer.get(_MODEL_TYPE) == _BPE and not trainer.get(_SPACE_AS_SUFFIX)
    keeps_texts = not normalizer.get(_CHARSMAP) and normalizer.get(_FEWER_SPACES) == 0
    if not is_bpe or not keeps_texts or not normalizer.get(_DUMMY_PREFIX, 1) or not normalizer.get(_ESCAPED_SPACES, 1):
        return None
    if _joins_words(pieces.id_to_piece(list(range(pieces.get_piece_size())))):
        return None
    return WordByWord(pieces.encode)  # of a list, it runs in threads


def _joins_words(tokens: Collection[str]) -> bool:
    """Says whether a token reaches from one word into the next, be it the one for what is unknown."""
    return SPACE not in tokens or any(_SPACE_WITHIN.search(token) for token in tokens)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Gives number and value of each field of a protobuf message.

    Source: protobuf's "Encoding": a key of number and wire type, then a varint (0), 8 bytes (1), bytes (2) or 4 (5).
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        size = {1: 8, 5: 4}.get(key & 7)
        value, place = (size, place) if size else _varint(message, place)
        if key & 7:
            yield key >> 3, message[place : place + value]
            place += value
        else:
            yield key >> 3, value


def _varint(message: Sequence[int], place: int) -> tuple[int, int]:
    """Gives a number of protobuf's and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            return value, place
