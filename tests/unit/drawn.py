"""What property tests of preparation draw: texts that are hard to encode, conversations, rows of files, and models.

And what is expected of a style, said a second time and in another way than the library does.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from golden_ids import DEMO, MARKS, TEMPLATES, style_of
from hypothesis import strategies as st
from templates import UNSERVED
from tiny_text import byte_tokenizer, piece_model, write_checkpoint

from litft.text.conversation import ASSISTANT, SYSTEM, USER, Conversation, Message
from litft.text.encoding import Style
from litft.text.prompts import PromptStyle
from litft.text.styles import STYLES
from litft.text.template import ChatTemplate
from litft.text.tokenizer import Tokenizer

NAMES = (*STYLES, *TEMPLATES, "template-unserved")
TRAIN_ON = ("completions", "all", "last", "assistant", "user", "system", "system,user", "user,assistant")
TOO_LONG = ("drop", "truncate_prompt", "truncate_response", "split_turns")

# Texts that mean something to a tokenizer, a frame, a template, or a reader of files.
WRITTEN = (
    "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>",
    "[INST]", "[/INST]", "<<SYS>>", "### Response:", "\n### End", "USER:", "user", "s", "<think>", "</think>",
    "{instruction}", "{input}", "{response}", "{system}", "{{ bos_token }}", "{% endfor %}", "<0x0A>", "\\n",
)  # fmt: skip
SPACES = (" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u200b", "\u2028", "\u3000", "\x00", "\ufeff")

texts = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(WRITTEN),
        st.sampled_from(SPACES),
        st.sampled_from(("a", "and", "Zoë", "e\u0301", "👩‍👩‍👧", "ﬁ", "١")),
        st.integers(5, 40).map(lambda count: "long" * count),
        st.integers(2, 20).map(lambda count: "word " * count),
    ),
    max_size=5,
).map("".join)
said = texts.filter(lambda text: bool(text.strip()))


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Draws a conversation as readers of files give it: no question and no answer is blank."""
    messages = [Message(SYSTEM, draw(said))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        asked = Message(USER, draw(said), draw(st.one_of(st.just(""), texts)))
        messages += [asked, Message(ASSISTANT, draw(said))]
    return Conversation(tuple(messages))


def alpaca_rows() -> st.SearchStrategy[dict[str, Any]]:
    """Draws rows of instruction, input and output, some of which nobody can learn from."""
    text = st.one_of(said, said, said, texts, st.sampled_from((" ", "half \ud83d")))
    return st.fixed_dictionaries({"instruction": text, "output": text}, optional={"input": st.none() | texts})


@st.composite
def message_rows(draw: st.DrawFn) -> dict[str, Any]:
    """Draws rows of messages in the form of OpenAI's, some out of order or blank."""
    talk = draw(conversations())
    messages = [{"role": each.role, "content": each.text} for each in talk.messages]
    fault = draw(st.sampled_from((None,) * 9 + ("blank", "twice", "open")))
    if fault == "blank":
        messages[-1]["content"] = " \n"
    elif fault == "twice":
        messages.append(dict(messages[-1]))
    elif fault == "open":
        messages.append({"role": "user", "content": "And?"})
    return {"messages": messages}


def write_models(folder: Path) -> dict[str, Path]:
    """Writes a checkpoint for each kind of tokenizer: of bytes, the demo's, and a sentencepiece model."""
    marks = sorted({mark for each in MARKS.values() for mark in each if mark.startswith("<")})
    added = [tokenizers.AddedToken(mark, special=True) for mark in marks]
    made = {"byte": byte_tokenizer(), "demo": tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json"))}
    for name, tokenizer in made.items():
        tokenizer.add_special_tokens(added)
        path = write_checkpoint(folder / name, tokenizer=tokenizer) / "model_config.yaml"
        described = path.read_text(encoding="utf-8")
        path.write_text(described.replace("padded_vocab_size: 320", "padded_vocab_size: 4096"), encoding="utf-8")
    pieces = write_checkpoint(folder / "pieces")
    (pieces / "tokenizer.json").unlink()
    (pieces / "tokenizer.model").write_bytes(piece_model())
    for name, source in (*TEMPLATES.items(), ("template-unserved", UNSERVED)):
        (folder / f"{name}.jinja").write_text(source, encoding="utf-8")
    return {name: folder / name for name in (*made, "pieces")}


def template_or_style(name: str, tokenizer: Tokenizer) -> Style:
    """Gives the style of one of `NAMES`."""
    return ChatTemplate.of(name, UNSERVED, tokenizer) if name == "template-unserved" else style_of(name, tokenizer)


@dataclass(frozen=True)
class Expected:
    """What a style promises.

    Attributes:
        name: of `NAMES`.
        style: what the library has under it.
        tokenizer: of the model.
    """

    name: str
    style: Style
    tokenizer: Tokenizer

    def bos(self, turns: int) -> int:
        """How many BOS tokens a conversation of so many turns has."""
        if self.name in STYLES:
            return turns if self.name == "llama2" else 1
        return int(self.name == "template-gemma")

    def answers(self, conversation: Conversation) -> list[str]:
        """The texts that are learned of the answers."""
        told = [message.text for message in conversation.messages if message.role == ASSISTANT]
        if isinstance(self.style, PromptStyle):
            before, after = self.style.answer.split("{response}")
            return [before + text + after for text in told]
        if self.name == "template-gemma":
            return [text.strip() for text in told]
        if self.name == "template-thinking":
            bare = [text.split("</think>")[-1].strip() for text in told]
            return [*bare[:-1], f"<think>\n\n</think>\n\n{bare[-1]}"]
        return told

    @property
    def end(self) -> int:
        """The id that ends an answer."""
        ends = (
            {"template-gemma": "<end_of_turn>"}
            | dict.fromkeys(("chatml", "qwen2.5", "smollm2", "phi-4", *TEMPLATES, "template-unserved"), "<|im_end|>")
            | {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "template-gemma": "<end_of_turn>"}
        )
        ends |= dict.fromkeys(("phi-3", "phi-4-mini"), "<|end|>")
        number = self.tokenizer.id_of(ends.get(self.name, "</s>"))
        assert number is not None
        return number
