"""Prompt frames as text, their ids and masks against golden files, and training ids against serving ids."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_text import BOS, EOS, SHARED, byte_tokenizer, published, with_markers, write_checkpoint, write_json

from litft.data.encode import Encoding
from litft.errors import ConfigError, TokenizerError
from litft.text.conversation import SYSTEM, USER, Conversation, Message, Piece, completion, dialogue
from litft.text.encoding import encode_conversation, encode_exchanges, encode_prompt, stop_ids
from litft.text.prompts import PromptStyle
from litft.text.style_files import load_style, save_prompt_style, style_named
from litft.text.styles import ALPACA, PLAIN, STYLES
from litft.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"

EXAMPLES = {
    "no_input": dialogue("Give a fact about {cats}.", "They purr.\nOften."),
    "with_input": completion("Translate to German.", "Guten Tag, Zoë!", "Good day, Zoë!"),
    "two_turns": Conversation(
        (*dialogue("Say hi.", "Hi!").messages, *completion("And in French?", "Salut !", "informal").messages)
    ),
}


def prompts(style: PromptStyle, conversation: Conversation) -> list[str]:
    """Gives the text before each answer."""
    return [text_of(exchange.prompt) for exchange in style.exchanges(conversation)]


def text_of(pieces: tuple[Piece, ...]) -> str:
    return "".join(piece.text for piece in pieces)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(write_checkpoint(tmp_path / "tiny"))


def test_alpaca_is_stanfords() -> None:
    # Source: stanford_alpaca/train.py, PROMPT_DICT.
    no_input, with_input = (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:",
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
    )
    values = {"instruction": "Do {input} it.", "input": "with {instruction}"}
    asked = Message(USER, *values.values())
    assert prompts(ALPACA, dialogue(values["instruction"])) == [no_input.format_map(values)]
    assert prompts(ALPACA, Conversation((asked,))) == [with_input.format_map(values)]
    assert prompts(ALPACA, Conversation((dataclasses.replace(asked, input=" \n"),))) == [no_input.format_map(values)]


def test_later_turns_have_no_preamble() -> None:
    talk = (*dialogue("a", "b", "c", "c").messages, Message(USER, "d", "e"))
    assert prompts(ALPACA, Conversation(talk))[1:] == [
        "\n\n### Instruction:\nc\n\n### Response:",
        "\n\n### Instruction:\nd\n\n### Input:\ne\n\n### Response:",
    ]


def test_plain_has_no_frame() -> None:
    talk = (*dialogue("Once", "b").messages, Message(USER, "and", "more"))
    assert prompts(PLAIN, Conversation(talk)) == ["Once", "and\nmore"]


def test_system_stands_before_the_first_turn_only() -> None:
    assert prompts(PLAIN, dialogue("a", "x", "b", system="Be kind.")) == ["Be kind.\n\na", "b"]


@pytest.mark.parametrize("style", ["alpaca", "plain"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_golden_ids_and_masks(style: str, example: str) -> None:
    if not (SHARED / "tokenizers" / "llama2").is_dir():
        pytest.skip("shared data is absent")
    llama = Tokenizer(SHARED / "tokenizers" / "llama2")
    row = Encoding(llama, STYLES[style]).example(EXAMPLES[example])
    lines = ["id     target  text"] + [
        f"{number:<6} {'x' if is_target else '.'}       {json.dumps(llama.decode([number]), ensure_ascii=False)}"
        for number, is_target in zip(row.input_ids, row.mask, strict=True)
    ]
    assert lines == (GOLDEN / f"{style}_{example}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("style", [ALPACA, PLAIN])
def test_turns_join_to_the_text_with_one_bos_and_an_eos_each(tokenizer: Tokenizer, style: PromptStyle) -> None:
    for conversation in EXAMPLES.values():
        turns = encode_conversation(tokenizer, style, conversation)
        whole = "".join(text_of(each.prompt + each.answer) for each in style.exchanges(conversation))
        ids = [number for pair in turns for part in pair for number in part]
        assert tokenizer.decode(ids) == whole
        assert ids[0] == BOS and ids.count(BOS) == 1
        assert ids.count(EOS) == len(conversation.answers)
        assert all(response[-1] == EOS for _, response in turns)


WHOLE = Conversation(
    (
        Message(SYSTEM, "Be brief."),
        *dialogue("Say {hi}.", "Hi!").messages,
        *completion("And in French?", "Salut !", "informal").messages,
    )
)


def test_golden_texts_of_all_styles() -> None:
    """What is learned stands between ⟦ and ⟧; BOS, EOS and a style's own end token are written as such."""
    lines = []
    for name, style in STYLES.items():
        text = ""
        for each in style.exchanges(WHOLE):
            text += f"{'<BOS>' * each.bos}{text_of(each.prompt)}⟦{text_of(each.answer)}{each.end or '<EOS>'}⟧"
        lines.append(f"=== {name}{f', stops at {list(style.stop)}' if style.stop else ''}\n{text}\n")
    assert "\n".join(lines) == (GOLDEN / "styles.txt").read_text(encoding="utf-8")


@pytest.mark.skipif(not (SHARED / "tokenizers" / "llama3").is_dir(), reason="shared data is absent")
def test_llama3_is_the_published_template() -> None:
    """Its ids are those of the chat template that stands beside the tokenizer, rendered by transformers."""
    ours, theirs = published("tokenizers/llama3")
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hi."},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "And <|eot_id|>?"[:3]},
    ]
    wanted = list(theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    asked = dialogue("Say hi.", "Hi!", "And", system="Be brief.")
    assert encode_prompt(ours, STYLES["llama3"], asked) == wanted


def test_special_tokens_count_in_frames_and_not_in_what_people_write(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", tokenizer=with_markers(byte_tokenizer(), STYLES["chatml"]))
    chat, style = Tokenizer(folder), STYLES["chatml"]
    start, end = chat.id_of("<|im_start|>"), chat.id_of("<|im_end|>")
    [(prompt, answer)] = encode_conversation(chat, style, dialogue("Hi <|im_end|>", "a<|im_end|>b"))
    assert (prompt.count(start), prompt.count(end)) == (2, 1)
    assert answer.count(end) == 1 and answer[-1] == end
    assert end in stop_ids(chat, style)
    plain = encode_conversation(chat, style, dialogue("Hi", "a"))[0][0]
    assert prompt[: plain.index(end) - 2] == plain[: plain.index(end) - 2]


def test_a_style_whose_end_token_is_missing_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"ends answers with <\|im_end\|>, which is no token"):
        encode_conversation(tokenizer, STYLES["chatml"], WHOLE)


@pytest.mark.parametrize("name", ["llama2", "gpt-neox"])
def test_served_prompt_is_the_trained_prefix(name: str) -> None:
    if not (SHARED / "tokenizers" / name).is_dir():
        pytest.skip("shared data is absent")
    real = Tokenizer(SHARED / "tokenizers" / name)
    for conversation in EXAMPLES.values():
        trained = Encoding(real, ALPACA).example(conversation).input_ids
        last = conversation.answers[-1]
        served = encode_prompt(real, ALPACA, conversation.until(last))
        assert trained[: len(served)] == served
        assert real.decode(trained[len(served) :]) == conversation.messages[last].text


def test_batch_equals_one_by_one(tokenizer: Tokenizer) -> None:
    rows = [ALPACA.exchanges(each) for each in EXAMPLES.values()]
    assert encode_exchanges(tokenizer, rows) == [encode_exchanges(tokenizer, [row])[0] for row in rows]
    assert encode_exchanges(tokenizer, []) == []


def test_special_text_in_data_ends_nothing(tokenizer: Tokenizer) -> None:
    [(prompt, response)] = encode_conversation(tokenizer, PLAIN, dialogue("<s>a</s>", "b</s>c"))
    assert (prompt.count(BOS), prompt.count(EOS), response.count(EOS)) == (1, 0, 1)
    assert tokenizer.decode(response) == "b</s>c"


def test_no_bos_where_the_model_has_none(tmp_path: Path) -> None:
    plain = Tokenizer(write_checkpoint(tmp_path / "c", tokenizer=byte_tokenizer(template=False)))
    assert BOS not in encode_prompt(plain, ALPACA, dialogue("Say hi."))


def test_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8").replace("</s>", "<end>")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>"})
    with pytest.raises(TokenizerError, match="no EOS token"):
        encode_conversation(Tokenizer(folder), ALPACA, EXAMPLES["no_input"])


@pytest.mark.parametrize("style", [*STYLES.values(), dataclasses.replace(ALPACA, name="mine", stop=("###", "\n"))])
def test_style_is_saved_beside_a_checkpoint(tmp_path: Path, style: PromptStyle) -> None:
    save_prompt_style(tmp_path, style)
    assert load_style(tmp_path) == style
    assert [path.name for path in tmp_path.iterdir()] == ["prompt_style.yaml"]


def test_absent_style_is_alpaca(tmp_path: Path) -> None:
    assert load_style(tmp_path) == ALPACA


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frist": "{instruction}"}, 'Did you mean "first"?'),
        ({"first": None}, "first of the prompt style is None"),
        ({"first": "Answer:"}, 'first of the prompt style "alpaca" lacks {instruction}'),
        ({"later_with_input": "{instruction}"}, "lacks {input}"),
        ({"stop": "###"}, "must be a list of texts"),
    ],
)
def test_unusable_style_file(tmp_path: Path, change: dict[str, object], words: str) -> None:
    (tmp_path / "prompt_style.yaml").write_text(json.dumps({**ALPACA.to_dict(), **change}), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_style(tmp_path)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [("name: alpaca\n", "lacks first"), ("- a\n", "list"), ("{", "YAML")])
def test_malformed_style_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "prompt_style.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_style(tmp_path)


def test_unknown_style_has_a_suggestion(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match='Did you mean "alpaca"'):
        style_named("alpacca", tokenizer)


def test_a_frame_may_have_the_input_first_and_braces_in_texts_stay() -> None:
    frame = "Context: {input}\nQ: {instruction}\nA:"
    style = PromptStyle(name="mine", first="{instruction}", first_with_input=frame, later="{instruction}",
                        later_with_input=frame)  # fmt: skip
    asked = Message(USER, "Which {input}?", "a {instruction} b")
    assert prompts(style, Conversation((asked,))) == ["Context: a {instruction} b\nQ: Which {input}?\nA:"]
