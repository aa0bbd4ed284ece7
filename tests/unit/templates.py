"""Chat templates of our own writing, each in the way of published ones, and a folder that knows their marks.

They are what tests of templates, of golden ids and of whole preparations share.
"""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tiny_text import byte_tokenizer, write_checkpoint

MARKS = ("<|im_start|>", "<|im_end|>", "<|turn|>")
GEMMA_MARKS = ("<start_of_turn>", "<end_of_turn>")

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# The tag stands around an answer with its end, as in templates made for training.
TAGGED = """\
{% for message in messages %}
{% if message.role == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}

{% else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

# Writes an empty thought before the last answer only, as models do that think: Qwen 3's way.
THINKING = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if loop.last and message.role == 'assistant' -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{{- message.content.split('</think>')[-1].strip() + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""

# Feeds the beginning of a thought that it does not write before finished answers: DeepSeek R1's way.
UNSERVED = CHATML.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif")

# Writes BOS itself, strips texts, calls the model by another name, and refuses a system text: Gemma's way.
GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}
{%- for message in messages -%}
{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' -}}
{{ message.content | trim + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"""

TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\\n' + tools | tojson + '<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content }}"
    "{% for call in message.tool_calls %}{{ '<call>' + call | tojson }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def marked_folder(folder: Path, marks: tuple[str, ...] = MARKS) -> Path:
    """Writes a checkpoint whose tokenizer knows the marks of a chat."""
    made = byte_tokenizer()
    made.add_special_tokens([tokenizers.AddedToken(mark, special=True) for mark in marks])
    return write_checkpoint(folder, tokenizer=made)
