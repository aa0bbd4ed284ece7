"""A prompt style as a Jinja template gives, through transformers, the ids that were trained."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from tiny_text import SHARED, byte_tokenizer, piece_model, published, with_markers, write_json
from tokenizers import AddedToken, models, normalizers
from tokenizers import Tokenizer as Library

from litft.checkpoint.hf_folder import write_chat_template
from litft.text.chat_template import CONVERSATIONS, messages_of
from litft.text.conversation import dialogue
from litft.text.encoding import encode_prompt, stop_ids
from litft.text.prompts import PromptStyle
from litft.text.styles import STYLES
from litft.text.tokenizer import Tokenizer

DEMO = Path(__file__).parents[2] / "litft" / "demo" / "model"
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
HARD = PromptStyle(
    name="hard",
    first="\\ \"{instruction}\" '{{x}}' {% if %}\n\tANSWER {input}– 🙂 \\n",
    first_with_input="{instruction}{input}",
    later="[{instruction}][{instruction}]: ",
    later_with_input="{instruction}{input}",
)


def byte_folder(folder: Path, bos: bool, style: PromptStyle = HARD) -> Path:
    with_markers(byte_tokenizer(template=bos), style).save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", NAMES)
    return folder


def served_ids(tokenizer: Any, template: str | None = None) -> list[list[int]]:
    options = {"chat_template": template, "add_generation_prompt": True, "return_dict": False}
    return [list(tokenizer.apply_chat_template(messages_of(each), **options)) for each in CONVERSATIONS]


def trained_ids(tokenizer: Tokenizer, style: PromptStyle) -> list[list[int]]:
    return [encode_prompt(tokenizer, style, each) for each in CONVERSATIONS]


def both_ids(folder: Path, style: PromptStyle) -> tuple[list[list[int]], list[list[int]]]:
    return served_ids(transformers.AutoTokenizer.from_pretrained(folder)), trained_ids(Tokenizer(folder), style)


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("style", [*STYLES.values(), HARD], ids=lambda style: style.name)
@pytest.mark.parametrize("bos", [True, False])
def test_byte_tokenizers(bos: bool, style: PromptStyle, place: str, tmp_path: Path) -> None:
    write_chat_template(byte_folder(tmp_path, bos, style), Tokenizer(tmp_path), style)
    if place == "tokenizer_config.json":  # where older releases look
        (tmp_path / "chat_template.jinja").unlink()
    served, trained = both_ids(tmp_path, style)
    assert served == trained


@pytest.mark.parametrize("style", [style for style in STYLES.values() if not style.end], ids=lambda style: style.name)
def test_the_tokenizer_of_the_demo(style: PromptStyle, tmp_path: Path) -> None:
    """Its texts begin as if a space stood before them, as sentencepiece's do."""
    folder = shutil.copytree(DEMO, tmp_path / "demo")
    write_chat_template(folder, Tokenizer(folder), style)
    served, trained = both_ids(folder, style)
    assert served == trained


PUBLISHED = [
    ("tokenizers/falcon", "alpaca", 4),
    ("tokenizers/gpt-neox", "alpaca", 4),
    ("tokenizers/llama2", "alpaca", 4),
    ("tokenizers/llama2", "llama2", 4),
    ("tokenizers/llama2", "vicuna", 4),
    ("tokenizers/llama3", "llama3", 4),
    ("tokenizers/llama3", "plain", 4),
    ("tokenizers/llama3", "alpaca", 3),  # ":A" is one piece: the colon of the frame and the first letter of an answer
    ("models/stories260K-hf", "alpaca", 4),
]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the published tokenizers beside the checkout")
@pytest.mark.parametrize(("name", "style", "equal"), PUBLISHED)
def test_published_tokenizers(name: str, style: str, equal: int, tmp_path: Path) -> None:
    ours, theirs = published(name)
    write_chat_template(tmp_path, ours, STYLES[style])
    template = (tmp_path / "chat_template.jinja").read_text(encoding="utf-8")
    pairs = zip(served_ids(theirs, template), trained_ids(ours, STYLES[style]), strict=True)
    assert sum(first == second for first, second in pairs) == equal


def test_without_a_question_the_answer_is_not_asked_for(tmp_path: Path) -> None:
    write_chat_template(byte_folder(tmp_path, bos=True), Tokenizer(tmp_path), STYLES["alpaca"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = messages_of(dialogue("Hi", "Hello."))
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text.endswith("### Instruction:\nHi\n\n### Response:Hello.</s>")
    assert tokenizer.apply_chat_template(messages[:1], tokenize=False).endswith("### Instruction:\nHi")


@pytest.mark.parametrize("roles", [("assistant",), ("user", "user"), ("system", "assistant"), ("user", "tool")])
def test_roles_out_of_their_order_are_refused(roles: tuple[str, ...], tmp_path: Path) -> None:
    write_chat_template(byte_folder(tmp_path, bos=True), Tokenizer(tmp_path), STYLES["alpaca"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(Exception, match="the roles must alternate"):
        tokenizer.apply_chat_template([{"role": role, "content": "x"} for role in roles], tokenize=False)


def test_an_older_template_does_not_survive(tmp_path: Path) -> None:
    byte_folder(tmp_path, bos=True)
    (tmp_path / "chat_template.json").write_text('{"chat_template": "old"}')
    write_json(tmp_path / "tokenizer_config.json", {**NAMES, "chat_template": [{"name": "default", "template": "old"}]})
    write_chat_template(tmp_path, Tokenizer(tmp_path), STYLES["plain"])
    assert not (tmp_path / "chat_template.json").exists()
    served, trained = both_ids(tmp_path, STYLES["plain"])
    assert served == trained


def test_stop_texts_that_are_one_token_are_stop_ids(tmp_path: Path) -> None:
    tokenizer = Tokenizer(byte_folder(tmp_path, bos=True))
    assert stop_ids(tokenizer, None) == [1]
    style = dataclasses.replace(STYLES["plain"], stop=("<unk>", "two letters"))
    assert stop_ids(tokenizer, style) == [1, 2]


def test_the_text_of_a_token_is_what_the_file_writes(tmp_path: Path) -> None:
    """`tokenizers` itself gives the normalised text of an added token."""
    library = Library(models.BPE(vocab={"▁": 0, "▁<s>": 1, "a": 2}, merges=[]))
    library.normalizer = normalizers.Prepend("▁")
    library.add_special_tokens([AddedToken("</s>", normalized=True, special=True)])
    assert library.id_to_token(3) in ("▁</s>", "</s>")  # the second before tokenizers 0.23
    library.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path).token_text(3) == "</s>" and Tokenizer(tmp_path).token_text(2) == "a"
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.model").write_bytes(piece_model())
    write_json(tmp_path / "added_tokens.json", {"<call>": 400})
    pieces = Tokenizer(tmp_path)
    assert [pieces.token_text(number) for number in (1, 2, 400)] == ["<s>", "</s>", "<call>"]
