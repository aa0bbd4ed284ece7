"""Ids, BOS and EOS rules, refusals, and text that streams."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_text import BOS, EOS, SHARED, byte_tokenizer, piece_model, write_checkpoint, write_json

from litft.errors import TokenizerError
from litft.text.backends import JsonBackend, PieceBackend
from litft.text.stream import StreamDecoder
from litft.text.tokenizer import Tokenizer

SENTENCE = "My experiments are going strong!"

# Source: ../shared/data/README.md.
PUBLISHED = {
    "llama2": [1, 1619, 15729, 526, 2675, 4549, 29991],
    "llama3": [128000, 5159, 21896, 527, 2133, 3831, 0],
    "mistral-v0.1": [1, 1984, 14107, 460, 1404, 2967, 28808],
    "mistral-v0.3": [1, 2752, 14875, 1228, 2172, 3735, 29576],
    "gpt-neox": [3220, 4679, 403, 1469, 2266, 2],
    "falcon": [2680, 13837, 362, 1089, 2127, 12],
}

TEXTS = [
    "Hello world",
    "",
    " ",
    "  two  spaces ",
    "line\n\n### Response:\r\n\ttab",
    "é 😀 中文 \u2028",
    "naïve </s> <s>",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    (tmp_path / "pieces").mkdir()
    (tmp_path / "pieces" / "tokenizer.model").write_bytes(piece_model())
    return tmp_path / "pieces"


def bytes_of(text: str) -> list[int]:
    return byte_tokenizer(template=False).encode(text).ids


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tokenizers(name: str) -> None:
    if not (SHARED / "tokenizers" / name).is_dir():
        pytest.skip("shared data is absent")
    tokenizer = Tokenizer(SHARED / "tokenizers" / name)
    assert tokenizer.encode(SENTENCE) == PUBLISHED[name]
    assert tokenizer.decode(PUBLISHED[name]) == SENTENCE
    assert max(PUBLISHED[name]) < tokenizer.vocab_size
    assert tokenizer.eos_id is not None and tokenizer.eos_id in tokenizer.stop_ids
    assert tokenizer.adds_bos == (PUBLISHED[name][0] == tokenizer.bos_id)
    with_eos = tokenizer.encode(SENTENCE, bos=False, eos=True)
    assert with_eos == [*PUBLISHED[name][tokenizer.adds_bos :], tokenizer.eos_id]
    assert tokenizer.decode(with_eos) == SENTENCE


def test_llama2_files_agree_on_real_texts() -> None:
    folder, lima = SHARED / "tokenizers" / "llama2", SHARED / "lima" / "train.jsonl"
    if not (folder.is_dir() and lima.is_file()):
        pytest.skip("shared data is absent")
    lines = lima.read_text(encoding="utf-8").splitlines()[:150]
    texts = [text for line in lines for text in json.loads(line)["conversations"]] + TEXTS
    fast, slow = JsonBackend(folder / "tokenizer.json"), PieceBackend(folder / "tokenizer.model", {})
    ids = fast.encode_literal(texts)
    assert ids == slow.encode_literal(texts)
    assert [fast.decode(row) for row in ids] == [slow.decode(row) for row in ids] == texts


@pytest.mark.parametrize("text", TEXTS[:6])
def test_encode_and_back(folder: Path, text: str) -> None:
    tokenizer = Tokenizer(folder)
    assert tokenizer.encode(text) == [BOS, *bytes_of(text)]
    assert tokenizer.encode(text, bos=False, eos=True) == [*bytes_of(text), EOS]
    assert tokenizer.encode_batch([text, "b"]) == [bytes_of(text), bytes_of("b")]
    assert tokenizer.decode([BOS, *bytes_of(text), EOS, 100_000]) == text


@pytest.mark.parametrize(
    ("template", "config", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"add_bos_token": True}, False),  # the generic class follows the post-processor
        (False, {"tokenizer_class": "LlamaTokenizer"}, True),
        (False, {"tokenizer_class": "LlamaTokenizerFast"}, True),
        (True, {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False}, False),
        (False, {"tokenizer_class": "GPTNeoXTokenizerFast"}, False),
        (False, {"tokenizer_class": "GPTNeoXTokenizerFast", "add_bos_token": True}, True),
        (False, {"tokenizer_class": "GPTNeoXTokenizer", "bos_token": None, "add_bos_token": False}, False),
    ],
)
def test_bos_rules(tmp_path: Path, template: bool, config: dict[str, Any], expected: bool) -> None:
    tokenizer = Tokenizer(write_checkpoint(tmp_path / "c", tokenizer=byte_tokenizer(template=template), **config))
    assert tokenizer.adds_bos is expected
    assert tokenizer.encode("a") == [BOS] * expected + bytes_of("a")


def test_bare_tokenizer_json_finds_its_tokens(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    tokenizer = Tokenizer(folder)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (BOS, EOS, True)


@pytest.mark.parametrize("bos", [None, True])
def test_never_two_bos(folder: Path, pieces: Path, bos: bool | None) -> None:
    for path in (folder, pieces):
        tokenizer = Tokenizer(path)
        assert tokenizer.encode("<s>girl", bos=bos).count(tokenizer.bos_id) == 1


def test_special_text_counts_in_prompts_but_not_in_data(folder: Path, pieces: Path) -> None:
    for path in (folder, pieces):
        tokenizer = Tokenizer(path)
        assert tokenizer.encode("a</s>b", bos=False)[1:-1].count(tokenizer.eos_id) == 1
        assert tokenizer.eos_id not in tokenizer.encode_batch(["a</s>b"])[0]
        assert tokenizer.decode(tokenizer.encode_batch(["a</s>b"])[0]) == "a</s>b"


@pytest.mark.parametrize("token", ["</s>", {"content": "</s>", "special": True}])
def test_eos_as_text_or_dict_in_either_file(folder: Path, token: object) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / "tokenizer_config.json").unlink(missing_ok=True)
        write_json(folder / name, {"bos_token": "<s>", "eos_token": token})
        assert Tokenizer(folder).eos_id == EOS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"eos_token_id": [1, 2]}', {1, 2}),
        ('{"eos_token_id": 2,\n}', {1, 2}),  # published so: a trailing comma
        ('{"eos_token_id": [1, 2,],}', {1, 2}),
        ('{"eos_token_id": 77}', {1}),  # an ordinary byte: a default that was never set
        ('{"eos_token_id": null}', {1}),
        ("{}", {1}),
    ],
)
def test_stop_ids(folder: Path, text: str, expected: set[int]) -> None:
    (folder / "generation_config.json").write_text(text, encoding="utf-8")
    assert Tokenizer(folder).stop_ids == expected


def test_eos_from_config_json(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    write_json(folder / "config.json", {"eos_token_id": 2})
    assert Tokenizer(folder).eos_id == 2


def test_pieces_alone_add_bos(pieces: Path) -> None:
    tokenizer = Tokenizer(pieces)
    ids = tokenizer.encode("little girl")
    assert (ids[0], tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (1, 1, 2, True)
    assert tokenizer.decode([*ids, 2, 0, 100_000]) == "little girl"


def test_pieces_with_added_tokens(pieces: Path) -> None:
    size = Tokenizer(pieces).vocab_size
    write_json(pieces / "added_tokens.json", {"<|end|>": size + 1})
    write_json(pieces / "tokenizer_config.json", {"eos_token": "<|end|>", "add_bos_token": False})
    tokenizer = Tokenizer(pieces)
    assert (tokenizer.eos_id, tokenizer.vocab_size, tokenizer.adds_bos) == (size + 1, size + 2, False)
    assert tokenizer.encode("girl<|end|>girl").count(size + 1) == 1


def test_published_truncation_is_not_applied(tmp_path: Path) -> None:
    source = byte_tokenizer()
    source.enable_truncation(4)
    source.enable_padding(length=50)
    assert len(Tokenizer(write_checkpoint(tmp_path / "c", tokenizer=source)).encode_batch(["0123456789"])[0]) == 10


def test_hash_is_of_what_decides_ids(folder: Path, tmp_path: Path) -> None:
    first = Tokenizer(folder).hash
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    write_json(copy / "generation_config.json", {"temperature": 0.5})
    assert Tokenizer(copy).hash == first
    write_json(copy / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "<unk>"})
    other_eos = Tokenizer(copy).hash
    other_vocab = Tokenizer(write_checkpoint(tmp_path / "v", tokenizer=byte_tokenizer(("word",)))).hash
    no_bos = Tokenizer(write_checkpoint(tmp_path / "b", tokenizer_class="LlamaTokenizer", add_bos_token=False)).hash
    assert len({first, other_eos, other_vocab, no_bos}) == 4


def test_rank_file_beside_json_is_ignored(folder: Path) -> None:
    before = Tokenizer(folder).encode("a")
    (folder / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    assert Tokenizer(folder).encode("a") == before


def test_use_fast_false_takes_the_pieces(folder: Path) -> None:
    (folder / "tokenizer.model").write_bytes(piece_model())
    write_json(folder / "tokenizer_config.json", {"use_fast": False})
    assert Tokenizer(folder).bos_id == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer.json": None}, "neither tokenizer.json nor tokenizer.model"),
        ({"tokenizer.json": None, "tokenizer.model": b"IQ== 0\nIg== 1\n"}, "tiktoken rank file"),
        ({"tokenizer.json": None, "tokenizer.model": b"\x00not a model"}, "not a readable sentencepiece model"),
        ({"tokenizer.json": b"{"}, "cannot be read"),
        ({"tokenizer_config.json": b'{"eos_token": "<|none|>"}'}, '"<|none|>"'),
        ({"tokenizer_config.json": b"{bos}"}, "is not JSON (line 1"),
        ({"tokenizer_config.json": b"[]"}, "no JSON object"),
        (
            {"tokenizer_config.json": b'{"tokenizer_class": "Gemma", "add_bos_token": true, "bos_token": null}'},
            "names no bos_token",
        ),
        ({"tokenizer.model": piece_model()}, "different tokenizers"),
    ],
)
def test_unusable_folders(folder: Path, files: dict[str, bytes | None], words: str) -> None:
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer(folder)
    assert words in str(caught.value) and str(folder) in str(caught.value)


def test_missing_tokens_are_said(folder: Path) -> None:
    source = byte_tokenizer(template=False)
    source.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None})
    text = (folder / "tokenizer.json").read_text(encoding="utf-8").replace("</s>", "<end>")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer(folder)
    with pytest.raises(TokenizerError, match="no BOS"):
        tokenizer.encode("a", bos=True)
    with pytest.raises(TokenizerError, match="no EOS"):
        tokenizer.encode("a", eos=True)


def test_half_characters_are_refused(folder: Path) -> None:
    for call in (Tokenizer(folder).encode, lambda text: Tokenizer(folder).encode_batch([text])):
        with pytest.raises(TokenizerError, match="position 1"):
            call("a\ud800")


@pytest.mark.parametrize("text", [text for text in TEXTS if text.strip()])
def test_stream_gives_the_whole_text(folder: Path, pieces: Path, text: str) -> None:
    for path in (folder, pieces):
        tokenizer = Tokenizer(path)
        stream = StreamDecoder(tokenizer)
        ids = tokenizer.encode_batch([text])[0]
        parts = [stream.push(number) for number in ids]
        assert "\ufffd" not in "".join(parts)
        assert "".join(parts) + stream.finish() == tokenizer.decode(ids)
        assert not stream.stopped


@pytest.mark.parametrize(
    ("text", "stop", "expected", "stopped"),
    [
        ("one END two", ["END"], "one ", True),
        ("one EN two", ["END"], "one EN two", False),
        ("one EN", ["END"], "one EN", False),
        ("aab", ["ab"], "a", True),
        ("xy", ["y", "xy"], "", True),
        ("é\nUser: b", ["\nUser"], "é", True),
        ("abc", [""], "abc", False),
    ],
)
def test_stop_strings_are_never_given(folder: Path, text: str, stop: list[str], expected: str, stopped: bool) -> None:
    stream = StreamDecoder(Tokenizer(folder), stop)
    given = ""
    for number in bytes_of(text):
        given += stream.push(number)
        assert expected.startswith(given)
    given += stream.finish()
    assert (given, stream.stopped) == (expected, stopped)
    assert stream.push(50) == "" or not stopped


def test_stream_shows_an_unfinished_character_only_at_the_end(folder: Path) -> None:
    stream = StreamDecoder(Tokenizer(folder))
    assert [stream.push(number) for number in bytes_of("é")[:1]] == [""]
    assert stream.finish() == "\ufffd"


def test_stream_with_context_keeps_the_first_space(pieces: Path) -> None:
    tokenizer = Tokenizer(pieces)
    prompt, answer = tokenizer.encode("Once upon"), tokenizer.encode("a time", bos=False)
    for context, expected in (([], "a time"), (prompt, " a time")):
        stream = StreamDecoder(tokenizer, context=context)
        assert "".join(map(stream.push, answer)) + stream.finish() == expected
