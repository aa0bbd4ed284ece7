"""Ids and loss of three conversations in each prompt style: the golden files, and the same found by other ways."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from golden_ids import EXAMPLES, IDS, MARKS, NAMES, TEMPLATES, byte_folder, demo_folder, golden_text, style_of
from tiny_text import BOS, EOS
from tokenizers import pre_tokenizers

from litft.data.encode import Encoding
from litft.text.conversation import SYSTEM, Conversation, Piece
from litft.text.styles import STYLES
from litft.text.tokenizer import Tokenizer


@pytest.mark.parametrize("name", NAMES)
def test_golden_ids(tmp_path: Path, name: str) -> None:
    assert golden_text(name, tmp_path) == (IDS / f"{name}.txt").read_text(encoding="utf-8")


def test_each_style_has_its_file_and_nothing_else_has() -> None:
    assert sorted(path.stem for path in IDS.iterdir()) == sorted(NAMES) and MARKS.keys() <= set(NAMES)
    assert STYLES.keys() | TEMPLATES.keys() == set(NAMES)


FIRST_MARK = 3 + 256  # behind BOS, EOS, the unknown and the bytes


def byte_ids(text: str, marks: tuple[str, ...]) -> list[int]:
    """Encodes a text by what the byte tokenizer is said to be: marks, and else a token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shown = {byte: chr(byte) for byte in printed}
    shown |= {byte: chr(256 + number) for number, byte in enumerate(sorted(set(range(256)) - set(printed)))}
    known = {"<s>": BOS, "</s>": EOS} | {mark: FIRST_MARK + number for number, mark in enumerate(marks)}
    ids = []
    for part in re.split(f"({'|'.join(map(re.escape, known))})", text):
        ids += [known[part]] if part in known else [3 + alphabet.index(shown[byte]) for byte in part.encode()]
    return ids


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("title", EXAMPLES)
def test_ids_are_the_bytes_of_the_frames(tmp_path: Path, name: str, title: str) -> None:
    """The texts are those of `tests/golden/styles.txt`; special tokens count in the frame alone."""
    marks = MARKS.get(name, ())
    ids: list[int] = []
    mask: list[bool] = []

    def add(pieces: tuple[Piece, ...], is_target: bool) -> None:
        for piece in pieces:
            parts = [piece.text] if piece.message is None else list(piece.text)  # no mark is a single character
            made = [number for part in parts for number in byte_ids(part, marks)]
            ids.extend(made)
            mask.extend([is_target] * len(made))

    for exchange in STYLES[name].exchanges(EXAMPLES[title]):
        add(((Piece("<s>"),) if exchange.bos else ()) + exchange.prompt, False)
        add((*exchange.answer, Piece(exchange.end or "</s>")), True)
    row = Encoding(Tokenizer(byte_folder(tmp_path / "c", name)), STYLES[name]).example(EXAMPLES[title])
    assert (row.input_ids, row.mask) == (ids, mask)


@pytest.mark.parametrize("kind", ["byte", "demo"])
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("title", EXAMPLES)
def test_templates_are_rendered_as_transformers_does(tmp_path: Path, kind: str, name: str, title: str) -> None:
    """Also the loss, where a template says by its own tags what is generated."""
    transformers = pytest.importorskip("transformers")
    folder = byte_folder(tmp_path / "c", name) if kind == "byte" else demo_folder(tmp_path / "c", name)
    ours = Tokenizer(folder)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), bos_token="<s>", eos_token="</s>"
    )
    messages = EXAMPLES[title].messages[name == "template-gemma" and title == "two turns with a system text" :]
    # What a person writes is no special token to us; transformers takes it for one.
    plain = [{"role": message.role, "content": message.whole_text.replace("</s>", "it")} for message in messages]
    talk = Conversation(
        tuple(type(each)(each.role, told["content"]) for each, told in zip(messages, plain, strict=True))
    )
    assert (talk.messages[0].role == SYSTEM) == (len(messages) % 2 == 1)
    wanted = theirs.apply_chat_template(
        plain, chat_template=TEMPLATES[name], return_dict=True, return_assistant_tokens_mask=True
    )
    row = Encoding(ours, style_of(name, ours)).example(talk)
    size = len(row.input_ids)
    assert row.input_ids == wanted["input_ids"][:size] and not ours.decode(wanted["input_ids"][size:]).strip()
    if name == "template-tagged":
        assert row.mask == [bool(number) for number in wanted["assistant_masks"][:size]]
