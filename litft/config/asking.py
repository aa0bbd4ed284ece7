"""Which model a command is to ask, and how patiently. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from litft.config.answer import Precision
from litft.config.fields import leaf, require_at_least
from litft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PatienceConfig:
    """How requests to an endpoint are sent."""

    api_key_env: str | None = leaf(
        None, "NAME of the environment variable that holds the key: OPENAI_API_KEY (default: no key is sent)"
    )
    requests_at_once: int = leaf(8, "requests to the endpoint that may be out at the same time")
    retries: int = leaf(6, "further attempts where the endpoint is busy, fails or is silent; the waits double from 1 s")
    timeout_seconds: float = leaf(120.0, "how long one request may take")

    def __post_init__(self) -> None:
        """Refuses keys in place of names, and numbers out of range.

        Raises:
            ConfigError: naming the field; a value that may be a secret is not shown.
        """
        if self.api_key_env is not None and not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.api_key_env):
            raise ConfigError("api_key_env is no NAME of an environment variable, such as OPENAI_API_KEY.")
        require_at_least("", self, {"requests_at_once": 1, "retries": 0, "timeout_seconds": 0.1})


@dataclass(frozen=True, kw_only=True)
class EndpointConfig(PatienceConfig):
    """A model behind an OpenAI-compatible endpoint."""

    endpoint: str | None = leaf(None, "address of an OpenAI-compatible server: http://localhost:8000/v1")
    model: str | None = leaf(None, "the model, as the endpoint calls it")

    def __post_init__(self) -> None:
        """Refuses addresses that hold secrets.

        Raises:
            ConfigError: naming the field; and as for all requests.
        """
        if (self.endpoint is None) != (self.model is None):
            raise ConfigError("--endpoint and --model go together; give both.")
        if self.endpoint is not None:
            _check_endpoint(self.endpoint)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class AskedConfig(EndpointConfig):
    """A model to be asked: a checkpoint on this machine, or one behind an endpoint."""

    checkpoint_dir: Path | None = leaf(None, "a checkpoint of this machine to ask, in place of an endpoint")
    precision: Precision | None = leaf(None, "of the checkpoint (default: that of its weights)")
    chat: bool | None = leaf(
        None,
        "ask the checkpoint through its prompt style; false lets it continue the text (default: true where the folder "
        "has a style or a chat template, so false for most base models)",
    )

    def __post_init__(self) -> None:
        """Refuses none or two models.

        Raises:
            ConfigError: saying which to give; and as for every endpoint.
        """
        super().__post_init__()
        if (self.checkpoint_dir is None) == (self.endpoint is None):
            raise ConfigError("Give --checkpoint_dir (a model of this machine) or --endpoint and --model, one of them.")


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
