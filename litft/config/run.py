"""The sections of a finetuning run, one dataclass a method. Knows no torch.

A field is one line here; its flag (`--train.max_iters`), its YAML key, its help and its place in `run.yaml` follow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from litft.config.fields import REQUIRED, leaf, require_seed, section
from litft.errors import ConfigError

LORA_TARGETS = ("q", "k", "v", "proj", "mlp", "head")


def require_at_least(section_name: str, config: object, least: dict[str, float]) -> None:
    """Refuses numbers below their least sensible value; None passes.

    Raises:
        ConfigError: naming the field, its value and the least.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and value < bound:
            raise ConfigError(f"{section_name}.{name} is {value}; it must be at least {bound}.")


def require_interval(name: str, value: float) -> None:
    """Refuses an interval that is neither a fraction of the run below 1 nor a whole number of steps.

    Raises:
        ConfigError: naming the field and its value.
    """
    if value <= 0:
        raise ConfigError(f"{name} is {value}; it must be above 0.")
    if value > 1 and value != int(value):
        raise ConfigError(f"{name} is {value}; write a fraction of the run below 1, or a whole number of steps.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long a run is and how its examples are batched. The run ends at the first bound it meets."""

    global_batch_size: int = leaf(16, "examples in one optimizer step")
    micro_batch_size: int = leaf(1, "examples computed at once; lower it when memory runs out, results stay the same")
    epochs: int | None = leaf(1, "passes over the training rows")
    max_iters: int | None = leaf(None, "at most this many times micro_batch_size examples")
    max_steps: int | None = leaf(None, "at most this many optimizer steps")
    max_time: str | None = leaf(None, "at most this long: 24:00:00, 24h, 90m or seconds")
    shuffle: bool = leaf(True, "a new order in each epoch; false keeps that of train.pt")
    max_seq_length: int | None = leaf(None, "leave out rows over this many tokens (default: as the data was prepared)")
    save_interval: float = leaf(0.25, "write a checkpoint every so many steps, or every fraction of the run below 1")
    export_interval: float | None = leaf(
        None, "write a Hugging Face folder every so many steps, or every fraction of the run below 1 (default: never)"
    )
    keep: int = leaf(2, "how many of the newest step checkpoints stay; the best one stays too")
    log_interval: int = leaf(1, "write a line of metrics every so many steps")

    def __post_init__(self) -> None:
        """Refuses a run without an end and numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        least = dict.fromkeys(("global_batch_size", "micro_batch_size", "epochs", "max_iters", "max_steps"), 1)
        require_at_least("train", self, {**least, "keep": 1, "log_interval": 1, "max_seq_length": 2})
        require_interval("train.save_interval", self.save_interval)
        if self.export_interval is not None:
            require_interval("train.export_interval", self.export_interval)
        if self.global_batch_size % self.micro_batch_size:
            raise ConfigError(
                f"train.global_batch_size is {self.global_batch_size} and train.micro_batch_size is "
                f"{self.micro_batch_size}; the first must be a multiple of the second."
            )
        if not (self.epochs or self.max_iters or self.max_steps):
            raise ConfigError("The run has no end; set train.epochs, train.max_iters or train.max_steps.")
        parse_duration(self.max_time)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule."""

    name: Literal["adamw"] = leaf("adamw", "the optimizer")
    learning_rate: float = leaf(3e-4, "highest learning rate, reached after the warmup")
    betas: tuple[float, float] = leaf((0.9, 0.95), "decay of AdamW's two moments")
    eps: float = leaf(1e-8, "AdamW's epsilon")
    weight_decay: float = leaf(0.01, "decoupled weight decay; norms and biases are never decayed")
    schedule: Literal["cosine", "linear", "constant"] = leaf("cosine", "shape of the learning rate after the warmup")
    lr_warmup_steps: float = leaf(0.05, "steps of linear warmup, or a fraction of the run below 1")
    decay_steps: int | None = leaf(None, "steps after which the minimum is reached (default: the whole run)")
    min_learning_rate: float = leaf(0.0, "learning rate of the last step")
    clip_norm: float | None = leaf(1.0, "largest gradient norm; null for no clipping")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least(
            "optim", self, {"weight_decay": 0, "lr_warmup_steps": 0, "decay_steps": 1, "min_learning_rate": 0}
        )
        if self.lr_warmup_steps:
            require_interval("optim.lr_warmup_steps", self.lr_warmup_steps)
        for name in ("learning_rate", "eps", "clip_norm"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"optim.{name} is {value}; it must be above 0.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas is {list(self.betas)}; each must be from 0 to below 1.")
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"optim.min_learning_rate is {self.min_learning_rate}, above optim.learning_rate {self.learning_rate}."
            )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Validation over the whole held-out split, with sampled answers."""

    interval: float | Literal["epoch"] = leaf(0.1, "validate every so many steps, fraction of the run, or `epoch`")
    max_new_tokens: int = leaf(100, "longest sampled answer in tokens")
    prompts: int = leaf(1, "how many rows, the first of test.pt, are answered at each validation")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least("eval", self, {"max_new_tokens": 1, "prompts": 0})
        if self.interval != "epoch":
            require_interval("eval.interval", self.interval)


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Low-rank adapters. Source: arXiv 2106.09685."""

    r: int = leaf(8, "rank of each adapter")
    alpha: float = leaf(16, "the adapter's output is scaled by alpha / r")
    dropout: float = leaf(0.05, "dropout on the adapter's input")
    targets: tuple[str, ...] = leaf(("q", "v"), f"which weights get one, among {', '.join(LORA_TARGETS)}")

    def __post_init__(self) -> None:
        """Refuses a rank, a share or a target that cannot be meant.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least("lora", self, {"r": 1})
        if self.alpha <= 0:
            raise ConfigError(f"lora.alpha is {self.alpha}; it must be above 0.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"lora.dropout is {self.dropout}; it must be from 0 to below 1.")
        for target in self.targets:
            if target not in LORA_TARGETS:
                raise ConfigError(f'lora.targets has "{target}"; the targets are {", ".join(LORA_TARGETS)}.')
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ConfigError(f"lora.targets is {list(self.targets)}; name at least one, each once.")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Learned prompts inside attention. Source: LLaMA-Adapter, arXiv 2303.16199."""

    prompt_length: int = leaf(10, "learned vectors in each block")
    start_layer: int = leaf(2, "blocks below this one have none")

    def __post_init__(self) -> None:
        """Refuses numbers out of range.

        Raises:
            ConfigError: naming the field, its value and its range.
        """
        require_at_least("adapter", self, {"prompt_length": 1, "start_layer": 0})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What every finetuning run is told, whatever its method."""

    checkpoint_dir: Path = leaf(REQUIRED, "the converted base model")
    data_dir: Path = leaf(REQUIRED, "prepared data: train.pt and test.pt")
    out_dir: Path | None = leaf(None, "where the run is written (default out/METHOD/DATA)")
    precision: Literal["bf16-true", "bf16-mixed", "32-true"] = leaf(
        "bf16-true", "of the frozen weights and the computation; trained adapters are always float32"
    )
    resume: bool | str = leaf(False, "true or auto for the newest whole checkpoint in out_dir, or the path of one")
    overwrite: bool = leaf(False, "start afresh in an out_dir that holds a run; its files are deleted")
    seed: int = leaf(1337, "of the order of examples, dropout and sampling")
    train: TrainConfig = section(TrainConfig, "length and batches")
    optim: OptimConfig = section(OptimConfig, "optimizer and schedule")
    eval: EvalConfig = section(EvalConfig, "validation")

    def __post_init__(self) -> None:
        """Refuses a seed out of range.

        Raises:
            ConfigError: naming it.
        """
        require_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class FullRun(RunConfig):
    """Every weight is trained."""

    init: Literal["checkpoint", "random"] = leaf("checkpoint", "start from the weights, or from random ones")
    optim: OptimConfig = section(OptimConfig, "optimizer and schedule", learning_rate=2e-5)


@dataclass(frozen=True, kw_only=True)
class LoRARun(RunConfig):
    """Low-rank adapters on chosen weights."""

    lora: LoRAConfig = section(LoRAConfig, "the adapters")


@dataclass(frozen=True, kw_only=True)
class AdapterRun(RunConfig):
    """Learned prompts in attention (v1), or these with a scale and bias on every linear layer (v2)."""

    adapter: AdapterConfig = section(AdapterConfig, "the learned prompts")
    optim: OptimConfig = section(OptimConfig, "optimizer and schedule", learning_rate=3e-3)


def parse_duration(text: str | None) -> float | None:
    """Turns `24:00:00`, `24h`, `90m`, `30s` or plain seconds into seconds.

    Raises:
        ConfigError: the text is none of these.
    """
    if text is None:
        return None
    if clock := re.fullmatch(r"(\d+):([0-5]\d):([0-5]\d)", text):
        hours, minutes, seconds = (int(part) for part in clock.groups())
        return float(hours * 3600 + minutes * 60 + seconds)
    if unit := re.fullmatch(r"(\d+(?:\.\d+)?)([dhms]?)", text):
        return float(unit[1]) * {"d": 86400, "h": 3600, "m": 60, "s": 1, "": 1}[unit[2]]
    raise ConfigError(f'train.max_time is "{text}"; write 24:00:00, 24h, 90m or a number of seconds.')
