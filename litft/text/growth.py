"""How much longer a tokenizer's file may make a text. Knows no texts.

Normalizers replace characters by texts, one behind the other; four that put a thousand characters in the place of one
would make a terabyte of a letter, inside a library that nobody can stop.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from litft.errors import TokenizerError

# Characters in the place of one; of the published tokenizers 33, for a letter of Arabic that stands for a sentence.
LARGEST_GROWTH = 256


def refuse_growth(path: Path, library: tokenizers.Tokenizer) -> None:
    """Refuses a tokenizer whose normalizers, or whose decoders, would make a text very much longer.

    Args:
        path: of its file, for the message.
        library: the opened tokenizer.

    Raises:
        TokenizerError: naming how much longer.
    """
    for part in (library.normalizer, library.decoder):
        growth = 1.0
        for step in _steps(json.loads(part.__getstate__()) if part is not None else {}):
            growth *= max(_growth_of(step), 1.0)
        if growth > LARGEST_GROWTH:
            raise TokenizerError(
                f"{path} may make a text {growth:,.0f} times as long, and no tokenizer more than {LARGEST_GROWTH} "
                "times; do not use it."
            )


def _steps(part: Any) -> Iterator[Mapping[str, Any]]:
    """Gives the parts of a normalizer or a decoder that work one behind the other."""
    if isinstance(part, Mapping):
        yield part
        for each in part.values():
            yield from _steps(each)
    elif isinstance(part, list):
        for each in part:
            yield from _steps(each)


def _growth_of(step: Mapping[str, Any]) -> float:
    """Gives how many bytes a part puts in the place of one at the most."""
    if step.get("type") == "Replace":
        replaced = step["pattern"].get("String") or " "  # of a pattern at least one character
        return len(str(step["content"]).encode()) / len(replaced.encode())
    if step.get("type") == "Precompiled":
        return _longest_replacement(base64.b64decode(step["precompiled_charsmap"] or ""))
    return 1.0


def _longest_replacement(charsmap: bytes) -> int:
    """Gives the bytes of the longest text that sentencepiece's table of characters puts in the place of one.

    Source: `Normalizer::DecodePrecompiledCharsMap` of sentencepiece: length of a trie, the trie, texts that end in 0.
    """
    texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :]
    return max(map(len, texts.split(b"\0")), default=0)
