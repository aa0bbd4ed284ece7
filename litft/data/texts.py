"""What prepared rows say: the tokenizer and the style they were written with, and so what was asked and answered.

Knows no commands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from litft.checkpoint.files import CHECKPOINTS_DIR, resolve_checkpoint_dir
from litft.config.io import load_yaml
from litft.data.paths import MODEL_PLACE
from litft.data.store import MANIFEST_FILE, PreparedData, check_data_fits
from litft.data.vocabulary import TOKENIZER_DIR
from litft.errors import CheckpointError, ConfigError, DataError, TokenizerError
from litft.text.encoding import Style
from litft.text.frames import Frames, Said
from litft.text.style_files import style_from_dict
from litft.text.tokenizer import Tokenizer


def find_tokenizer(data: PreparedData, checkpoint_dir: Path | None) -> Tokenizer | None:
    """Opens the tokenizer beside the data, of the model named, or of the data's own model where it was.

    Args:
        data: prepared rows.
        checkpoint_dir: a model, as a user names it; None: nobody named one.

    Returns:
        None where nobody names one and none that fits is there.

    Raises:
        DataError: the data was made with another tokenizer.
        CheckpointError, TokenizerError: the model's folder or its tokenizer cannot be used.
    """
    named = None if checkpoint_dir is None else resolve_checkpoint_dir(checkpoint_dir)
    own = data.path.parent / TOKENIZER_DIR
    folder = own if own.is_dir() else named
    if folder is None:
        return _at_known_places(data)
    tokenizer = Tokenizer(folder)
    check_data_fits(data, tokenizer, folder)
    return tokenizer


def require_tokenizer(data: PreparedData, checkpoint_dir: Path | None) -> Tokenizer:
    """Opens the tokenizer as `find_tokenizer` does.

    Raises:
        DataError: it is not at hand; and as `find_tokenizer`.
    """
    tokenizer = find_tokenizer(data, checkpoint_dir)
    if tokenizer is None:
        raise DataError(f"The tokenizer of {data.path} is not at hand; {model_advice(data)}.")
    return tokenizer


def model_advice(data: PreparedData) -> str:
    """Says which flag names the model of rows whose tokenizer is not at hand."""
    return f"name its model with --checkpoint_dir FOLDER/{data.meta.get('checkpoint', 'MODEL')}"


def _at_known_places(data: PreparedData) -> Tokenizer | None:
    """Gives the tokenizer of the data's model if it is the same, and lies where it was or among the checkpoints."""
    wanted = data.meta.get("tokenizer", {}).get("hash")
    for folder in _places(data) if wanted is not None else ():
        try:
            tokenizer = Tokenizer(resolve_checkpoint_dir(folder))
        except (CheckpointError, TokenizerError):  # nobody named it now; it is only one where the tokenizer may be
            continue
        if tokenizer.hash == wanted:
            return tokenizer
    return None


def _places(data: PreparedData) -> Iterator[Path]:
    """Gives where the model of rows may be: where it was, and where `litft download` puts models."""
    manifest = data.path.parent / MANIFEST_FILE
    place = load_yaml(manifest).get(MODEL_PLACE) if manifest.is_file() else None
    if isinstance(place, str):
        yield Path(place)
    yield from (path for path in sorted(CHECKPOINTS_DIR.glob("*/*")) if path.name == data.meta.get("checkpoint"))


def saved_style(data: PreparedData) -> Style | None:
    """Gives the style that framed the rows; None where the file does not say.

    Raises:
        DataError: it cannot be used.
    """
    values = data.meta.get("prompt_style")
    if values is None:
        return None
    try:
        return style_from_dict(values)
    except ConfigError as error:
        raise DataError(f"The prompt style in {data.path} cannot be used ({error}); prepare the data again.") from error


class RowText(NamedTuple):
    """What a row says.

    Attributes:
        turns: what was asked and answered, by turns.
    """

    turns: tuple[Said, ...]

    @property
    def asked(self) -> str:
        """All that is no answer: system texts, questions and inputs."""
        return _joined(self.turns, is_answer=False)

    @property
    def answered(self) -> str:
        """All answers."""
        return _joined(self.turns, is_answer=True)

    @property
    def whole(self) -> str:
        """Questions and answers, in order."""
        return "\n\n".join(turn.text for turn in self.turns)


def _joined(turns: Sequence[Said], is_answer: bool) -> str:
    """Gives what one side says."""
    return "\n\n".join(turn.text for turn in turns if turn.is_answer == is_answer)


class TextReader:
    """Gives what rows say, frames and special tokens left out."""

    def __init__(self, data: PreparedData, tokenizer: Tokenizer) -> None:
        """Begins.

        Args:
            data: the rows.
            tokenizer: they were written with, as `require_tokenizer` gives it.

        Raises:
            DataError: the style that is saved with them cannot be used.
        """
        self._data = data
        self._frames = Frames(tokenizer, saved_style(data))

    def read(self, number: int) -> RowText:
        """Gives what one row says.

        Args:
            number: of the row, from 0.
        """
        ids, mask = self._data.row(number)
        return RowText(tuple(self._frames.said(ids.tolist(), mask.tolist())))
