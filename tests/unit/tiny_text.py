"""Small real tokenizers and a folder around them, for tests that need no published model."""

from __future__ import annotations

import functools
import importlib
import io
import json
import re
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from litft.config.io import dump_yaml
from litft.config.model import ModelConfig
from litft.text.prompts import PromptStyle
from litft.text.tokenizer import Tokenizer

BOS, EOS, UNK = 0, 1, 2
SPECIAL = ("<s>", "</s>", "<unk>")
SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"

CORPUS = ["Once upon a time there was a little girl named Lily.", "The quick brown fox jumps over the lazy dog."] * 20


@functools.cache
def published(name: str) -> tuple[Tokenizer, Any]:
    """Gives a tokenizer of the shared data, as litft and as transformers read it; large ones take seconds to read."""
    folder = (SHARED / name).resolve()
    return Tokenizer(folder), importlib.import_module("transformers").AutoTokenizer.from_pretrained(folder)


def byte_tokenizer(first_words: tuple[str, ...] = (), template: bool = True) -> tokenizers.Tokenizer:
    """Gives a byte-level tokenizer in which each byte is a token; `first_words` move all ids by one each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate([*SPECIAL, *first_words, *alphabet])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


@functools.cache
def with_markers(tokenizer: tokenizers.Tokenizer, style: PromptStyle) -> tokenizers.Tokenizer:
    """Gives the tokenizer with the special tokens that a style's frames hold."""
    frames = style.system + style.first + style.later + style.end
    texts = dict.fromkeys(re.findall(r"<[|｜]?[^<>\s]+?[|｜]?>", frames.replace("<<SYS>>", "").replace("<</SYS>>", "")))
    known = [text for text in texts if tokenizer.token_to_id(text) is None]
    tokenizer.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in known])
    return tokenizer


def piece_model() -> bytes:
    """Gives a sentencepiece model of Llama's kind: unk 0, BOS 1, EOS 2, then byte pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=310,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


def write_json(path: Path, values: Any) -> None:
    """Writes one JSON file."""
    path.write_text(json.dumps(values), encoding="utf-8")


def write_checkpoint(
    folder: Path, block_size: int = 512, tokenizer: tokenizers.Tokenizer | None = None, **config: Any
) -> Path:
    """Writes a folder with the byte tokenizer, its settings and a model's description."""
    folder.mkdir(parents=True, exist_ok=True)
    (tokenizer or byte_tokenizer()).save(str(folder / "tokenizer.json"))
    named = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", {**named, **config})
    model = ModelConfig(
        name="tiny",
        family="llama",
        n_layer=1,
        n_head=2,
        n_embd=8,
        n_query_groups=2,
        head_size=4,
        intermediate_size=8,
        block_size=block_size,
        vocab_size=259,
        padded_vocab_size=320,
    )
    (folder / "model_config.yaml").write_text(dump_yaml(model.to_dict()), encoding="utf-8")
    return folder
