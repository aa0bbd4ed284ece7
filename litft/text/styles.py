"""The table of prompt styles by name.

Source of the texts, unless a style says otherwise: the model cards and the chat templates of the repositories.
"""

from __future__ import annotations

from litft.text.prompts import PromptStyle


def _style(name: str, frame: str, **parts: str | bool | tuple[str, ...]) -> PromptStyle:
    """Gives a style whose turns all look alike; an input stands below its instruction, after an empty line."""
    with_input = frame.replace("{instruction}", "{instruction}\n\n{input}")
    frames = {"first": frame, "first_with_input": with_input}
    if "later" not in parts:
        frames["later"] = frame.replace("{system}", "")
    later = str(parts.get("later", frames.get("later")))
    frames["later_with_input"] = later.replace("{instruction}", "{instruction}\n\n{input}")
    return PromptStyle(name=name, **{**frames, **parts})  # type: ignore[arg-type]


# Source: Stanford Alpaca, `train.py: PROMPT_DICT`. The answer begins right after the colon; some projects put a newline
# there. Turns after the first are ours: the same frame without the preamble.
ALPACA = PromptStyle(
    name="alpaca",
    first=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:"
    ),
    first_with_input=(
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
    ),
    later="\n\n### Instruction:\n{instruction}\n\n### Response:",
    later_with_input="\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:",
)

# No frame at all, for text completion.
PLAIN = PromptStyle(
    name="plain",
    first="{instruction}",
    first_with_input="{instruction}\n{input}",
    later="{instruction}",
    later_with_input="{instruction}\n{input}",
)

# Source: databricks/dolly, `training/consts.py`.
DOLLY = PromptStyle(
    name="dolly",
    first=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:\n"
    ),
    first_with_input=(
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\nInput:\n{input}\n\n### Response:\n"
    ),
    later="\n\n### Instruction:\n{instruction}\n\n### Response:\n",
    later_with_input="\n\n### Instruction:\n{instruction}\n\nInput:\n{input}\n\n### Response:\n",
    answer="{response}\n\n### End",
    stop=("### End",),
)

NOUS_HERMES = PromptStyle(
    name="nous-hermes",
    first="{system}### Instruction:\n{instruction}\n\n### Response:\n",
    first_with_input="{system}### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    later="### Instruction:\n{instruction}\n\n### Response:\n",
    later_with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    after="\n\n",
)

_CHATML = "{system}<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n"
_CHATML_PARTS = {"system": "<|im_start|>system\n{system}<|im_end|>\n", "end": "<|im_end|>", "after": "\n"}
_ZEPHYR = "{system}<|user|>\n{instruction}</s>\n<|assistant|>\n"
_ZEPHYR_SYSTEM = "<|system|>\n{system}</s>\n"
_LLAMA3 = (
    "{system}<|start_header_id|>user<|end_header_id|>\n\n{instruction}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
_LLAMA3_SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_STABLELM_SYSTEM = (
    "# StableLM Tuned (Alpha version)\n"
    "- StableLM is a helpful and harmless open-source AI language model developed by StabilityAI.\n"
    "- StableLM is excited to be able to help the user, but will refuse to do anything that could be considered "
    "harmful to the user.\n"
    "- StableLM is more than just an information source, StableLM is also able to write poetry, short stories, and "
    "make jokes.\n"
    "- StableLM will refuse to participate in anything that could harm a human.\n"
)

STYLES = {
    style.name: style
    for style in (
        ALPACA,
        PLAIN,
        DOLLY,
        NOUS_HERMES,
        _style("platypus", "### Instruction:\n\n{instruction}\n\n### Response:\n", after="\n\n"),
        _style(
            "llama2",
            "[INST] {system}{instruction} [/INST]",
            system="<<SYS>>\n{system}\n<</SYS>>\n\n",
            answer=" {response} ",
            bos_each_turn=True,
        ),
        _style(
            "llama3",
            _LLAMA3,
            system="<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
            end="<|eot_id|>",
        ),
        _style("mistral", "[INST] {system}{instruction} [/INST]", answer=" {response}"),
        _style("mistral-v0.3", "[INST] {system}{instruction}[/INST]", answer=" {response}"),
        _style(
            "vicuna",
            "{system}USER: {instruction} ASSISTANT:",
            system="{system} ",
            default_system=_VICUNA_SYSTEM,
            answer=" {response}",
        ),
        _style("chatml", _CHATML, **_CHATML_PARTS),
        _style(
            "qwen2.5",
            _CHATML,
            **_CHATML_PARTS,
            default_system="You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        ),
        _style(
            "smollm2",
            _CHATML,
            **_CHATML_PARTS,
            default_system="You are a helpful AI assistant named SmolLM, trained by Hugging Face",
        ),
        _style("zephyr", _ZEPHYR, system=_ZEPHYR_SYSTEM, after="\n"),
        _style(
            "tinyllama",
            _ZEPHYR,
            system=_ZEPHYR_SYSTEM,
            after="\n",
            default_system="You are a friendly chatbot who always gives helpful, detailed, and polite answers.",
        ),
        _style(
            "stablelm-alpha",
            "{system}<|USER|>{instruction}<|ASSISTANT|>",
            system="<|SYSTEM|>{system}",
            default_system=_STABLELM_SYSTEM,
            stop=("<|USER|>",),
        ),
        _style("stablelm-zephyr", "<|user|>\n{instruction}<|endoftext|>\n<|assistant|>\n", after="\n"),
        _style("stablecode", "###Instruction\n{instruction}###Response\n"),
        _style(
            "beluga",
            "{system}### User:\n{instruction}\n\n### Assistant:\n",
            system="### System:\n{system}\n\n",
            after="\n\n",
        ),
        _style("redpajama", "<human>: {instruction}\n<bot>:", answer=" {response}", after="\n", stop=("<human>",)),
        _style("falcon", "User: {instruction}\nAssistant:", answer=" {response}", after="\n", stop=("\nUser",)),
        _style(
            "falcon-180b",
            "{system}User: {instruction}\nFalcon:",
            system="System: {system}\n",
            answer=" {response}",
            after="\n",
            stop=("\nUser:",),
        ),
        _style("phi-1.5", "{instruction}\n\nAnswer:", answer=" {response}", after="\n\n"),
        _style("phi-2", "Instruct: {instruction}\nOutput:", answer=" {response}", after="\n"),
        _style(
            "phi-3",
            "{system}<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
            system="<|system|>\n{system}<|end|>\n",
            end="<|end|>",
            after="\n",
        ),
        _style(
            "phi-4",
            "{system}<|im_start|>user<|im_sep|>{instruction}<|im_end|><|im_start|>assistant<|im_sep|>",
            system="<|im_start|>system<|im_sep|>{system}<|im_end|>",
            end="<|im_end|>",
        ),
        _style(
            "phi-4-mini",
            "{system}<|user|>{instruction}<|end|><|assistant|>",
            system="<|system|>{system}<|end|>",
            end="<|end|>",
        ),
        _style(
            "gemma",
            "<start_of_turn>user\n{system}{instruction}<end_of_turn>\n<start_of_turn>model\n",
            end="<end_of_turn>",
            after="\n",
        ),
        _style(
            "olmo",
            "<|endoftext|>{system}<|user|>\n{instruction}\n<|assistant|>\n",
            later="<|user|>\n{instruction}\n<|assistant|>\n",
            system="<|system|>\n{system}\n",
            after="\n",
        ),
        _style("danube2", "<|prompt|>{instruction}</s><|answer|>"),
        _style("deepseek-r1", "{system}<｜User｜>{instruction}<｜Assistant｜>", system="{system}"),
    )
}
