"""What `generate`, `chat`, `merge` and `demo` are told. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.export import CERTIFICATE_HELP, Certificate
from litft.config.fields import REQUIRED, leaf, require_at_least, require_seed
from litft.config.run import Quantize
from litft.errors import ConfigError

Precision = Literal["bf16-true", "32-true"]

DRAFT_HELP = (
    "a smaller checkpoint with the same tokenizer that guesses ahead; answers stay the model's, and come faster"
)
DRAFT_TOKENS_HELP = "how many tokens draft_dir guesses at a time"


@dataclass(frozen=True, kw_only=True)
class AnsweringConfig:
    """A checkpoint, and how each token of an answer is chosen."""

    checkpoint_dir: Path = leaf(REQUIRED, "a converted, merged or finetuned checkpoint")
    max_new_tokens: int = leaf(200, "longest answer in tokens")
    temperature: float = leaf(0.8, "0 for the likeliest token every time; higher for more variety")
    top_k: int | None = leaf(50, "choose among this many likeliest tokens; null for all")
    top_p: float | None = leaf(None, "choose among the likeliest tokens that together reach this probability")
    min_p: float | None = leaf(None, "choose among tokens with at least this share of the likeliest one's probability")
    repetition_penalty: float = leaf(1.0, "above 1 makes tokens of the prompt and the answer less likely to come again")
    stop: tuple[str, ...] = leaf((), 'texts at which the answer ends, left out: a,b or ["a", "b"]', verbatim=True)
    seed: int | None = leaf(None, "the same seed gives the same answer")
    precision: Precision | None = leaf(None, "default: that of the weights")
    quantize: Quantize = leaf("none", "keep the linear layers of the blocks in 4 or 8 bits, as in litft finetune")
    draft_dir: Path | None = leaf(None, DRAFT_HELP)
    draft_tokens: int = leaf(4, DRAFT_TOKENS_HELP)

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        if "" in self.stop:
            raise ConfigError("stop has an empty text; every answer would end at once.")
        require_at_least("", self, {"max_new_tokens": 1, "temperature": 0, "top_k": 1, "draft_tokens": 1})
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must be above 0 and at most 1.")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ConfigError(f"min_p is {self.min_p}; it must be from 0 to 1.")
        if not self.repetition_penalty > 0:
            raise ConfigError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0.")
        require_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(AnsweringConfig):
    """Answers: to a prompt as it is, to an instruction through the checkpoint's prompt style, or to a file of them."""

    prompt: str | None = leaf(None, "text to continue, fed as it is", verbatim=True)
    instruction: str | None = leaf(
        None, "what to do, put into the prompt style saved with the checkpoint", verbatim=True
    )
    input: str = leaf("", "further context of the instruction", verbatim=True)
    prompt_file: Path | None = leaf(
        None,
        "what to answer: JSON Lines, each with prompt, with messages, or with instruction and maybe input; or plain "
        "text with a prompt a line",
    )
    out_file: Path | None = leaf(None, "where the answered lines of prompt_file go; the same command goes on")
    overwrite: bool = leaf(False, "replace out_file")
    num_samples: int = leaf(1, "answers to each prompt; the second has the next seed, and so on")
    at_once: int = leaf(16, "answers that are generated together; each takes memory for the longest")

    def __post_init__(self) -> None:
        """Refuses a request without exactly one of prompt, instruction and prompt_file, and numbers out of range.

        Raises:
            ConfigError: saying which to give, or naming the field, its value and its range.
        """
        if [self.prompt, self.instruction, self.prompt_file].count(None) != 2:
            raise ConfigError(
                "Give --prompt (fed as it is) or --instruction (through the prompt style), one of them; or "
                "--prompt_file with many of them."
            )
        if self.input and self.instruction is None:
            raise ConfigError("--input goes with --instruction.")
        if (self.prompt_file is None) != (self.out_file is None):
            raise ConfigError("--prompt_file and --out_file go together; give both.")
        super().__post_init__()
        require_at_least("", self, {"num_samples": 1, "at_once": 1})
        if self.num_samples > 1 and self.temperature == 0:
            raise ConfigError(
                f"num_samples is {self.num_samples}, but at temperature 0 all answers are alike; raise --temperature."
            )
        require_seed((self.seed or 0) + self.num_samples - 1)


@dataclass(frozen=True, kw_only=True)
class ChatConfig(AnsweringConfig):
    """A conversation at the terminal."""

    system: str = leaf("", "what the model is told before the conversation", verbatim=True)


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
