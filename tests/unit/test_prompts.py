"""Prompt frames as text, their ids and masks against golden files, and training ids against serving ids."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny_text import BOS, EOS, SHARED, byte_tokenizer, with_markers, write_checkpoint, write_json

from litft.data.encode import join_turns, mark_targets
from litft.errors import ConfigError, TokenizerError
from litft.text.prompts import (
    Conversation,
    PromptStyle,
    Turn,
    encode_conversations,
    encode_prompt,
    encode_turns,
    stop_ids,
)
from litft.text.styles import ALPACA, PLAIN, STYLES, load_prompt_style, save_prompt_style, style_named
from litft.text.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"

EXAMPLES = {
    "no_input": Conversation((Turn("Give a fact about {cats}.", response="They purr.\nOften."),)),
    "with_input": Conversation((Turn("Translate to German.", "Good day, Zoë!", "Guten Tag, Zoë!"),)),
    "two_turns": Conversation((Turn("Say hi.", response="Hi!"), Turn("And in French?", "informal", "Salut !"))),
}


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
    given = Conversation((Turn(values["instruction"]),)), Conversation((Turn(*values.values()),))
    assert ALPACA.prompts(given[0]) == [no_input.format_map(values)]
    assert ALPACA.prompts(given[1]) == [with_input.format_map(values)]
    assert ALPACA.prompts(Conversation((Turn("Do {input} it.", " \n"),))) == [no_input.format_map(values)]


def test_later_turns_have_no_preamble() -> None:
    turns = (Turn("a", response="b"), Turn("c"), Turn("d", "e"))
    assert ALPACA.prompts(Conversation(turns))[1:] == [
        "\n\n### Instruction:\nc\n\n### Response:",
        "\n\n### Instruction:\nd\n\n### Input:\ne\n\n### Response:",
    ]


def test_plain_has_no_frame() -> None:
    assert PLAIN.prompts(Conversation((Turn("Once"), Turn("and", "more")))) == ["Once", "and\nmore"]


def test_system_stands_before_the_first_turn_only() -> None:
    assert PLAIN.prompts(Conversation((Turn("a"), Turn("b")), system="Be kind.")) == ["Be kind.\n\na", "b"]


@pytest.mark.parametrize("style", ["alpaca", "plain"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_golden_ids_and_masks(style: str, example: str) -> None:
    if not (SHARED / "tokenizers" / "llama2").is_dir():
        pytest.skip("shared data is absent")
    llama = Tokenizer(SHARED / "tokenizers" / "llama2")
    row = mark_targets(join_turns(encode_turns(llama, STYLES[style], EXAMPLES[example])), "completions")
    lines = ["id     target  text"] + [
        f"{number:<6} {'x' if is_target else '.'}       {json.dumps(llama.decode([number]), ensure_ascii=False)}"
        for number, is_target in zip(row.input_ids, row.mask, strict=True)
    ]
    assert lines == (GOLDEN / f"{style}_{example}.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("style", [ALPACA, PLAIN])
def test_turns_join_to_the_text_with_one_bos_and_an_eos_each(tokenizer: Tokenizer, style: PromptStyle) -> None:
    for conversation in EXAMPLES.values():
        turns = encode_turns(tokenizer, style, conversation)
        texts = zip(style.prompts(conversation), conversation.turns, strict=True)
        whole = "".join(prompt + turn.response for prompt, turn in texts)
        ids = [number for pair in turns for part in pair for number in part]
        assert tokenizer.decode(ids) == whole
        assert ids[0] == BOS and ids.count(BOS) == 1
        assert ids.count(EOS) == len(conversation.turns)
        assert all(response[-1] == EOS for _, response in turns)


WHOLE = Conversation(
    (Turn("Say {hi}.", response="Hi!"), Turn("And in French?", "informal", "Salut !")), system="Be brief."
)


def test_golden_texts_of_all_styles() -> None:
    """What is learned stands between ⟦ and ⟧; BOS, EOS and a style's own end token are written as such."""
    lines = []
    for name, style in STYLES.items():
        text, turns = "", zip(style.prompts(WHOLE), WHOLE.turns, strict=True)
        for index, (prompt, turn) in enumerate(turns):
            bos = "<BOS>" if index == 0 or style.bos_each_turn else ""
            answer = "".join(piece for piece, _ in style.answer_segments(turn))
            text += f"{bos}{prompt}⟦{answer}{style.end or '<EOS>'}⟧"
        lines.append(f"=== {name}{f', stops at {list(style.stop)}' if style.stop else ''}\n{text}\n")
    assert "\n".join(lines) == (GOLDEN / "styles.txt").read_text(encoding="utf-8")


@pytest.mark.skipif(not (SHARED / "tokenizers" / "llama3").is_dir(), reason="shared data is absent")
def test_llama3_is_the_published_template() -> None:
    """Its ids are those of the chat template that stands beside the tokenizer, rendered by transformers."""
    transformers = pytest.importorskip("transformers")
    folder = (SHARED / "tokenizers" / "llama3").resolve()
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hi."},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "And <|eot_id|>?"[:3]},
    ]
    wanted = list(theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    asked = Conversation((Turn("Say hi.", response="Hi!"), Turn("And")), system="Be brief.")
    assert encode_prompt(Tokenizer(folder), STYLES["llama3"], asked) == wanted


def test_special_tokens_count_in_frames_and_not_in_what_people_write(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c", tokenizer=with_markers(byte_tokenizer(), STYLES["chatml"]))
    chat, style = Tokenizer(folder), STYLES["chatml"]
    start, end = chat.id_of("<|im_start|>"), chat.id_of("<|im_end|>")
    [(prompt, answer)] = encode_turns(chat, style, Conversation((Turn("Hi <|im_end|>", response="a<|im_end|>b"),)))
    assert (prompt.count(start), prompt.count(end)) == (2, 1)
    assert answer.count(end) == 1 and answer[-1] == end
    assert end in stop_ids(chat, style)
    plain = encode_turns(chat, style, Conversation((Turn("Hi", response="a"),)))[0][0]
    assert prompt[: plain.index(end) - 2] == plain[: plain.index(end) - 2]


def test_a_style_whose_end_token_is_missing_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r'"chatml" ends answers with <\|im_end\|>, which is no token'):
        encode_turns(tokenizer, STYLES["chatml"], WHOLE)


@pytest.mark.parametrize("name", ["llama2", "gpt-neox"])
def test_served_prompt_is_the_trained_prefix(name: str) -> None:
    if not (SHARED / "tokenizers" / name).is_dir():
        pytest.skip("shared data is absent")
    real = Tokenizer(SHARED / "tokenizers" / name)
    for conversation in EXAMPLES.values():
        trained = join_turns(encode_turns(real, ALPACA, conversation)).input_ids
        *earlier, last = conversation.turns
        asked = Conversation((*earlier, dataclasses.replace(last, response="")))
        served = encode_prompt(real, ALPACA, asked)
        assert trained[: len(served)] == served
        assert real.decode(trained[len(served) :]) == last.response


def test_batch_equals_one_by_one(tokenizer: Tokenizer) -> None:
    rows = list(EXAMPLES.values())
    assert encode_conversations(tokenizer, ALPACA, rows) == [encode_turns(tokenizer, ALPACA, row) for row in rows]
    assert encode_conversations(tokenizer, ALPACA, []) == []


def test_special_text_in_data_ends_nothing(tokenizer: Tokenizer) -> None:
    [(prompt, response)] = encode_turns(tokenizer, PLAIN, Conversation((Turn("<s>a</s>", response="b</s>c"),)))
    assert (prompt.count(BOS), prompt.count(EOS), response.count(EOS)) == (1, 0, 1)
    assert tokenizer.decode(response) == "b</s>c"


def test_no_bos_where_the_model_has_none(tmp_path: Path) -> None:
    plain = Tokenizer(write_checkpoint(tmp_path / "c", tokenizer=byte_tokenizer(template=False)))
    assert BOS not in encode_prompt(plain, ALPACA, EXAMPLES["no_input"])


def test_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c")
    text = (folder / "tokenizer.json").read_text(encoding="utf-8").replace("</s>", "<end>")
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>"})
    with pytest.raises(TokenizerError, match="no EOS token"):
        encode_turns(Tokenizer(folder), ALPACA, EXAMPLES["no_input"])


@pytest.mark.parametrize("style", [*STYLES.values(), dataclasses.replace(ALPACA, name="mine", stop=("###", "\n"))])
def test_style_is_saved_beside_a_checkpoint(tmp_path: Path, style: PromptStyle) -> None:
    save_prompt_style(tmp_path, style)
    assert load_prompt_style(tmp_path) == style
    assert [path.name for path in tmp_path.iterdir()] == ["prompt_style.yaml"]


def test_absent_style_is_alpaca(tmp_path: Path) -> None:
    assert load_prompt_style(tmp_path) == ALPACA


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
        load_prompt_style(tmp_path)
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("text", "words"), [("name: alpaca\n", "lacks first"), ("- a\n", "list"), ("{", "YAML")])
def test_malformed_style_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "prompt_style.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_prompt_style(tmp_path)


def test_unknown_style_has_a_suggestion() -> None:
    with pytest.raises(ConfigError, match='Did you mean "alpaca"'):
        style_named("alpacca")


def test_a_frame_may_have_the_input_first_and_braces_in_texts_stay() -> None:
    frame = "Context: {input}\nQ: {instruction}\nA:"
    style = PromptStyle(name="mine", first="{instruction}", first_with_input=frame, later="{instruction}",
                        later_with_input=frame)  # fmt: skip
    turn = Turn("Which {input}?", "a {instruction} b")
    assert style.prompts(Conversation((turn,))) == ["Context: a {instruction} b\nQ: Which {input}?\nA:"]
