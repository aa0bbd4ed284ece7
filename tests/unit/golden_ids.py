"""What stands in `tests/golden/ids`: the ids and the loss of three conversations in each prompt style, to be read.

The tokenizers are ones that the project has: one that knows bytes alone, and the demo's. Both get the special tokens
that the style's models have. `tests/golden/README.md` says how the files are made anew.
"""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from templates import CHATML, GEMMA, GEMMA_MARKS, TAGGED, THINKING
from tiny_text import byte_tokenizer, write_checkpoint

from litft.data.encode import Encoding, Example
from litft.text.conversation import SYSTEM, USER, Conversation, Message, StyleError, completion, dialogue
from litft.text.encoding import Style
from litft.text.styles import STYLES
from litft.text.template import ChatTemplate
from litft.text.tokenizer import Tokenizer

IDS = Path(__file__).parents[1] / "golden" / "ids"
DEMO = Path(__file__).parents[2] / "litft" / "demo" / "model"
WIDTH = 120

EXAMPLES = {
    "one turn": dialogue("Name {two} cats.", "Tom.\nFelix."),
    "with an input": completion("Say it in German.", "Good day, Zoë!", "Guten Tag, Zoë!"),
    "two turns with a system text": Conversation(
        (
            Message(SYSTEM, "Be brief."),
            *dialogue("Say </s>.", "Hi!").messages,
            *completion("And in French?", "Salut !", "informal").messages,
        )
    ),
}

TEMPLATES = {
    "template-chatml": CHATML,
    "template-tagged": TAGGED,
    "template-thinking": THINKING,
    "template-gemma": GEMMA,
}

_CHATML_MARKS = ("<|im_start|>", "<|im_end|>")

# The special tokens of a style's models, beside BOS and EOS. What other styles write between brackets, such as
# Zephyr's `<|user|>` and RedPajama's `<human>`, is ordinary text to their models.
MARKS = {
    "dolly": ("### Instruction:", "### Response:\n", "### End"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral-v0.3": ("[INST]", "[/INST]"),
    "chatml": _CHATML_MARKS,
    "qwen2.5": _CHATML_MARKS,
    "smollm2": _CHATML_MARKS,
    "stablelm-alpha": ("<|SYSTEM|>", "<|USER|>", "<|ASSISTANT|>"),
    "stablelm-zephyr": ("<|endoftext|>",),
    "phi-3": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "phi-4": (*_CHATML_MARKS, "<|im_sep|>"),
    "phi-4-mini": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "gemma": GEMMA_MARKS,
    "olmo": ("<|endoftext|>",),
    "deepseek-r1": ("<｜User｜>", "<｜Assistant｜>"),
    "template-chatml": _CHATML_MARKS,
    "template-tagged": _CHATML_MARKS,
    "template-thinking": _CHATML_MARKS,
    "template-gemma": GEMMA_MARKS,
}
NAMES = (*STYLES, *TEMPLATES)


def byte_folder(folder: Path, name: str) -> Path:
    """Writes a checkpoint with the byte tokenizer and the special tokens of a style."""
    return write_checkpoint(folder, tokenizer=_marked(byte_tokenizer(), name))


def demo_folder(folder: Path, name: str) -> Path:
    """Writes the demo's tokenizer with the special tokens of a style."""
    folder.mkdir(parents=True)
    for file in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        shutil.copyfile(DEMO / file, folder / file)
    made = tokenizers.Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    _marked(made, name).save(str(folder / "tokenizer.json"))
    return folder


def _marked(tokenizer: tokenizers.Tokenizer, name: str) -> tokenizers.Tokenizer:
    tokenizer.add_special_tokens([tokenizers.AddedToken(mark, special=True) for mark in MARKS.get(name, ())])
    return tokenizer


def style_of(name: str, tokenizer: Tokenizer) -> Style:
    """Gives a style of the table, or one of the templates."""
    return STYLES[name] if name in STYLES else ChatTemplate.of(name, TEMPLATES[name], tokenizer)


def golden_text(name: str, scratch: Path) -> str:
    """Gives what the file of a style should hold.

    Args:
        name: one of `NAMES`.
        scratch: where tokenizers may be written.
    """
    folders = {"byte": byte_folder(scratch / "byte", name), "demo": demo_folder(scratch / "demo", name)}
    lines: list[str] = []
    for kind, folder in folders.items():
        tokenizer = Tokenizer(folder)
        for title, conversation in EXAMPLES.items():
            lines += ["", *_block(f"{kind} tokenizer, {title}", kind, tokenizer, name, conversation)]
    return "\n".join(lines[1:]) + "\n"


def _block(title: str, kind: str, tokenizer: Tokenizer, name: str, conversation: Conversation) -> Iterator[str]:
    """Gives the lines of one conversation; of one that the style refuses the reason, and what it makes without it."""
    encoding = Encoding(tokenizer, style_of(name, tokenizer))
    try:
        example = encoding.example(conversation)
    except StyleError as error:
        yield f"=== {title}: refused, {error}"
        bare = Conversation(tuple(message for message in conversation.messages if message.role != SYSTEM))
        assert bare.messages[0].role == USER
        yield from _block(f"{title} left out", kind, tokenizer, name, bare)
        return
    yield f"=== {title}: {len(example.input_ids)} tokens, {example.target_tokens} with loss"
    yield from _lines(kind, tokenizer, example)


def _lines(kind: str, tokenizer: Tokenizer, example: Example) -> Iterator[str]:
    """Gives a line, folded where it is long, for each run of tokens of one kind."""
    for ids, is_target in _runs(tokenizer, example):
        if ids[0] in _special(tokenizer):
            shown = json.dumps(tokenizer.token_text(ids[0]), ensure_ascii=False)[1:-1]
        else:
            text = tokenizer.decode(ids) if kind == "byte" else "|".join(map(tokenizer.token_text, ids))
            shown = json.dumps(text, ensure_ascii=False)
        numbers = " ".join(map(str, ids))
        line = f"{'x' if is_target else '.'} {shown}  "
        if len(line + numbers) <= WIDTH:
            yield line + numbers
        else:
            yield line.rstrip()
            yield textwrap.fill(numbers, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _runs(tokenizer: Tokenizer, example: Example) -> Iterator[tuple[list[int], bool]]:
    """Cuts a row where loss begins or ends, around special tokens and behind the end of a line."""
    run: list[int] = []
    before = (False, False, False)
    for number, is_target in zip(example.input_ids, example.mask, strict=True):
        is_special, is_end = number in _special(tokenizer), tokenizer.token_text(number).endswith(("\n", "Ċ"))
        cut = is_special or before[1] or is_target != before[0] or (before[2] and not is_end)
        if run and cut:
            yield run, before[0]
            run = []
        run.append(number)
        before = (is_target, is_special, is_end)
    yield run, before[0]


def _special(tokenizer: Tokenizer) -> set[int]:
    return set(tokenizer.specials.values())
