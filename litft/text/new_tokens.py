"""New tokens for a tokenizer: their texts become one id each, beyond all ids that the model knows.

They are ordinary tokens, not special ones: they count wherever they are written and are shown when decoded. Knows no
model: `methods/new_tokens.py` grows the embedding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from litft.errors import TokenizerError
from litft.text.settings import load_json
from litft.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class NewTokens:
    """Tokens that a base model has no trained rows for.

    Attributes:
        first_id: of the first; the others follow.
        texts: what each stands for.
        pieces: the ids that each was written with before; a new row begins as the mean of their rows.
    """

    first_id: int
    texts: tuple[str, ...]
    pieces: tuple[tuple[int, ...], ...]

    @property
    def vocab_size(self) -> int:
        """Tokens known with these."""
        return self.first_id + len(self.texts)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types, ready for YAML; `from_dict` reads them back."""
        return {
            "first_id": self.first_id,
            "texts": list(self.texts),
            "pieces": [list(numbers) for numbers in self.pieces],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NewTokens:
        """Builds from plain types."""
        pieces = tuple(tuple(int(number) for number in numbers) for numbers in values["pieces"])
        return cls(int(values["first_id"]), tuple(values["texts"]), pieces)


def add_tokens(folder: Path, texts: Sequence[str]) -> NewTokens:
    """Adds tokens to the tokenizer files of a folder, in place.

    Args:
        folder: holds tokenizer.json; what else speaks of the vocabulary is brought to the same state.
        texts: at least one.

    Raises:
        TokenizerError: there is no tokenizer.json, or a text is empty, given twice, or a token already.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise TokenizerError(
            f"add_tokens needs tokenizer.json, which {folder} lacks; save the tokenizer with transformers' "
            "`AutoTokenizer.from_pretrained(...).save_pretrained(...)` first."
        )
    before = Tokenizer(folder)
    _check(texts, before, path)
    pieces = before.encode_batch(texts)
    library = tokenizers.Tokenizer.from_file(str(path))
    library.add_tokens([tokenizers.AddedToken(text, normalized=False, special=False) for text in texts])
    first = library.token_to_id(texts[0])
    assert first is not None
    ids = list(range(first, first + len(texts)))
    assert ids == [library.token_to_id(text) for text in texts]
    library.save(str(path))
    (folder / "tokenizer.model").unlink(missing_ok=True)  # a second tokenizer, which does not know the new tokens
    _describe(folder / "tokenizer_config.json", dict(zip(texts, ids, strict=True)))
    _name_generic_class(folder, before)
    return NewTokens(first, tuple(texts), tuple(map(tuple, pieces)))


def _name_generic_class(folder: Path, before: Tokenizer) -> None:
    """Lets transformers read tokenizer.json as it stands, where BOS and EOS then stay what they were.

    Source: transformers 5 builds the tokenizers of named classes, such as Llama's, anew from their vocabulary, and what
        stands behind an added token comes out otherwise.
    """
    path = folder / "tokenizer_config.json"
    settings = load_json(path)
    if "tokenizer_class" not in settings:
        return
    text = path.read_text(encoding="utf-8")
    generic = {**settings, "tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(generic, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    after = Tokenizer(folder)
    if (after.bos_id, after.eos_id, after.adds_bos) != (before.bos_id, before.eos_id, before.adds_bos):
        path.write_text(text, encoding="utf-8")


def _check(texts: Sequence[str], before: Tokenizer, path: Path) -> None:
    """Refuses texts that cannot become tokens."""
    for text in texts:
        if not text.strip():
            raise TokenizerError(f"add_tokens has the text {text!r}, which is empty; leave it out.")
        if texts.count(text) > 1:
            raise TokenizerError(f'add_tokens has "{text}" twice; leave one out.')
        if before.id_of(text) is not None:
            raise TokenizerError(
                f'add_tokens has "{text}", which {path} knows already as {before.id_of(text)}; leave it out.'
            )


def _describe(path: Path, ids: Mapping[str, int]) -> None:
    """Adds the tokens to `added_tokens_decoder`, by which older versions of transformers know them."""
    settings = load_json(path)
    decoder = settings.get("added_tokens_decoder")
    if not isinstance(decoder, dict):
        return
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": False}
    decoder |= {str(number): {"content": text, **flags} for text, number in ids.items()}
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
