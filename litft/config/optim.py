"""The optimizer and its schedule. Knows no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from litft.config.fields import leaf, require_at_least, require_interval
from litft.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its learning-rate schedule."""

    name: Literal["adamw", "adamw8bit", "adafactor", "muon", "sgd"] = leaf(
        "adamw", "the optimizer; muon moves matrices, and embeddings, the head and vectors as adamw does"
    )
    learning_rate: float = leaf(3e-4, "highest learning rate, reached after the warmup")
    betas: tuple[float, float] = leaf(
        (0.9, 0.95), "decay of AdamW's two moments; muon and sgd take the first for their momentum"
    )
    eps: float = leaf(1e-8, "AdamW's epsilon")
    weight_decay: float = leaf(0.01, "decoupled weight decay; norms and biases are never decayed")
    schedule: Literal["cosine", "linear", "constant", "wsd"] = leaf(
        "cosine", "shape of the learning rate after the warmup; wsd: constant, then linear decay at the end"
    )
    lr_warmup_steps: float = leaf(0.05, "steps of linear warmup, or a fraction of the run below 1")
    decay_steps: int | None = leaf(None, "steps after which the minimum is reached (default: the whole run)")
    decay_fraction: float = leaf(0.1, "share of the run, its last, in which wsd decays")
    min_learning_rate: float = leaf(0.0, "learning rate of the last step")
    lora_plus_ratio: float = leaf(1.0, "LoRA+: rate of the matrices B, as a multiple of that of A")
    in_backward: bool = leaf(
        False, "step each weight as soon as its gradient is there and let that go: gradients take almost no memory"
    )
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
        for name in ("learning_rate", "eps", "clip_norm", "lora_plus_ratio"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"optim.{name} is {value}; it must be above 0.")
        if not 0 < self.decay_fraction <= 1:
            raise ConfigError(f"optim.decay_fraction is {self.decay_fraction}; it must be above 0 and at most 1.")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas is {list(self.betas)}; each must be from 0 to below 1.")
        if self.min_learning_rate > self.learning_rate:
            raise ConfigError(
                f"optim.min_learning_rate is {self.min_learning_rate}, above optim.learning_rate {self.learning_rate}."
            )
