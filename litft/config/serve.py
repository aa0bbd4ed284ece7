"""What `serve` is told. Knows no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from litft.config.answer import DRAFT_HELP, DRAFT_TOKENS_HELP, Precision
from litft.config.fields import REQUIRED, leaf, require_at_least
from litft.config.run import Quantize
from litft.errors import ConfigError, did_you_mean

APIS = ("openai", "challenge")
LAST_PORT = 65535

# Of a model that reads more, a slot is made for this much: keys and values of 128k tokens fill a card.
USUAL_ROOM = 4096


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """One checkpoint behind HTTP."""

    checkpoint_dir: Path = leaf(REQUIRED, "a converted, merged or finetuned checkpoint")
    host: str = leaf("127.0.0.1", "address to listen at; 0.0.0.0 lets other machines in")
    port: int = leaf(8000, "0 takes a free one and says which")
    api: tuple[str, ...] = leaf(APIS, f"what is answered: {' and '.join(APIS)} (the NeurIPS LLM Efficiency Challenge)")
    name: str | None = leaf(None, "what clients call the model (default: the folder's name)")
    precision: Precision | None = leaf(None, "default: that of the weights")
    quantize: Quantize = leaf("none", "keep the linear layers of the blocks in 4 or 8 bits, as in litft finetune")
    draft_dir: Path | None = leaf(None, DRAFT_HELP)
    draft_tokens: int = leaf(4, DRAFT_TOKENS_HELP)
    slots: int = leaf(16, "requests that are answered at the same time; each takes memory for max_seq_length tokens")
    max_seq_length: int | None = leaf(
        None, f"most tokens of prompt and answer together (default: the model's context, at most {USUAL_ROOM})"
    )
    max_new_tokens: int | None = leaf(None, "most tokens of an answer; null for all that is left of max_seq_length")
    max_waiting: int = leaf(64, "answers that may wait for a slot; more are refused with 429")
    max_body_mb: int = leaf(4, "largest request in MB")
    shutdown_seconds: float = leaf(30.0, "how long running requests may take to end once the server is stopped")
    api_key_env: str | None = leaf(None, "environment variable with the key that clients must send")
    wrap_prompts: bool = leaf(False, "put prompts to /process into the checkpoint's prompt style")
    access_log: bool = leaf(True, "one line a request, on stderr")
    log_prompts: bool = leaf(False, "write prompts into that line")

    def __post_init__(self) -> None:
        """Refuses an unknown API and numbers out of range.

        Raises:
            ConfigError: naming the field, its value and what it may be.
        """
        for name in self.api:
            if name not in APIS:
                raise ConfigError(f'api has "{name}"; there are {", ".join(APIS)}.{did_you_mean(name, APIS)}')
        if not self.api:
            raise ConfigError(f"api is empty; give one or more of {', '.join(APIS)}.")
        least = {
            "slots": 1,
            "max_seq_length": 2,
            "max_new_tokens": 1,
            "max_waiting": 0,
            "max_body_mb": 1,
            "draft_tokens": 1,
        }
        require_at_least("", self, {**least, "shutdown_seconds": 0})
        if not 0 <= self.port <= LAST_PORT:
            raise ConfigError(f"port is {self.port}; it must be from 0 to {LAST_PORT}.")

    def read_key(self) -> str | None:
        """Gives the key that clients must send; None where they need none.

        Raises:
            ConfigError: the variable is not set, or holds what no header can.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ConfigError(f"The environment variable {self.api_key_env}, which api_key_env names, is not set.")
        if not key.isascii() or not key.isprintable():
            raise ConfigError(f"The environment variable {self.api_key_env} holds characters that no key has.")
        return key
