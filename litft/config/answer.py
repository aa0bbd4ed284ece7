"""What `generate`, `merge` and `demo` are told. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.export import CERTIFICATE_HELP, Certificate
from litft.config.fields import REQUIRED, leaf, require_seed
from litft.config.run import Quantize
from litft.errors import ConfigError

Precision = Literal["bf16-true", "32-true"]


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """One answer: the prompt as it is, or an instruction through the checkpoint's prompt style."""

    checkpoint_dir: Path = leaf(REQUIRED, "a converted, merged or finetuned checkpoint")
    prompt: str | None = leaf(None, "text to continue, fed as it is", verbatim=True)
    instruction: str | None = leaf(
        None, "what to do, put into the prompt style saved with the checkpoint", verbatim=True
    )
    input: str = leaf("", "further context of the instruction", verbatim=True)
    max_new_tokens: int = leaf(200, "longest answer in tokens")
    temperature: float = leaf(0.8, "0 for the likeliest token every time; higher for more variety")
    top_k: int | None = leaf(50, "choose among this many likeliest tokens; null for all")
    top_p: float | None = leaf(None, "choose among the likeliest tokens that together reach this probability")
    stop: tuple[str, ...] = leaf((), 'texts at which the answer ends, left out: a,b or ["a", "b"]', verbatim=True)
    seed: int | None = leaf(None, "the same seed gives the same answer")
    precision: Precision | None = leaf(None, "default: that of the weights")
    quantize: Quantize = leaf("none", "keep the linear layers of the blocks in 4 or 8 bits, as in litft finetune")

    def __post_init__(self) -> None:
        """Refuses a request without exactly one of prompt and instruction, and numbers out of range.

        Raises:
            ConfigError: saying which to give, or naming the field, its value and its range.
        """
        if (self.prompt is None) == (self.instruction is None):
            raise ConfigError("Give --prompt (fed as it is) or --instruction (through the prompt style), one of them.")
        if self.input and self.instruction is None:
            raise ConfigError("--input goes with --instruction.")
        if "" in self.stop:
            raise ConfigError("stop has an empty text; every answer would end at once.")
        for name, least in {"max_new_tokens": 1, "temperature": 0, "top_k": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; it must be at least {least}.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        require_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """LoRA adapters into their base."""

    checkpoint_dir: Path = leaf(REQUIRED, "the final folder of a LoRA run")
    out_dir: Path | None = leaf(None, "where the whole model goes (default: merged, beside final)")
    certificate: Certificate = leaf("auto", CERTIFICATE_HELP)
    overwrite: bool = leaf(False, "replace a merge written there before")


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The whole way on the tiny model inside the package."""

    out_dir: Path = leaf(Path("out/demo"), "where everything is written; a former demo there is replaced")
