"""One tokenizer for every checkpoint folder, with the BOS and EOS rules its model was trained with.

Knows no prompt frames: it adds BOS and EOS where told, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from litft.errors import TokenizerError
from litft.text.backends import Backend, JsonBackend, PieceBackend, is_rank_file, open_pieces, special_pattern
from litft.text.settings import BOS_BY_DEFAULT, CLASS_TOKENS, TokenizerSettings, load_settings

# The end-of-text tokens of base models, for a bare tokenizer.json that nothing beside it explains.
KNOWN_EOS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>")

# Above this share of differing tokens, two files of one folder are not the same tokenizer.
DIFFERING_SHARE = 0.01


# A text in pieces, and whether each is of the frame around what a person wrote.
Segments = Sequence[tuple[str, bool]]


class Tokenizer:
    """Text to ids and back, exactly as the checkpoint's own library does it.

    Attributes:
        bos_id, eos_id: ids of the tokens around a text; None where the model has none.
        stop_ids: every id at which generation ends.
        adds_bos: the model was trained with BOS before each text.
        vocab_size: tokens known, added ones included; embeddings may have more rows.
        kind: the tokenizer class the folder names, else its library.
        hash: sha256 over all that decides ids, 64 hex digits.
    """

    def __init__(self, checkpoint_dir: Path) -> None:
        """Opens the tokenizer of a folder.

        Args:
            checkpoint_dir: holds tokenizer.json or tokenizer.model, and the JSON files that go with them.

        Raises:
            TokenizerError: no tokenizer is there, or its files are damaged or contradict each other.
        """
        settings = load_settings(checkpoint_dir)
        self._backend = _open_backend(checkpoint_dir, settings)
        self.kind = settings.kind or type(self._backend).__name__.removesuffix("Backend")
        self.vocab_size = self._backend.vocab_size
        self.bos_id = _bos_id(self._backend, settings)
        self.eos_id = _eos_id(self._backend, settings)
        self.adds_bos = _adds_bos(self._backend, settings, self.bos_id)
        # A default left in config.json may name an ordinary word; nobody ends a text on that.
        listed = {number for number in settings.eos_ids if number in self._backend.special_ids}
        self.stop_ids = frozenset(listed | ({self.eos_id} if self.eos_id is not None else set()))
        self._silent = self._backend.special_ids | {self.bos_id, self.eos_id}
        self.hash = self._hash(settings)

    def _hash(self, settings: TokenizerSettings) -> str:
        """Hashes the deciding file and what the other files change of it."""
        added = settings.added if isinstance(self._backend, PieceBackend) else {}
        rules = [self._backend.path.name, self.bos_id, self.eos_id, self.adds_bos, sorted(added.items())]
        digest = hashlib.sha256(self._backend.path.read_bytes())
        digest.update(json.dumps(rules).encode())
        return digest.hexdigest()

    def encode(self, text: str, *, bos: bool | None = None, eos: bool = False) -> list[int]:
        """Gives the ids of one text; special tokens written in it, such as `</s>`, count as such.

        Args:
            text: any text.
            bos: put BOS before it; None: as the model was trained. A text that begins with BOS gets no second one.
            eos: put EOS behind it.

        Raises:
            TokenizerError: the tokenizer has no such token, or the text has half a character (a lone surrogate).
        """
        _check_text(text)
        [ids] = self._backend.encode_marked([text])
        if self.adds_bos if bos is None else bos:
            ids = self.with_bos(ids)
        return [*ids, self.require_eos()] if eos else ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Gives the ids of many texts, in threads of the library, without BOS or EOS.

        The texts are data: `</s>` in one is five characters and ends nothing.

        Raises:
            TokenizerError: a text has half a character (a lone surrogate).
        """
        for text in texts:
            _check_text(text)
        return self._backend.encode_literal(texts)

    def encode_framed(self, texts: Sequence[Segments]) -> list[list[int]]:
        """Gives the ids of many texts, without BOS or EOS; special tokens count in their frames and not in the rest.

        Args:
            texts: each a sequence of pieces, and whether a piece is of the frame.

        Raises:
            TokenizerError: a text has half a character (a lone surrogate).
        """
        joined = ["".join(piece for piece, _ in segments) for segments in texts]
        for text in joined:
            _check_text(text)
        find = special_pattern(self._backend.specials).findall
        ids: dict[int, list[int]] = {}
        clean, framed = [], []
        for index, (text, segments) in enumerate(zip(joined, texts, strict=True)):
            count = len(find(text))
            if not count:
                clean.append(index)
            elif count == sum(len(find(piece)) for piece, is_frame in segments if is_frame):
                framed.append(index)
            else:
                ids[index] = self._encode_apart(segments)
        ids |= dict(zip(clean, self._backend.encode_literal([joined[index] for index in clean]), strict=True))
        ids |= dict(zip(framed, self._backend.encode_marked([joined[index] for index in framed]), strict=True))
        return [ids[index] for index in range(len(texts))]

    def _encode_apart(self, segments: Segments) -> list[int]:
        """Encodes a text whose contents write out a special token, which is to stay ordinary characters."""
        specials, runs = self._backend.specials, [""]
        for piece, is_frame in segments:
            for part in special_pattern(specials).split(piece) if is_frame else [piece]:
                if is_frame and part in specials:
                    runs += [part, ""]
                else:
                    runs[-1] += part
        texts = iter(self._backend.encode_literal([run for run in runs[::2] if run]))
        ids: list[int] = []
        for index, run in enumerate(runs):
            ids += [specials[run]] if index % 2 else next(texts) if run else []
        return ids

    def with_bos(self, ids: list[int]) -> list[int]:
        """Gives the ids with exactly one BOS before them.

        Raises:
            TokenizerError: the tokenizer has no BOS.
        """
        if self.bos_id is None:
            raise TokenizerError(f"The tokenizer {self._backend.path} has no BOS token.")
        return ids if ids[:1] == [self.bos_id] else [self.bos_id, *ids]

    def require_eos(self) -> int:
        """Gives the id that ends an answer.

        Raises:
            TokenizerError: the tokenizer has none.
        """
        if self.eos_id is None:
            raise TokenizerError(
                f"The tokenizer {self._backend.path} has no EOS token, so no answer could end; "
                f"name it as eos_token in {self._backend.path.parent / 'tokenizer_config.json'}."
            )
        return self.eos_id

    def id_of(self, token: str) -> int | None:
        """Gives the id of one token by its text as the file writes it; None when there is none."""
        return self._backend.id_of(token)

    def token_text(self, number: int) -> str:
        """Gives one token as its file writes it, such as `</s>`; `encode` reads it back where it is a special one."""
        return self._backend.text_of(number)

    def decode(self, ids: Sequence[int]) -> str:
        """Gives the text of ids; BOS, EOS, other special tokens and ids beyond the vocabulary give nothing.

        Sentencepiece tokenizers drop the space before the first word: to continue a text, decode both together.

        Args:
            ids: non-negative ids.
        """
        return self._backend.decode([int(number) for number in ids if int(number) not in self._silent])


def _open_backend(directory: Path, settings: TokenizerSettings) -> Backend:
    """Chooses the file: tokenizer.json where there is one, unless the folder asks for the other."""
    json_path, model_path = directory / "tokenizer.json", directory / "tokenizer.model"
    has_pieces = model_path.is_file() and not is_rank_file(model_path)
    if json_path.is_file() and not (settings.wants_slow and has_pieces):
        backend = JsonBackend(json_path)
        if has_pieces:
            _refuse_contradiction(backend, model_path)
        return backend
    if model_path.is_file():
        return PieceBackend(model_path, settings.added)
    raise TokenizerError(
        f"{directory} has no tokenizer: neither tokenizer.json nor tokenizer.model is there; download the model again."
    )


def _refuse_contradiction(backend: JsonBackend, model_path: Path) -> None:
    """Refuses a folder whose two files come from different models."""
    pieces = open_pieces(model_path)
    size = pieces.get_piece_size()
    differing = sum(backend.id_of(pieces.id_to_piece(number)) != number for number in range(size))
    if differing > DIFFERING_SHARE * size:
        raise TokenizerError(
            f"{backend.path} and {model_path} are different tokenizers ({differing} of {size} tokens differ); "
            "remove the one that is not this model's."
        )


def _bos_id(backend: Backend, settings: TokenizerSettings) -> int | None:
    """Finds BOS: by its name, its class, by what the file puts first, its own word, the ids in JSON files."""
    if settings.bos_token is not None:
        return _named_id(backend, settings.bos_token, "bos_token")
    if settings.bos_is_null:
        return None
    usual = backend.id_of(CLASS_TOKENS.get(settings.kind or "", ("", ""))[0])
    if usual is not None:
        return usual
    if backend.prefix or backend.bos_id is not None:
        return backend.prefix[0] if backend.prefix else backend.bos_id
    if settings.is_described:
        return None
    return next((number for number in settings.bos_ids if number in backend.special_ids), None)


def _eos_id(backend: Backend, settings: TokenizerSettings) -> int | None:
    """Finds EOS: by its name, its class, by the ids in JSON files, its own word, the names base models use."""
    if settings.eos_token is not None:
        return _named_id(backend, settings.eos_token, "eos_token")
    usual = backend.id_of(CLASS_TOKENS.get(settings.kind or "", ("", ""))[1])
    if usual is not None:
        return usual
    listed = [number for number in settings.eos_ids if number in backend.special_ids]
    if listed or backend.eos_id is not None:
        return listed[0] if listed else backend.eos_id
    known = {backend.id_of(token) for token in KNOWN_EOS} & backend.special_ids
    return known.pop() if len(known) == 1 else None


def _named_id(backend: Backend, token: str, key: str) -> int:
    """Gives the id of a token that a JSON file names."""
    number = backend.id_of(token)
    if number is None:
        raise TokenizerError(
            f'{key} is "{token}" in the JSON files of {backend.path.parent}, but {backend.path.name} has no such '
            "token; the files are not of one model, download it again."
        )
    return number


def _adds_bos(backend: Backend, settings: TokenizerSettings, bos_id: int | None) -> bool:
    """Says whether texts begin with BOS.

    Source: transformers 4: the flag, or its class's default, rules in named classes and sentencepiece; the generic
    `PreTrainedTokenizerFast`, and a tokenizer.json that stands alone, follow their post-processor.
    """
    is_generic = isinstance(backend, JsonBackend) and settings.kind in (None, "PreTrainedTokenizer")
    if settings.add_bos_token is not None and not is_generic:
        if settings.add_bos_token and bos_id is None:
            raise TokenizerError(
                f"{backend.path.parent / 'tokenizer_config.json'} says add_bos_token, but names no bos_token; name it."
            )
        return settings.add_bos_token
    if isinstance(backend, PieceBackend) or settings.kind in BOS_BY_DEFAULT:
        return bos_id is not None
    return bos_id is not None and backend.prefix[:1] == [bos_id]


def _check_text(text: str) -> None:
    """Refuses half characters, on which the libraries fail without a sentence."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"The text has half a character (a lone surrogate) at position {error.start}; remove it."
        ) from error
