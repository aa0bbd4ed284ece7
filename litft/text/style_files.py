"""Which style a run or a checkpoint has: named by the user, saved beside the checkpoint, or its own chat template."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from litft.config.io import dump_yaml, load_yaml
from litft.errors import ConfigError, did_you_mean
from litft.text.encoding import Style
from litft.text.prompts import PromptStyle
from litft.text.settings import load_json, refuse_large
from litft.text.styles import ALPACA, STYLES
from litft.text.template import ChatTemplate
from litft.text.tokenizer import Tokenizer

STYLE_FILE = "prompt_style.yaml"


def style_named(name: str, tokenizer: Tokenizer) -> Style:
    """Gives the style that a user names: one of the table, or a file with a Jinja chat template.

    Args:
        name: a name of `STYLES`, or a path that ends in .jinja.
        tokenizer: of the model that is to be asked so.

    Raises:
        ConfigError: no style has this name, or the file cannot be used.
    """
    if name in STYLES:
        return STYLES[name]
    if not name.endswith(".jinja"):
        known = ", ".join(STYLES)
        hint = did_you_mean(name, STYLES)
        raise ConfigError(f'No prompt style "{name}"; there are {known}, and files of Jinja (NAME.jinja).{hint}')
    try:
        source = Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt_style {name} cannot be read: {error}.") from error
    return ChatTemplate.of(name, source, tokenizer)


def load_style(directory: Path) -> Style:
    """Gives the style of a checkpoint: the one saved beside it, else its chat template, else Alpaca's.

    Args:
        directory: holds the tokenizer too.

    Raises:
        ConfigError: prompt_style.yaml or the template is there and cannot be used.
        TokenizerError: there is a template and no tokenizer.
    """
    if (directory / STYLE_FILE).is_file():
        return saved_style(directory)
    found = find_template(directory)
    return ALPACA if found is None else ChatTemplate.of(found[0], found[1], Tokenizer(directory))


def saved_style(directory: Path) -> Style:
    """Gives the style saved beside a checkpoint.

    Raises:
        ConfigError: prompt_style.yaml cannot be used.
    """
    path = directory / STYLE_FILE
    try:
        return style_from_dict(load_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"The prompt style {path} cannot be used: {error}") from error


def style_from_dict(values: dict[str, Any]) -> Style:
    """Builds a style from what its `to_dict` gave.

    Raises:
        ConfigError: a key is unknown, missing or not of its type.
    """
    return ChatTemplate.from_dict(values) if "template" in values else PromptStyle.from_dict(values)


def find_template(directory: Path) -> tuple[str, str] | None:
    """Gives the chat template that a folder of Hugging Face's carries, and where it stands; None where there is none.

    Source: transformers: `chat_template.jinja`, else `chat_template` in tokenizer_config.json, which of several is the
        one called "default", or in chat_template.json.

    Raises:
        TokenizerError: a file is not JSON, or larger than any.
    """
    path = directory / "chat_template.jinja"
    if path.is_file():
        refuse_large(path)
        return str(path), path.read_text(encoding="utf-8", errors="replace")
    for name in ("tokenizer_config.json", "chat_template.json"):
        found = load_json(directory / name).get("chat_template")
        if isinstance(found, list):
            named = {str(each.get("name")): each.get("template") for each in found if isinstance(each, dict)}
            found = named.get("default")
        if isinstance(found, str) and found.strip():
            return f"chat_template of {directory / name}", found
    return None


def save_prompt_style(directory: Path, style: Style) -> None:
    """Writes the style beside a checkpoint, whole or not at all."""
    temporary = directory / f".{STYLE_FILE}.{os.getpid()}"
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(dump_yaml(style.to_dict()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / STYLE_FILE)
    finally:
        temporary.unlink(missing_ok=True)
