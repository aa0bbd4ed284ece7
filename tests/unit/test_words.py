"""Encoding word by word gives what the library gives, and is used only where no token joins two words."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_text import CORPUS, SHARED, piece_model, write_checkpoint
from tokenizers import models, normalizers, pre_tokenizers, trainers

from litft.text.backends import JsonBackend, PieceBackend
from litft.text.conversation import Piece
from litft.text.tokenizer import Tokenizer
from litft.text.words import (
    LONGEST_WORD,
    REMEMBERED_WORDS,
    SPACE,
    WordByWord,
    split_frame,
    words_of_json,
    words_of_pieces,
)

# Fields 4 (spaces taken away) and 5 (spaces written as another character) of a second NormalizerSpec, both 0.
SPACES_AS_THEY_ARE = b"\x1a\x04\x20\x00\x28\x00"

MORE = ["### Response:\n\nfn main() {\n    println!();\n}", "naïve café costs 12,50 and more", "a  b   c    d"] * 10
ODD_TEXTS = [
    "",
    " ",
    "  ",
    "a",
    " a",
    "a ",
    "a  ",
    "  a  b  ",
    "a b c a b c",
    "\n",
    " \n ",
    "line\n\n  indented\ttab \r\n end",
    f"a{SPACE}b",
    f"{SPACE}",
    f"a {SPACE} b {SPACE}",
    "</s> <s> <unk> <0x20>",
    "é 😀 中文 中 文 \u2028 \u00a0x \u3000",
    "e\u0301 👩‍👩‍👧 \x00 \ufeff",
    "word " * 300,
    "longword" * 30 + " b " + "longword" * 30,
]
texts = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from((" ", "  ", "   ", "\n", "\t", SPACE, "</s>", "<s>", "<0x0A>", "😀", "\u00a0")),
        st.sampled_from(("fox", "girl", "the", "time", "###", "a", "println!();", "longword" * 5)),
    ),
    max_size=12,
).map("".join)


def pieces_of(**options: Any) -> sentencepiece.SentencePieceProcessor:
    """Trains a sentencepiece model; without options one of Llama's kind, which leaves texts as they are."""
    usual = {
        "model_type": "bpe",
        "vocab_size": 400,
        "byte_fallback": True,
        "hard_vocab_limit": False,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "allow_whitespace_only_pieces": True,
        "minloglevel": 2,
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS + MORE), model_writer=model, **{**usual, **options}
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def llamas_normalizer() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])


def json_of(
    normalizer: normalizers.Normalizer | None = None, joins_words: bool = False, **options: Any
) -> tokenizers.Tokenizer:
    """Trains a tokenizer.json; without arguments one of Llama 2's kind."""
    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = llamas_normalizer()
    if not joins_words:
        trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    byte_tokens = [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=520, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    trained.train_from_iterator(CORPUS + MORE, trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    made = tokenizers.Tokenizer(
        models.BPE(model["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True, **options)
    )
    made.normalizer = normalizer or llamas_normalizer()
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.encode_special_tokens = True
    return made


@functools.cache
def pair(kind: str) -> tuple[WordByWord, Callable[[str], list[int]]]:
    """Gives the encoding by words of a tokenizer, and the library's own."""
    if kind == "json":
        library = json_of()
        words = words_of_json(library)
        ids_of = lambda text: library.encode(text, add_special_tokens=False).ids  # noqa: E731
    else:
        pieces = pieces_of(byte_fallback=kind == "pieces")
        words, ids_of = words_of_pieces(pieces), pieces.encode
    assert words is not None
    return words, ids_of


KINDS = ("pieces", "pieces without bytes", "json")


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_librarys_for_odd_texts(kind: str) -> None:
    words, ids_of = pair(kind)
    assert words.encode(ODD_TEXTS * 2) == [ids_of(text) for text in ODD_TEXTS * 2]
    assert words.encode([]) == []
    assert max(len(ids_of(word)) for word in ("girl", "little", "brown")) < 4, "no words were learned: nothing is shown"


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_the_librarys_for_any_texts(kind: str) -> None:
    words, ids_of = pair(kind)

    @given(st.lists(texts, max_size=4))
    @example([f"a{SPACE} b", "  "])
    def check(drawn: list[str]) -> None:
        assert words.encode(drawn) == [ids_of(text) for text in drawn]

    check()


@given(texts)
@example("girl  ###")
@example(f"girl{SPACE} ###")
def test_a_frame_parted_in_two_gives_the_same_ids(frame: str) -> None:
    words, ids_of = pair("pieces")
    head, tail = split_frame(frame)
    assert frame == (f"{head} {tail}" if head else tail)
    if head:
        assert ids_of(head) + ids_of(tail) == ids_of(frame)
        assert [number for ids in words.encode([head, f"{tail}\nx y"]) for number in ids] == ids_of(f"{frame}\nx y")


def test_words_are_remembered_within_bounds() -> None:
    asked: list[str] = []

    def ids_of(words: list[str]) -> list[list[int]]:
        asked.extend(sorted(words))
        return [[len(word)] for word in words]

    words, long = WordByWord(ids_of), "x" * (LONGEST_WORD + 1)
    assert words.encode([f"a b a {long} {long}", "b c"]) == [[1, 1, 1, 33, 33], [1, 1]]
    assert words.encode([f"d a {long}"]) == [[1, 1, 33]]
    assert asked == ["a", "b", "c", long, "d", long] and len(words) == 4
    largest = 0
    for start in range(0, 2 * REMEMBERED_WORDS, 4096):
        words.encode([" ".join(f"w{number}" for number in range(start, start + 4096))])
        largest = max(largest, len(words))
    assert REMEMBERED_WORDS // 2 < largest <= REMEMBERED_WORDS and len(asked) > 2 * REMEMBERED_WORDS


def test_models_of_sentencepiece_that_may_join_words_or_rewrite_texts() -> None:
    assert words_of_pieces(pieces_of()) is not None
    refused = {
        "a piece with a space inside": pieces_of(split_by_whitespace=False),
        "a piece of the user's with a space inside": pieces_of(user_defined_symbols=[f"girl{SPACE}named"]),
        "a space at the end of words": pieces_of(treat_whitespace_as_suffix=True),
        "unigram": pieces_of(model_type="unigram", vocab_size=350),
        "characters rewritten": pieces_of(normalization_rule_name="nmt_nfkc"),
        "spaces taken away": pieces_of(remove_extra_whitespaces=True),
        "no space before a text": pieces_of(add_dummy_prefix=False),
        "a space at the end of words, and two of them one piece": pieces_of(
            treat_whitespace_as_suffix=True, byte_fallback=False, vocab_size=52, user_defined_symbols=[SPACE * 2]
        ),
        "spaces as they are": sentencepiece.SentencePieceProcessor(
            model_proto=pieces_of().serialized_model_proto() + SPACES_AS_THEY_ARE
        ),
        "published defaults": sentencepiece.SentencePieceProcessor(model_proto=piece_model()),
    }
    assert {name for name, pieces in refused.items() if words_of_pieces(pieces) is not None} == set()
    assert any(
        " " in piece.strip(SPACE).replace(SPACE, " ") for piece in _texts_of(refused["a piece with a space inside"])
    )


def _texts_of(pieces: sentencepiece.SentencePieceProcessor) -> list[str]:
    return [pieces.id_to_piece(number) for number in range(pieces.get_piece_size())]


def test_files_of_tokenizers_that_may_join_words_or_rewrite_texts() -> None:
    assert words_of_json(json_of()) is not None
    with_word, metaspace = json_of(), json_of()
    with_word.add_tokens(["girl named"])
    metaspace.pre_tokenizer = pre_tokenizers.Metaspace()
    byte_level = tokenizers.Tokenizer(models.BPE({"a": 0, "Ġ": 1, SPACE: 2}, []))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_like = json_of()
    byte_like.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    unigram = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), (SPACE, -1.0), ("a", -1.0)], unk_id=0))
    unigram.normalizer = llamas_normalizer()
    spaceless = tokenizers.Tokenizer(models.BPE({"<unk>": 0, "a": 1}, [], unk_token="<unk>", fuse_unk=True))
    spaceless.normalizer = llamas_normalizer()
    refused = {
        "a token with a space inside": json_of(joins_words=True),
        "dropout": json_of(dropout=0.1),
        "whole words before merges": json_of(ignore_merges=True),
        "an added word that is not special": with_word,
        "characters rewritten": json_of(normalizers.Sequence([normalizers.NFKC(), llamas_normalizer()])),
        "no space before a text": json_of(normalizers.Replace(" ", SPACE)),
        "words parted already": metaspace,
        "byte level": byte_level,
        "byte level over these merges": byte_like,
        "unigram": unigram,
        "no token for a space": spaceless,
    }
    assert {name for name, tokenizer in refused.items() if words_of_json(tokenizer) is not None} == set()
    # The last one shows why: what is unknown is one token, across words.
    assert spaceless.encode("b c").ids == [0] != spaceless.encode("b").ids + spaceless.encode("c").ids


@pytest.mark.parametrize("name", ["json", "pieces"])
def test_pieces_of_a_frame_and_of_messages(tmp_path: Path, name: str) -> None:
    """Empty pieces, and frames that are parted, give the ids of the whole text, wherever it stands."""
    tokenizer = _tokenizer(tmp_path, name)
    _, ids_of = pair(name)
    frame = "Below is a task.\n\n### Instruction:\n"
    drawn: list[tuple[Piece, ...]] = [
        (),
        (Piece(""),),
        (Piece("", 0),),
        (Piece("", 0), Piece(""), Piece("", 1)),
        (Piece(frame), Piece("", 0), Piece("\n\n### Response:\n")),
        (Piece(frame), Piece(" named  Lily ", 0), Piece("", 1), Piece("\n\n### Response:\n")),
        (Piece(""), Piece(frame), Piece("girl", 0)),
        (Piece("a frame that ends in a space "), Piece("girl", 0)),
        (Piece("word"), Piece("word", 0)),
        (Piece("girl", 0), Piece(" fox", 1)),
    ]
    whole = ["".join(piece.text for piece in each) for each in drawn]
    assert tokenizer.encode_pieces(drawn) == [ids_of(text) for text in whole]
    assert tokenizer.encode_pieces(drawn, [""] * len(drawn)) == [ids_of(text) for text in whole]
    newline = ids_of("\n")
    assert tokenizer.encode_pieces(drawn, ["\n"] * len(drawn)) == [
        ids_of(f"\n{text}")[len(newline) :] for text in whole
    ]
    [ids] = tokenizer.encode_pieces([(Piece("a </s> b", 0), Piece(" </s> c"))])
    assert ids.count(tokenizer.require_eos()) == 1


def _tokenizer(folder: Path, name: str) -> Tokenizer:
    """Gives a tokenizer that encodes word by word, as a checkpoint carries it."""
    write_checkpoint(folder, tokenizer=json_of())
    if name == "pieces":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
        (folder / "tokenizer.model").write_bytes(pieces_of().serialized_model_proto())
    return Tokenizer(folder)


PUBLISHED = {
    "llama2": True,
    "mistral-v0.1": True,
    "mistral-v0.3": True,
    "llama3": False,
    "gpt-neox": False,
    "falcon": False,
}


@pytest.mark.parametrize(("name", "by_words"), PUBLISHED.items())
def test_published_tokenizers_on_real_texts(name: str, by_words: bool) -> None:
    folder, lima = SHARED / "tokenizers" / name, SHARED / "lima" / "train.jsonl"
    if not (folder.is_dir() and lima.is_file()):
        pytest.skip("shared data is absent")
    lines = lima.read_text(encoding="utf-8").splitlines()[:40]
    real = [text for line in lines for text in json.loads(line)["conversations"]] + ODD_TEXTS
    if (folder / "tokenizer.json").is_file():
        fast = JsonBackend(folder / "tokenizer.json")
        assert fast.is_by_words is by_words
        library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        library.encode_special_tokens = True
        assert fast.encode_literal(real) == [library.encode(text, add_special_tokens=False).ids for text in real]
    if (folder / "tokenizer.model").is_file() and name != "llama3":
        slow = PieceBackend(folder / "tokenizer.model", {})
        assert slow.is_by_words is by_words
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        assert slow.encode_literal(real) == pieces.encode(real)
