"""What `litft convert from_hf` and `litft convert to_hf` are told. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from litft.config.fields import REQUIRED, leaf
from litft.errors import ConfigError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, kw_only=True)
class FromHfConfig:
    """A conversion of downloaded weights into litft's layout, in the same folder."""

    checkpoint_dir: Path = leaf(REQUIRED, "the downloaded model, a folder or ORG/NAME under checkpoints/")
    overwrite: bool = leaf(False, "convert again where a finished conversion is newer than its sources")


@dataclass(frozen=True, kw_only=True)
class ToHfConfig:
    """A conversion of litft's weights into a folder that transformers loads."""

    checkpoint_dir: Path = leaf(REQUIRED, "a converted or finetuned model, a folder or ORG/NAME under checkpoints/")
    out_dir: Path = leaf(REQUIRED, "where the Hugging Face folder goes")
    max_shard_size: str = leaf("5GB", "largest weight file: bytes, or with KB, MB, GB, KiB, MiB, GiB")
    overwrite: bool = leaf(False, "replace the weights in an out_dir that is not empty")

    def __post_init__(self) -> None:
        """Refuses a size that cannot be meant.

        Raises:
            ConfigError: naming the value and what is accepted.
        """
        if self.max_shard_bytes < 1:
            raise ConfigError(f'max_shard_size is "{self.max_shard_size}"; it must be at least one byte.')

    @property
    def max_shard_bytes(self) -> int:
        """The largest weight file in bytes.

        Raises:
            ConfigError: `max_shard_size` is not a size.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?B)?", str(self.max_shard_size).strip().upper())
        if match is None:
            raise ConfigError(f'max_shard_size is "{self.max_shard_size}"; write a size such as 5GB or 500MB.')
        return int(float(match[1]) * _UNITS[match[2] or ""])
