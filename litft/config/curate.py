"""What `litft curate` is told. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from litft.config.answer import Precision
from litft.config.fields import REQUIRED, leaf, require_seed
from litft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Prepared rows, and the checkpoint that scores them."""

    data_dir: Path = leaf(REQUIRED, "prepared data; it is only read")
    checkpoint_dir: Path = leaf(
        REQUIRED, "the model that scores: converted, merged or finetuned, with the tokenizer of the data"
    )
    destination_path: Path = leaf(REQUIRED, "where the rows go with their scores; a killed run goes on there")
    by: Literal["ifd", "loss"] = leaf(
        "ifd",
        "loss: mean nats a token of the answers; ifd: that, divided by the same of the answers without their questions "
        "(near 1 and above, the question does not help; low, the model can do it already)",
    )
    micro_batch_size: int = leaf(4, "rows computed at once; changes speed and memory, not the scores")
    precision: Precision | None = leaf(None, "default: that of the weights; the loss is float32 in both")
    overwrite: bool = leaf(False, "replace finished data, or the begun scores of another model, at destination_path")

    def __post_init__(self) -> None:
        """Refuses batches of nothing.

        Raises:
            ConfigError: naming the value.
        """
        require_least(self, micro_batch_size=1)


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """A model behind an OpenAI-compatible endpoint."""

    endpoint: str | None = leaf(None, "address of an OpenAI-compatible server: http://localhost:8000/v1")
    model: str | None = leaf(None, "the model, as the endpoint calls it")
    api_key_env: str | None = leaf(
        None, "NAME of the environment variable that holds the key: OPENAI_API_KEY (default: no key is sent)"
    )
    requests_at_once: int = leaf(8, "requests to the endpoint that may be out at the same time")
    retries: int = leaf(6, "further attempts where the endpoint is busy, fails or is silent; the waits double from 1 s")
    timeout_seconds: float = leaf(120.0, "how long one request may take")

    def __post_init__(self) -> None:
        """Refuses addresses that hold secrets, keys in place of names, and numbers out of range.

        Raises:
            ConfigError: naming the field; a value that may be a secret is not shown.
        """
        if (self.endpoint is None) != (self.model is None):
            raise ConfigError("--endpoint and --model go together; give both.")
        if self.endpoint is not None:
            _check_endpoint(self.endpoint)
        if self.api_key_env is not None and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ConfigError("api_key_env is no NAME of an environment variable, such as OPENAI_API_KEY.")
        require_least(self, requests_at_once=1, retries=0, timeout_seconds=0.1)


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(EndpointConfig):
    """Prepared rows, and the endpoint whose model scores them."""

    data_dir: Path = leaf(REQUIRED, "prepared data; it is only read")
    endpoint: str = leaf(REQUIRED, "address of an OpenAI-compatible server: http://localhost:8000/v1")
    model: str = leaf(REQUIRED, "the model, as the endpoint calls it")
    destination_path: Path = leaf(REQUIRED, "where the rows go with their scores; a killed run goes on there")
    prompt: Path | None = leaf(
        None,
        "a text file that asks for a score from 0 to 5 on the first line, with {conversation}, or {question} and "
        "{answer}, where the row is to stand (default: a prompt in the manner of AlpaGasus)",
    )
    max_new_tokens: int = leaf(256, "longest reply in tokens")
    held_out: bool = leaf(True, "judge the rows of test.pt too")
    checkpoint_dir: Path | None = leaf(
        None,
        "a model with the tokenizer of the data (default: the one beside the data, else its model in checkpoints/)",
    )
    overwrite: bool = leaf(False, "replace finished data at destination_path; replies that are there are still used")

    def __post_init__(self) -> None:
        """Refuses replies of nothing.

        Raises:
            ConfigError: naming the value; and as for every endpoint.
        """
        super().__post_init__()
        require_least(self, max_new_tokens=1)


@dataclass(frozen=True, kw_only=True)
class AskConfig(EndpointConfig):
    """A model to be asked: a checkpoint on this machine, or one behind an endpoint; and where its rows go."""

    checkpoint_dir: Path | None = leaf(None, "a checkpoint of this machine to ask, in place of an endpoint")
    precision: Precision | None = leaf(None, "of the checkpoint (default: that of its weights)")
    chat: bool | None = leaf(
        None,
        "ask the checkpoint through its prompt style; false lets it continue the text (default: true where the folder "
        "has a style or a chat template, so false for most base models)",
    )
    out: Path = leaf(REQUIRED, "the JSON Lines to write; NAME.replies.jsonl beside it keeps every reply")
    overwrite: bool = leaf(False, "replace the file; replies that are there are still used")

    def __post_init__(self) -> None:
        """Refuses none or two models, and a name that is not one of JSON Lines.

        Raises:
            ConfigError: saying which to give; and as for every endpoint.
        """
        super().__post_init__()
        if (self.checkpoint_dir is None) == (self.endpoint is None):
            raise ConfigError("Give --checkpoint_dir (a model of this machine) or --endpoint and --model, one of them.")
        if self.out.suffix != ".jsonl":
            raise ConfigError(
                f"out is {self.out}; its name must end in .jsonl, such as {self.out.with_suffix('.jsonl')}."
            )


@dataclass(frozen=True, kw_only=True)
class GrowConfig(AskConfig):
    """Self-Instruct: new tasks from seeds."""

    seeds: Path = leaf(
        REQUIRED, 'tasks to begin with, 8 or more, as JSON Lines of {"instruction", "instances": [{"input", "output"}]}'
    )
    count: int = leaf(REQUIRED, "new tasks to come to, each with up to five rows")
    max_similarity: float = leaf(0.7, "ROUGE-L to any other task from which on a new one is dropped")
    temperature: float = leaf(0.7, "for new instructions, higher for more variety; instances take the likeliest tokens")
    top_p: float = leaf(0.5, "for new instructions, of the likeliest tokens those that together reach this probability")
    max_new_tokens: int = leaf(1024, "longest reply in tokens")
    patience: int = leaf(20, "ends after so many requests in a row that gave no new task")
    seed: int = leaf(42, "draws the tasks that are shown")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range; and as for every model that is asked.
        """
        super().__post_init__()
        require_seed(self.seed)
        require_least(self, count=1, max_new_tokens=1, patience=1, temperature=0)
        for name in ("max_similarity", "top_p"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0 and at most 1.")


@dataclass(frozen=True, kw_only=True)
class BacktranslateConfig(AskConfig):
    """Instruction backtranslation: instructions for texts that are there."""

    documents: Path = leaf(REQUIRED, 'texts, each to become an answer: JSON Lines of {"text"}, or plain text')
    score: bool = leaf(False, "have the same model rate each pair from 0 to 5, as litft curate judge asks for it")
    min_score: float | None = leaf(
        None, "lowest score of a pair that is kept, from 0 to 5; the paper keeps 4.5 and more"
    )
    temperature: float = leaf(0.0, "0 for the likeliest instruction; higher for more variety")
    max_new_tokens: int = leaf(256, "longest instruction in tokens")
    seed: int = leaf(42, "of the chance at a temperature above 0")

    def __post_init__(self) -> None:
        """Refuses numbers out of range, and a lowest score of what is not rated.

        Raises:
            ConfigError: naming the field; and as for every model that is asked.
        """
        super().__post_init__()
        require_seed(self.seed)
        require_least(self, max_new_tokens=1, temperature=0, min_score=0)
        if self.min_score is not None and (not self.score or self.min_score > 5):
            raise ConfigError(f"min_score is {self.min_score}; it may be up to 5, and needs --score true.")


def _check_endpoint(address: str) -> None:
    """Refuses what is no address, and what may hold a secret."""
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number
        raise ConfigError("endpoint is no address; write it as http://localhost:8000/v1.") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            "endpoint holds a user name, a password or a part behind ? or #, which would stand in files; leave it out, "
            "and name the environment variable of a key with --api_key_env."
        )
    if not is_address:
        raise ConfigError(f'endpoint is "{address}"; write an address such as http://localhost:8000/v1.')


def require_least(config: Any, **least: float) -> None:
    """Refuses numbers that are too small.

    Args:
        config: holds the fields.
        least: the smallest value of each; None as a value passes.

    Raises:
        ConfigError: naming the field, its value and the smallest.
    """
    for name, smallest in least.items():
        value = getattr(config, name)
        if value is not None and value < smallest:
            raise ConfigError(f"{name} is {value}; it must be at least {smallest:g}.")
