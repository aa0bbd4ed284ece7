"""Long answers as they come: the same text as at the end, at the same cost for each token."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_text import SHARED, piece_model, write_checkpoint

from litft.text.stream import KEPT_IDS, StreamDecoder
from litft.text.tokenizer import Tokenizer

PARTS = (
    "a word ",
    "  two  ",
    "\n\n",
    "Zürich, ",
    "naïve café ",
    "你好，世界",
    "👩‍👩‍👧 ",
    "🙂🙂🙂",
    " .",
    "don 't ",
    "x=1;\t",
    "é" * 30,
)
SHARED_TOKENIZERS = sorted((SHARED / "tokenizers").glob("*")) if SHARED.is_dir() else []


class Measured(Tokenizer):
    """Remembers the most ids it was ever asked to decode."""

    most = 0

    def decode(self, ids: Sequence[int]) -> str:
        self.most = max(self.most, len(ids))
        return super().decode(ids)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    bytes_dir, pieces_dir = tmp_path_factory.mktemp("bytes"), tmp_path_factory.mktemp("pieces")
    write_checkpoint(bytes_dir)
    (pieces_dir / "tokenizer.model").write_bytes(piece_model())
    return [bytes_dir, pieces_dir]


def check(tokenizer: Measured, text: str, before: str = "") -> None:
    context, ids = tokenizer.encode_batch([before, text])
    stream = StreamDecoder(tokenizer, ["never said"], context)
    tokenizer.most = 0
    given = ""
    for count, number in enumerate(ids):
        given += stream.push(number)
        if count < KEPT_IDS:
            tokenizer.most = 0  # the first looks are at all of the prompt
    given += stream.finish()
    assert tokenizer.most <= 6 * KEPT_IDS  # some more where half a character stands at the end
    assert given == tokenizer.decode([*context, *ids])[len(tokenizer.decode(context)) :]


def long_text(seed: int) -> str:
    chance = random.Random(seed)
    return "".join(chance.choice(PARTS) for _ in range(80))


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("before", ["", "Once upon a time, " * 20])
def test_a_long_answer_is_given_whole(folders: list[Path], kind: int, before: str) -> None:
    for seed in range(3):
        check(Measured(folders[kind]), long_text(seed), before)


@pytest.mark.parametrize("path", SHARED_TOKENIZERS, ids=lambda path: path.name)
def test_a_long_answer_is_given_whole_by_published_tokenizers(path: Path) -> None:
    for seed in range(4):
        check(Measured(path), long_text(seed), "The answer: ")


def test_ids_are_kept_where_their_text_depends_on_those_before(folders: list[Path]) -> None:
    """A stop text may begin far back, and a run of bytes may be cut within a character at any place."""
    for folder in folders:
        tokenizer = Tokenizer(folder)
        text = "b" + "ab" * 60 + "👩" * 40
        stop = "ab" * 60 + "👩" * 20
        stream = StreamDecoder(tokenizer, [stop])
        given = "".join(map(stream.push, tokenizer.encode_batch([text])[0]))
        assert (given, stream.stopped) == ("b", True)
