"""One tokenizer for every checkpoint folder, with the BOS and EOS rules its model was trained with.

Knows no prompt frames: it adds BOS and EOS where told, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path

from litft.errors import TokenizerError
from litft.text.backends import Backend, JsonBackend, PieceBackend, is_rank_file, open_pieces, special_pattern
from litft.text.conversation import Piece, Span
from litft.text.settings import BOS_BY_DEFAULT, CLASS_TOKENS, TokenizerSettings, load_settings
from litft.text.words import split_frame

# The end-of-text tokens of base models, for a bare tokenizer.json that nothing beside it explains.
KNOWN_EOS = ("</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>")

# Above this share of differing tokens, two files of one folder are not the same tokenizer.
DIFFERING_SHARE = 0.01


Pieces = Sequence[Piece]


class Tokenizer:
    """Text to ids and back, exactly as the checkpoint's own library does it.

    Attributes:
        bos_id, eos_id: ids of the tokens around a text; None where the model has none.
        stop_ids: every id at which generation ends.
        adds_bos: the model was trained with BOS before each text.
        vocab_size: tokens known, added ones included; embeddings may have more rows.
        kind: the tokenizer class the folder names, else its library.
        specials: text and id of each special token.
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
        self.specials = self._backend.specials
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

    def encode_pieces(self, texts: Sequence[Pieces], after: Sequence[str] | None = None) -> list[list[int]]:
        """Gives the ids of many texts, without BOS or EOS; special tokens count in their frames and not in the rest.

        Args:
            texts: each in pieces of the frame and of messages.
            after: what stands before each text: a special token, or anything else, since sentencepiece begins a text
                that stands alone as if a space stood before it. Empty where a text begins there; None: all do.

        Raises:
            TokenizerError: a text has half a character (a lone surrogate).
        """
        if after is None or not self._begins_with_space:
            return self._encode_pieces(texts)
        anchors = {before: self._anchored(before) for before in set(after)}
        encoded = self._encode_pieces([(*anchors[before][0], *text) for before, text in zip(after, texts, strict=True)])
        made = []
        for before, text, ids in zip(after, texts, encoded, strict=True):
            anchor = anchors[before][1]
            # Where the two have merged, the text is encoded as if it stood alone.
            made.append(ids[len(anchor) :] if ids[: len(anchor)] == anchor else self._encode_pieces([text])[0])
        return made

    def _anchored(self, before: str) -> tuple[Pieces, list[int]]:
        """Gives what is put before a text that stands behind another, and its ids; nothing where a text begins."""
        is_special = before in self.specials
        if not before or (is_special and not self._sees_specials_within):
            return (), []
        pieces = (Piece(before if is_special else self._anchor),)
        return pieces, self._encode_pieces([pieces])[0]

    @cached_property
    def _begins_with_space(self) -> bool:
        """Whether a text that stands alone begins with a space that nobody wrote."""
        alone, behind, anchor = self._backend.encode_literal(["a", f"{self._anchor}a", self._anchor])
        return behind != anchor + alone

    @cached_property
    def _anchor(self) -> str:
        """A text that stands for any other: the end of a line, or, where that is a space to the library, a bracket."""
        return "\n" if self._backend.encode_literal(["\n"])[0] else ")"

    @cached_property
    def _sees_specials_within(self) -> bool:
        """Whether a special token is seen right behind a text. Llama 2's first tokenizer.json does not.

        That file stands for a tokenizer which begins each text between special tokens with a space; so a text behind
        one is encoded as if it stood alone.
        """
        end = "" if self.eos_id is None else self.token_text(self.eos_id)
        return self._backend.encode_marked([f"a{end}"])[0][-1] == self.eos_id

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        """What finds special tokens in a text."""
        return special_pattern(self.specials)

    def special_at_end(self, text: str) -> str:
        """Gives the special token that ends a text of a frame; nothing where none does."""
        return next((found[0] for found in self._special_pattern.finditer(text) if found.end() == len(text)), "")

    def _encode_pieces(self, texts: Sequence[Pieces]) -> list[list[int]]:
        """Encodes texts that stand alone."""
        runs = [self._in_two(pieces, self._runs(pieces)) for pieces in texts]
        flat = list(chain.from_iterable(runs))
        literal = iter(self._backend.encode_literal([text for text, is_marked in flat if not is_marked]))
        marked = iter(self._backend.encode_marked([text for text, is_marked in flat if is_marked]))
        encoded = iter([next(marked if is_marked else literal) for _, is_marked in flat])
        return [
            next(encoded) if len(each) == 1 else list(chain.from_iterable(islice(encoded, len(each)))) for each in runs
        ]

    def _in_two(self, pieces: Pieces, runs: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """Parts a plain text within its frame, where words are encoded apart: other texts begin just so."""
        [(text, is_marked), *others] = runs
        if not self._backend.is_by_words or others or is_marked or not pieces or pieces[0].message is not None:
            return runs
        head, _ = split_frame(pieces[0].text)
        return [(head, False), (text[len(head) + 1 :], False)] if head else runs

    def _runs(self, pieces: Pieces) -> list[tuple[str, bool]]:
        """Gives a text in runs to be encoded one by one, and whether special tokens count in each.

        One run is enough but where a message writes out a special token, which is to stay ordinary characters.
        """
        text = "".join([piece.text for piece in pieces])
        _check_text(text)
        pattern = self._special_pattern
        if pattern.search(text) is None:
            return [(text, False)]
        if len(pattern.findall(text)) == sum(
            len(pattern.findall(piece.text)) for piece in pieces if piece.message is None
        ):
            return [(text, True)]
        runs: list[tuple[str, bool]] = [("", False)]
        for said, message in pieces:
            for index, part in enumerate(pattern.split(said) if message is None else [said]):
                if index % 2:
                    runs += [(part, True), ("", False)]
                else:
                    runs[-1] = (runs[-1][0] + part, False)
        return [run for run in runs if run[0]]

    def spans(self, pieces: Pieces, before: str = "") -> list[Span]:
        """Gives which characters of a text each of its ids stands for, from the first to behind the last.

        Args:
            pieces, before: a text as `encode_pieces` takes it.

        Raises:
            TokenizerError: the tokenizer rewrites texts, so that nobody can tell.
        """
        [ids] = self.encode_pieces([pieces], [before])
        choices = [(Piece(text), *pieces) for text in (before, self._anchor) if before] + [pieces]
        for each in choices:
            found, place = [], -len(each[0].text) if len(each) > len(pieces) else 0
            for text, is_marked in self._runs(each):
                found += [(place + begin, place + end) for begin, end in self._backend.spans(text, is_marked)]
                place += len(text)
            if ids == self._encode_pieces([each])[0][len(found) - len(ids) :]:
                return found[len(found) - len(ids) :]
        raise AssertionError("a text is not encoded as before")

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

    def decode_within(self, ids: Sequence[int]) -> str:
        """Gives the text of ids that stand behind others, as `decode` does; it keeps the space it begins with.

        Args:
            ids: non-negative ids.
        """
        before, length = self._text_before
        return self.decode([*before, *ids])[length:]

    @cached_property
    def _text_before(self) -> tuple[list[int], int]:
        """Ids of a text to stand before others, and how many characters it has."""
        ids = self.encode_batch(["a"])[0]
        return ids, len(self.decode(ids))


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
