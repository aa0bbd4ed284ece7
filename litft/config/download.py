"""What `litft download` is told. Knows no torch and no hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from litft.config.fields import REQUIRED, leaf
from litft.errors import ConfigError

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """One model to fetch from the hub."""

    repo_id: str = leaf(REQUIRED, "the model on the hub, ORG/NAME")
    # Written out rather than with leaf(): a secret must not stand in the repr of the config.
    access_token: str | None = field(
        default=None,
        repr=False,
        metadata={"help": "token for gated models (default: HF_TOKEN, or that of `hf auth login`)", "secret": True},
    )
    revision: str | None = leaf(None, "branch, tag or commit (default: main)")
    tokenizer_only: bool = leaf(False, "fetch the tokenizer and config files, not the weights")
    checkpoint_dir: Path = leaf(Path("checkpoints"), "the folder under which ORG/NAME is made")
    convert: bool = leaf(True, "convert the weights to litft's layout afterwards")
    overwrite: bool = leaf(False, "fetch and convert again what is there already")

    def __post_init__(self) -> None:
        """Refuses names that are not ORG/NAME, and so could leave the folder.

        Raises:
            ConfigError: naming the value.
        """
        if not _REPO_ID.fullmatch(self.repo_id) or ".." in self.repo_id or "--" in self.repo_id:
            raise ConfigError(
                f'repo_id is "{self.repo_id}"; it must be ORG/NAME as on the hub, such as meta-llama/Llama-2-7b-hf.'
            )

    @property
    def target_dir(self) -> Path:
        """The folder the model goes to."""
        return self.checkpoint_dir / self.repo_id
