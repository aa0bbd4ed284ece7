"""What `litft submit` is told. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from litft.config.answer import Precision
from litft.config.fields import REQUIRED, leaf, require_at_least
from litft.config.run import Quantize
from litft.errors import ConfigError

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
REVISION = re.compile(r"[\w./-]+")
IMAGE = re.compile(r"[\w./:@-]+")


@dataclass(frozen=True, kw_only=True)
class SubmittedConfig:
    """How the submitted model is served, and where it comes from."""

    precision: Precision | None = leaf(None, "of the server (default: that of the weights)")
    quantize: Quantize = leaf("none", "of the server: keep the linear layers of the blocks in 4 or 8 bits")
    max_seq_length: int | None = leaf(None, "of the server: most tokens of prompt and answer together")
    wrap_prompts: bool = leaf(False, "of the server: put each prompt into the checkpoint's prompt style")
    base_repo: str | None = leaf(None, "the base on the hub, ORG/NAME (default: told by the folder that was trained)")
    data_dir: Path | None = leaf(None, "the prepared data of the run (default: what the run says)")

    def __post_init__(self) -> None:
        """Refuses what is no repository, and lengths out of range.

        Raises:
            ConfigError: naming the field and its value.
        """
        require_repo("base_repo", self.base_repo)
        require_at_least("", self, {"max_seq_length": 2})

    def serve_flags(self) -> list[str]:
        """Gives the flags of `litft serve` that these fields are."""
        flags = ["--api", "challenge"]
        for name, default in {"precision": None, "quantize": "none", "max_seq_length": None}.items():
            if getattr(self, name) != default:
                flags += [f"--{name}", str(getattr(self, name))]
        return [*flags, "--wrap_prompts", "true"] if self.wrap_prompts else flags


@dataclass(frozen=True, kw_only=True)
class SubmitInitConfig(SubmittedConfig):
    """A finetuned checkpoint, and the folder that is handed in."""

    checkpoint_dir: Path = leaf(REQUIRED, "the final folder of a run, or what litft merge made of it")
    out_dir: Path = leaf(Path("submission"), "where the files go")
    weights_repo: str | None = leaf(
        None, "the model on the hub, ORG/NAME, fetched when the image is built (default: a folder mounted at /weights)"
    )
    weights_revision: str | None = leaf(None, "commit of weights_repo")
    base_revision: str | None = leaf(None, "commit of base_repo")
    base_image: str | None = leaf(None, "Docker image to build on (default: the Python of the run, Debian 12)")
    overwrite: bool = leaf(False, "replace a submission written there before")

    def __post_init__(self) -> None:
        """Refuses names that could not stand in a Dockerfile.

        Raises:
            ConfigError: naming the field and its value.
        """
        super().__post_init__()
        require_repo("weights_repo", self.weights_repo)
        patterns = {"weights_revision": REVISION, "base_revision": REVISION, "base_image": IMAGE}
        for name, pattern in patterns.items():
            value = getattr(self, name)
            if value is not None and not pattern.fullmatch(value):
                raise ConfigError(f'{name} is "{value}"; letters, digits and . / _ - : @ are what such a name has.')
        if self.weights_revision is not None and self.weights_repo is None:
            raise ConfigError("--weights_revision goes with --weights_repo.")


@dataclass(frozen=True, kw_only=True)
class SubmitCheckConfig(SubmittedConfig):
    """A checkpoint to be served and asked, or a server that runs."""

    checkpoint_dir: Path | None = leaf(None, "the checkpoint: it is served, and the rules are checked against its run")
    url: str | None = leaf(None, "ask this server instead of starting one: http://127.0.0.1:8080")
    timeout_seconds: float = leaf(300.0, "how long a reply may take; HELM waits 3000 s")
    out_file: Path | None = leaf(None, "also write what was found as JSON")

    def __post_init__(self) -> None:
        """Refuses nothing to check, flags without their partner, and numbers out of range.

        Raises:
            ConfigError: saying which to give, or naming the field and its value.
        """
        super().__post_init__()
        if self.checkpoint_dir is None and self.url is None:
            raise ConfigError("Give --checkpoint_dir (it is served here) or --url (a server that runs).")
        if self.url is not None:
            require_url(self.url)
            if len(self.serve_flags()) > 2:
                raise ConfigError(
                    "precision, quantize, max_seq_length and wrap_prompts are of a server that is started here; leave "
                    "them out with --url."
                )
        if self.out_file is not None and self.out_file.is_dir():
            raise ConfigError(f"out_file {self.out_file} is a folder; name a file.")
        if not self.timeout_seconds > 0:
            raise ConfigError(f"timeout_seconds is {self.timeout_seconds}; it must be above 0.")


def require_repo(name: str, value: str | None) -> None:
    """Refuses what is no repository of the hub; None passes.

    Raises:
        ConfigError: naming the field and its value.
    """
    if value is not None and not REPO_ID.fullmatch(value):
        raise ConfigError(f'{name} is "{value}"; it must be ORG/NAME as on the hub, such as mistralai/Mistral-7B-v0.1.')


def require_url(url: str) -> None:
    """Refuses what is no address of a server.

    Raises:
        ConfigError: naming it.
    """
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigError(f'url is "{url}"; it must be an address such as http://127.0.0.1:8080.')
