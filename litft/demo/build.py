"""Makes the folder of the demo's base model as Hugging Face lays it out, all but the weights.

Knows the tokenizers library; knows no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from litft.checkpoint.disk import atomic_path
from litft.demo.corpus import iter_documents
from litft.demo.tasks import build_rows, rows_as_json

VOCAB_SIZE = 4096
TOKENIZER_DOCUMENTS = 4000
SEED = 1
BLOCK_SIZE = 512
N_LAYER = 3
N_HEAD = 4
N_EMBD = 128
INTERMEDIATE_SIZE = 384

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))
_FRAME = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


def train_tokenizer(vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Trains the tokenizer on the plain text and on the prompts, so that a word of either is mostly one token.

    A word has the same id in a line, at the start of a line and at the start of a text: as in Llama's tokenizer a text
    begins with an invisible space, and here each line does too. Decoding gives the text back unchanged.

    Source: the normalizer and decoder of Llama 2's `tokenizer.json`; the rule about lines is our own.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=None, byte_fallback=True, fuse_unk=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"), normalizers.Replace(Regex(r"\n(?=[^\n])"), "\n▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(r"▁?[A-Za-z]+|▁?[0-9]+|\n+|▁?#+|▁?[^▁\nA-Za-z0-9#]|▁"), "isolated"
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Replace("\n▁", "\n"),
            decoders.Replace("▁", " "),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *_BYTE_TOKENS],
        initial_alphabet=[chr(code) for code in range(33, 127)] + ["▁", "\n"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_texts(), trainer)
    return _with_plain_bytes(tokenizer)


def _with_plain_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Lets the byte tokens be ordinary ones (the trainer knows them as special only, which decoding leaves out)."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIAL_TOKENS]
    plain = Tokenizer.from_str(json.dumps(state))
    bos = SPECIAL_TOKENS[1]
    plain.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, plain.token_to_id(bos))]
    )
    return plain


def _tokenizer_texts() -> list[str]:
    """Plain text and prompts, the latter often enough that the frame's words become single tokens."""
    train, _ = build_rows()
    return [*iter_documents(SEED, TOKENIZER_DOCUMENTS), *(_FRAME.format(**row) for row in train)]


def hf_config(vocab_size: int) -> dict[str, Any]:
    """Gives the demo model's config.json, every field that decides the network spelled out.

    Args:
        vocab_size: tokens of its tokenizer.

    Source: `LlamaConfig` of transformers.
    """
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": N_EMBD,
        "intermediate_size": INTERMEDIATE_SIZE,
        "num_hidden_layers": N_LAYER,
        "num_attention_heads": N_HEAD,
        "num_key_value_heads": N_HEAD,
        "head_dim": N_EMBD // N_HEAD,
        "max_position_embeddings": BLOCK_SIZE,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": SPECIAL_TOKENS.index("<s>"),
        "eos_token_id": SPECIAL_TOKENS.index("</s>"),
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def write_model_folder(directory: Path) -> None:
    """Writes all of the base model's folder but its weights: tokenizer.json and the JSON files beside it.

    Args:
        directory: created where it is absent; files of the same names are replaced.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    bos, eos, unknown = "<s>", "</s>", "<unk>"
    files = {
        "config.json": hf_config(tokenizer.get_vocab_size()),
        "generation_config.json": {
            "bos_token_id": tokenizer.token_to_id(bos),
            "eos_token_id": tokenizer.token_to_id(eos),
            "do_sample": False,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "eos_token": eos,
            "unk_token": unknown,
            "model_max_length": BLOCK_SIZE,
            "clean_up_tokenization_spaces": False,
        },
        "special_tokens_map.json": {"bos_token": bos, "eos_token": eos, "unk_token": unknown},
    }
    with atomic_path(directory / "tokenizer.json") as path:
        path.write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    for name, values in files.items():
        with atomic_path(directory / name) as path:
            path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_rows(directory: Path) -> None:
    """Writes the instruction dataset as it ships: train.json and held_out.json.

    Args:
        directory: created where it is absent; files of the same names are replaced.
    """
    directory.mkdir(parents=True, exist_ok=True)
    train, held_out = build_rows()
    for name, rows in (("train", train), ("held_out", held_out)):
        with atomic_path(directory / f"{name}.json") as path:
            path.write_text(rows_as_json(rows), encoding="utf-8")
