"""A tiny Hugging Face folder as transformers writes it, a CSV of instructions, and what litft makes of the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_text import BOS, EOS, byte_tokenizer, write_json
from transformers import LlamaConfig, LlamaForCausalLM

SIZES: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
COLOURS = ("red", "green", "blue", "black")


def write_hf_folder(folder: Path, max_shard_size: str = "5GB", **changes: Any) -> Path:
    """Writes a random float32 Llama with a byte-level tokenizer; `changes` are fields of its config."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).save_pretrained(folder, max_shard_size=max_shard_size)
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", NAMES)
    return folder


def csv_lines(count: int = 40) -> list[str]:
    """Gives a header and rows whose answers can be learned: the colour that is named, twice."""
    colours = [COLOURS[number % 4] for number in range(count)]
    rows = [f"Say {colour} for box {number},{colour} {colour}" for number, colour in enumerate(colours)]
    return ["instruction,output", *rows]


def write_csv(path: Path, count: int = 40) -> Path:
    """Writes such rows."""
    path.write_text("\n".join(csv_lines(count)) + "\n", encoding="utf-8")
    return path
