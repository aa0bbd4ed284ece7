"""Which base models the challenge took, as patterns of names on the hub. Data, and nothing else.

Source: challenge.md of llm-efficiency-challenge.github.io, the last stored form of the list, which names Mistral and
Colossal-LLaMA-2 and so is of October 2023: ALBERT, BART, BERT, Bloom, Cerebras (btlm, GPT), Colossal-LLaMA-2-7b-base,
DeBERTa, DeciLM-6B, DistilBERT, Electra, Falcon, GPT2, GPT Neo, J, NeoX, Pythia, InternLM, LLaMA or Llama 2, Mistral,
MPT, OpenLLaMA, OPT, Persimmon, Qwen, Red Pajama Base, RoBERTa, T5 (not Flan-T5), UL2; all sizes, none
instruction-tuned. Here are those that generate text.
"""

from __future__ import annotations

import re
from typing import Literal

LIST = "the list of October 2023"

APPROVED = {
    "Bloom": r"bigscience/bloom(-\w+)?",
    "Cerebras": r"cerebras/(btlm|cerebras-gpt)-[\w.-]+",
    "Colossal-LLaMA-2": r"(hpcai-tech|hpcaitech)/colossal-llama-2-7b-base",
    "DeciLM-6B": r"deci/decilm-6b",
    "Falcon": r"tiiuae/falcon-(rw-)?\d+b",
    "GPT2": r"((openai-community|gpt2)/)?(distil)?gpt2(-\w+)?",
    "GPT Neo, J, NeoX, Pythia": r"eleutherai/(gpt-neo-[\w.]+|gpt-j-6b|gpt-neox-20b|pythia-[\w.]+(-deduped)?)",
    "InternLM": r"internlm/internlm-(7|20)b",
    "LLaMA or Llama 2": r"(huggyllama/llama-\d+b|meta-llama/llama-2-\d+b(-hf)?)",
    "Mistral": r"mistralai/mistral-7b-v0\.1",
    "MPT": r"mosaicml/mpt-\d+b(-8k)?",
    "OpenLLaMA": r"openlm-research/open_llama_\d+b(_v2)?",
    "OPT": r"facebook/opt-[\d.]+[bm]",
    "Persimmon": r"adept/persimmon-8b-base",
    "Qwen": r"qwen/qwen-[\d_.]+b",
    "Red Pajama Base": r"togethercomputer/redpajama-incite-(base-\w+-v1|7b-base|base-7b-v[\d.]+)",
    "T5": r"((google-t5|google)/)?t5-[\w.-]+",
    "UL2": r"google/ul2",
}
TUNED = re.compile(r"(instruct|chat|-it$|-sft|-dpo|vicuna|platypus|hermes|flan|-function-calling|alpaca|dolly)")
# Families of the list whose later models it could not know.
LATER = re.compile(r"^(qwen/qwen|mistralai/(mistral|mixtral)|tiiuae/falcon|internlm/|adept/|deci/)")


def judge_base(repo_id: str) -> tuple[Literal["pass", "fail", "?"], str]:
    """Says whether a base model was approved.

    Args:
        repo_id: ORG/NAME on the hub.

    Returns:
        The verdict and a sentence.
    """
    name = repo_id.lower()
    for family, pattern in APPROVED.items():
        if re.fullmatch(pattern, name) and not TUNED.search(name):
            return "pass", f"{repo_id} is on {LIST} ({family})"
    if TUNED.search(name):
        return "fail", f"{repo_id} is tuned on instructions by its name; the challenge takes base models alone"
    if LATER.search(name):
        return "?", f"{repo_id} is of a family on {LIST}, but came after it; whoever runs the challenge must say"
    return "fail", f"{repo_id} is not on {LIST}"
