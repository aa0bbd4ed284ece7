"""What the JSON files beside a tokenizer say of its special tokens. Knows no tokenizer library."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litft.errors import TokenizerError

# Classes whose default is to begin each text with BOS. Source: `add_bos_token=True` in the tokenizers of Hugging Face
# `models/{llama,code_llama,gemma}/tokenization_*.py` (transformers 4), which Llama 1/2 and Mistral folders name.
BOS_BY_DEFAULT = frozenset({"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"})

# (bos_token, eos_token) where a folder names the class only. Source: the same files and `tokenization_gpt_neox.py`.
CLASS_TOKENS = {
    "LlamaTokenizer": ("<s>", "</s>"),
    "CodeLlamaTokenizer": ("<s>", "</s>"),
    "GemmaTokenizer": ("<bos>", "<eos>"),
    "GPTNeoXTokenizer": ("<|endoftext|>", "<|endoftext|>"),
}

LARGEST_FILE = 2**27  # bytes of a file of a tokenizer; the largest published ones have a quarter of that
LARGEST_ID = 2**24  # of a token; the largest vocabularies have a million


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """The special-token settings of one folder.

    Attributes:
        kind: the tokenizer class without its ending `Fast`; None when no file names one.
        is_described: a tokenizer_config.json or special_tokens_map.json is there.
        bos_token, eos_token: their text; None when unnamed.
        bos_is_null: the folder says outright that there is no BOS.
        add_bos_token: what tokenizer_config.json says; None when it does not.
        wants_slow: tokenizer_config.json says that the fast tokenizer is not to be used.
        bos_ids, eos_ids: ids in generation_config.json, then config.json.
        added: text and id of tokens outside the base vocabulary.
    """

    kind: str | None
    is_described: bool
    bos_token: str | None
    eos_token: str | None
    bos_is_null: bool
    add_bos_token: bool | None
    wants_slow: bool
    bos_ids: tuple[int, ...]
    eos_ids: tuple[int, ...]
    added: dict[str, int]


def load_settings(directory: Path) -> TokenizerSettings:
    """Reads every JSON file of a folder that speaks of special tokens; each may be absent.

    Source: facts of the Hugging Face folder layout: tokens are a string or `{"content": ...}`, ids an int or a list.

    Raises:
        TokenizerError: a file is not JSON.
    """
    config = load_json(directory / "tokenizer_config.json")
    special = load_json(directory / "special_tokens_map.json")
    ids = [load_json(directory / name) for name in ("generation_config.json", "config.json")]
    kind = config.get("tokenizer_class")
    kind = kind.removesuffix("Fast") if isinstance(kind, str) else None
    named = {**special, **{key: value for key, value in config.items() if value is not None}}
    bos_is_null = "bos_token" in config and config["bos_token"] is None and not special.get("bos_token")
    flag = config.get("add_bos_token")
    return TokenizerSettings(
        kind=kind,
        is_described=bool(config or special),
        bos_token=_content(named.get("bos_token")),
        eos_token=_content(named.get("eos_token")),
        bos_is_null=bos_is_null,
        add_bos_token=flag if isinstance(flag, bool) else None,
        wants_slow=config.get("use_fast") is False,
        bos_ids=tuple(found for values in ids for found in _ids(values.get("bos_token_id"))),
        eos_ids=tuple(found for values in ids for found in _ids(values.get("eos_token_id"))),
        added=_added(config, load_json(directory / "added_tokens.json")),
    )


def load_json(path: Path) -> dict[str, Any]:
    """Reads one object; nothing when the file is absent. Commas before a closing bracket are forgiven.

    Raises:
        TokenizerError: the file is not JSON, holds no object, or is larger than any.
    """
    if not path.is_file():
        return {}
    refuse_large(path)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        # Some published generation_config.json end in a trailing comma.
        try:
            values = json.loads(re.sub(r",(\s*[}\]])", r"\1", text))
        except (ValueError, RecursionError):
            raise TokenizerError(
                f"{path} is not JSON (line {error.lineno}: {error.msg}); download it again."
            ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, nesting without end
        raise TokenizerError(f"{path} is not JSON that can be read ({error}); download it again.") from error
    if not isinstance(values, dict):
        raise TokenizerError(f"{path} holds no JSON object; download it again.")
    return values


def refuse_large(path: Path) -> None:
    """Refuses a file that would fill the memory.

    Raises:
        TokenizerError: naming its size.
    """
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise TokenizerError(
            f"{path} has {size:,} bytes, and no tokenizer's file has more than {LARGEST_FILE:,}; do not use it."
        )


def _content(token: object) -> str | None:
    """Gives a token's text, however it is written."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) and text else None


def _ids(value: object) -> list[int]:
    """Gives the ids of an int, a list or nothing."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, int) and not isinstance(item, bool)]


def _added(config: dict[str, Any], added_tokens: dict[str, Any]) -> dict[str, int]:
    """Joins the old list (added_tokens.json) and the new one (added_tokens_decoder)."""
    found = {text: number for text, number in added_tokens.items() if type(number) is int}
    decoder = config.get("added_tokens_decoder")
    for number, token in (decoder if isinstance(decoder, dict) else {}).items():
        text = _content(token)
        if text and re.fullmatch("[0-9]{1,20}", str(number)):
            found[text] = int(number)
    return found
