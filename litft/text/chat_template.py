"""A prompt style as the Jinja chat template that other programs render, such as transformers and vLLM.

A program with a template encodes the whole conversation as one text, litft encodes prompts and answers apart. The two
agree where special tokens stand between them, and else where the pieces at a border do not merge. Knows no files.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re

from litft.text.backends import special_pattern
from litft.text.conversation import Conversation, StyleError, dialogue
from litft.text.encoding import Style, encode_prompt, end_id
from litft.text.prompts import SYSTEM_TEXT, PromptStyle
from litft.text.template import ChatTemplate
from litft.text.tokenizer import Tokenizer

# What templates are tried on: the last answer is the one to be given.
CONVERSATIONS = (
    dialogue("Name three primes."),
    dialogue("What is the capital of France?", system="You are a helpful assistant."),
    dialogue("Count to three.", "1, 2, 3", "And back, in words – dänke!"),
    dialogue("Hi", "Hello there.", "Who are you?", "A model.", "Thanks.\nBye!", system="Answer briefly."),
)

_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' -%}
{%- set system, turns = messages[0]['content'], messages[1:] -%}
{%- else -%}
{%- set system, turns = DEFAULT_SYSTEM, messages -%}
{%- endif -%}
{%- for message in turns -%}
{%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
{{- raise_exception('After an optional system message the roles must alternate user, assistant, ...') -}}
{%- elif message['role'] == 'assistant' -%}
{{- ANSWER -}}
{%- else -%}
{%- if loop.first -%}
{{- FIRST_BEFORE -}}
{%- else -%}
{{- LATER_BEFORE -}}
{%- endif -%}
{%- if add_generation_prompt or not loop.last -%}
{{- FIRST_AFTER if loop.first else LATER_AFTER -}}
{%- endif -%}
{%- endif -%}
{%- endfor -%}
"""


def chat_template(style: Style, tokenizer: Tokenizer) -> str:
    """Gives a template whose ids, with `add_generation_prompt`, are those of `encode_prompt` wherever that can be.

    A style that is a chat template is given as it is.

    Args:
        style: how the model was trained.
        tokenizer: the model's; its BOS and end token are written out.

    Raises:
        TokenizerError: the tokenizer lacks the end token.

    Source: the variables `messages`, `add_generation_prompt` and `raise_exception` of transformers' chat templates.
    """
    if isinstance(style, ChatTemplate):
        return style.template
    assert isinstance(style, PromptStyle)
    first, answer, later = _glue(style, tokenizer)
    bos, end = _bos(tokenizer), tokenizer.token_text(end_id(tokenizer, style))
    system = f"({_filled(style.system, {SYSTEM_TEXT: 'system'})} if system else '')"
    first_frame = style.first if SYSTEM_TEXT in style.first else SYSTEM_TEXT + style.first
    first_before, first_after = _halves(first_frame, system)
    later_before, later_after = _halves(style.later, system)
    parts = {
        "DEFAULT_SYSTEM": _literal(style.default_system),
        "ANSWER": " ~ ".join(
            (_literal(answer), _filled(style.answer, {"{response}": "message['content']"}), _literal(end))
        ),
        "FIRST_BEFORE": f"{_literal(bos + first)} ~ {first_before}",
        "LATER_BEFORE": f"{_literal(_between(style, tokenizer) + later)} ~ {later_before}",
        "FIRST_AFTER": first_after,
        "LATER_AFTER": later_after,
    }
    return re.sub("|".join(parts), lambda found: parts[found[0]], _TEMPLATE)


def tried_conversations(style: Style) -> list[Conversation]:
    """Gives those of `CONVERSATIONS` that a style has a place for; some templates refuse a system text."""
    tried = []
    for each in CONVERSATIONS:
        with contextlib.suppress(StyleError):
            style.exchanges(each)
            tried.append(each)
    return tried


def messages_of(conversation: Conversation) -> list[dict[str, str]]:
    """Gives the role messages of a conversation; an input has no place in them."""
    return [{"role": message.role, "content": message.text} for message in conversation.messages]


Glue = tuple[str, str, str]


def _halves(frame: str, system: str) -> tuple[str, str]:
    """Gives a frame as two Jinja expressions: up to the user's text, and after it, where the answer is asked for."""
    before, place, after = frame.replace("{input}", "").rpartition("{instruction}")
    values = {"{instruction}": "message['content']", SYSTEM_TEXT: system}
    return _filled(before + place, values), _literal(after)


def _filled(frame: str, values: dict[str, str]) -> str:
    """Gives a frame as a Jinja expression, with expressions in the places of its placeholders."""
    parts = re.split("(" + "|".join(map(re.escape, values)) + ")", frame)
    return " ~ ".join(values.get(part, _literal(part)) for part in parts if part)


def _literal(text: str) -> str:
    """Writes a text as Jinja has it, whose escapes are Python's; JSON's are a part of them."""
    return json.dumps(text, ensure_ascii=False)


def _bos(tokenizer: Tokenizer) -> str:
    """Gives what stands before the first prompt."""
    return tokenizer.token_text(tokenizer.bos_id) if tokenizer.adds_bos and tokenizer.bos_id is not None else ""


def _between(style: PromptStyle, tokenizer: Tokenizer) -> str:
    """Gives what stands between an answer's end token and the next prompt."""
    return (_bos(tokenizer) if style.bos_each_turn else "") + style.after


def _glue(style: PromptStyle, tokenizer: Tokenizer) -> Glue:
    """Gives the texts to be put before the first prompt, before an answer and before a later prompt.

    Sentencepiece's tokenizers begin a text that is encoded alone as if a space stood before it; where they do not do so
    behind a special token or within a text, a written space makes the joined text come to the same ids.
    """
    wanted = [encode_prompt(tokenizer, style, each) for each in CONVERSATIONS]

    def fitness(glue: Glue) -> tuple[int, int]:
        joined = [_joined_ids(tokenizer, _joined(style, tokenizer, glue, each)) for each in CONVERSATIONS]
        return sum(a == b for a, b in zip(joined, wanted, strict=True)), -"".join(glue).count(" ")

    choices = ("", " ")
    return max(itertools.product(choices, choices, choices), key=fitness)


def _joined_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Gives the ids of a text as transformers 5 does, which sees special tokens wherever they stand."""
    first, *rest = special_pattern(tokenizer.specials).split(text)
    ids = tokenizer.encode(first, bos=False)
    for special, run in zip(rest[::2], rest[1::2], strict=True):
        ids += tokenizer.encode(special + run, bos=False)
    return ids


def _joined(style: PromptStyle, tokenizer: Tokenizer, glue: Glue, conversation: Conversation) -> str:
    """Gives the text that the template makes of a conversation."""
    first, answer, later = glue
    end = tokenizer.token_text(end_id(tokenizer, style))
    text, before = "", _bos(tokenizer) + first
    for exchange in style.exchanges(conversation):
        prompt, given = ("".join(piece.text for piece in pieces) for pieces in (exchange.prompt, exchange.answer))
        text += before + prompt.removeprefix(style.after if text else "") + (answer + given + end if given else "")
        before = _between(style, tokenizer) + later
    return text
