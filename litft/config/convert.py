"""What the `litft convert` commands are told. Knows no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.export import CERTIFICATE_HELP, Certificate
from litft.config.fields import REQUIRED, leaf
from litft.errors import ConfigError

# Which release wrote a file of LoRA or adapters; they laid out its rows differently.
LitGPTVersion = Literal["auto", "lit-gpt-2023", "litgpt-0.2", "litgpt-0.5.5"]

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, kw_only=True)
class FromHfConfig:
    """A conversion of downloaded weights into litft's layout, in the same folder."""

    checkpoint_dir: Path = leaf(REQUIRED, "the downloaded model, a folder or ORG/NAME under checkpoints/")
    overwrite: bool = leaf(False, "convert again where a finished conversion is newer than its sources")


@dataclass(frozen=True, kw_only=True)
class FromLitGPTConfig:
    """A conversion of a model, or of what a finetuning run trained, from Lit-GPT or litgpt."""

    checkpoint_dir: Path = leaf(REQUIRED, "the folder with lit_model.pth, or with the .pth file of a finetuning run")
    out_dir: Path = leaf(REQUIRED, "where the litft checkpoint goes")
    checkpoint_file: str | None = leaf(None, "the .pth file in it (default: the only one of its kind)")
    base_dir: Path | None = leaf(None, "for LoRA and adapters: the model they were trained on, converted by litft")
    lora_alpha: float | None = leaf(None, "alpha of a LoRA run whose folder has no hyperparameters.yaml")
    lora_targets: tuple[str, ...] = leaf((), "its targets in attention, among q, k, v, where its file cannot tell")
    version: LitGPTVersion = leaf("auto", "which release trained LoRA or adapters (see tutorials); auto tells by names")
    overwrite: bool = leaf(False, "replace a former result of this command")

    def __post_init__(self) -> None:
        """Refuses an alpha and targets that cannot be meant.

        Raises:
            ConfigError: naming the field, its value and what is accepted.
        """
        if self.lora_alpha is not None and self.lora_alpha <= 0:
            raise ConfigError(f"lora_alpha is {self.lora_alpha}; it must be above 0.")
        if not set(self.lora_targets) <= set("qkv"):
            raise ConfigError(f"lora_targets is {','.join(self.lora_targets)}; name some of q, k and v.")


@dataclass(frozen=True, kw_only=True)
class ToHfConfig:
    """A conversion of litft's weights into a folder that transformers loads; LoRA is merged on the way."""

    checkpoint_dir: Path = leaf(
        REQUIRED, "a converted, merged or finetuned model, a folder or ORG/NAME under checkpoints/"
    )
    out_dir: Path = leaf(REQUIRED, "where the Hugging Face folder goes")
    max_shard_size: str = leaf("5GB", "largest weight file: bytes, or with KB, MB, GB, KiB, MiB, GiB")
    certificate: Certificate = leaf("auto", CERTIFICATE_HELP)
    overwrite: bool = leaf(False, "replace an export written there before")

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
