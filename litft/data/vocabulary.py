"""The tokenizer that goes with prepared data, where it has tokens that the model has not: a folder beside train.pt.

Knows no rows and no weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from litft.checkpoint.disk import atomic_folder, read_json, write_json
from litft.checkpoint.files import copy_side_files
from litft.config.model import ModelConfig
from litft.families import family_of
from litft.text.new_tokens import NewTokens, add_tokens

TOKENIZER_DIR = "tokenizer"


def tokenizer_dir(data_dir: Path, checkpoint_dir: Path) -> Path:
    """Says where the tokenizer of prepared data stands: beside the data, or with the model."""
    own = data_dir / TOKENIZER_DIR
    return own if own.is_dir() else checkpoint_dir


def extend_tokenizer(checkpoint_dir: Path, folder: Path, texts: Sequence[str], model: ModelConfig) -> NewTokens:
    """Makes a copy of a model's tokenizer and descriptions that knows new tokens.

    Args:
        checkpoint_dir: the model's folder.
        folder: where the copy goes.
        texts: of the new tokens.
        model: its sizes; config.json of the copy counts the rows that the embedding will have.

    Raises:
        TokenizerError: the tokenizer cannot take these tokens.
    """
    copy_side_files(checkpoint_dir, folder)
    new = add_tokens(folder, texts)
    hf_config = read_json(folder / "config.json")
    hf_config = family_of(hf_config, model.name).config_out(hf_config)
    write_json(folder / "config.json", {**hf_config, "vocab_size": max(model.padded_vocab_size, new.vocab_size)})
    return new


def publish_tokenizer(folder: Path | None, data_dir: Path) -> None:
    """Puts the tokenizer beside the data, or removes that of former data.

    Args:
        folder: the extended tokenizer, if there is one.
        data_dir: exists.
    """
    target = data_dir / TOKENIZER_DIR
    if folder is None:
        shutil.rmtree(target, ignore_errors=True)
        return
    with atomic_folder(target) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
