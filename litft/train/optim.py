"""Optimizers by name, their groups of parameters, and the learning rate of each.

Knows parameters and their names, not models or methods. What bfloat16 needs stands in stochastic.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from litft.config.optim import OptimConfig
from litft.errors import ConfigError
from litft.train.by_parameter import ByParameter
from litft.train.stochastic import StochasticAdamW, StochasticAdamW8bit

NamedParameters = Iterable[tuple[str, torch.nn.Parameter]]
Group = dict[str, Any]

EMBEDDINGS = ("transformer.wte", "transformer.wpe", "lm_head")


def build_optimizer(parameters: NamedParameters, config: OptimConfig) -> torch.optim.Optimizer:
    """Gives the optimizer over the parameters that require a gradient, with decay on matrices only.

    None of them loses small updates to bfloat16: each steps in float32 and rounds stochastically.

    Args:
        parameters: (name, parameter); frozen ones are passed over.
        config: name, rate, betas, epsilon and decay.

    Raises:
        ConfigError: this torch lacks the optimizer, bitsandbytes is not installed, or LoRA+ has no matrix B.
    """
    trained = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    optimizer = OPTIMIZERS[config.name](build_groups(trained, config), config)
    set_learning_rate(optimizer, config.learning_rate)
    return optimizer


def build_groups(trained: list[tuple[str, torch.nn.Parameter]], config: OptimConfig) -> list[Group]:
    """Gives the parameters that are stepped alike.

    Args:
        trained: (name, parameter).
        config: decay and the ratio of LoRA+.

    Returns:
        Groups with `weight_decay`, `rate_ratio` (times the run's learning rate) and `is_hidden` (matrices, but neither
        embedding nor head).

    Raises:
        ConfigError: there is a ratio for LoRA+ but no matrix B.
    """
    groups: dict[tuple[float, float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trained:
        decay = config.weight_decay if is_decayed(name, parameter) else 0.0
        # Source: LoRA+, arXiv 2402.12354.
        ratio = config.lora_plus_ratio if name.endswith(".lora_B") else 1.0
        is_hidden = parameter.ndim == 2 and not name.startswith(EMBEDDINGS)
        groups.setdefault((decay, ratio, is_hidden), []).append(parameter)
    if config.lora_plus_ratio != 1 and not any(name.endswith(".lora_B") for name, _ in trained):
        raise ConfigError(
            f"optim.lora_plus_ratio is {config.lora_plus_ratio}, but this run trains no LoRA matrices; leave it out."
        )
    keys = ("weight_decay", "rate_ratio", "is_hidden")
    return [{"params": found, **dict(zip(keys, key, strict=True))} for key, found in groups.items()]


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Says whether weight decay applies: to matrices, never to norms, biases, gates and scales (one dimension)."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rate of every group, times the group's ratio if it has one.

    Raises:
        ValueError: the rate is not a finite number.
    """
    if not math.isfinite(rate):
        raise ValueError(f"learning rate {rate}")
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_ratio", 1.0)


def _adamw(groups: list[Group], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW: torch's own where all is float32, fused on a CPU, where that is six times as fast."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    settings: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas, "eps": config.eps}
    if any(parameter.dtype != torch.float32 for parameter in parameters):
        return StochasticAdamW(groups, **settings)
    fused = all(parameter.device.type == "cpu" for parameter in parameters)
    return torch.optim.AdamW(groups, **settings, fused=fused or None)


def _adamw8bit(groups: list[Group], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW with its state in 8 bits."""
    return StochasticAdamW8bit(groups, config.learning_rate, config.betas, config.eps)


def _adafactor(groups: list[Group], config: OptimConfig) -> torch.optim.Optimizer:
    """torch's Adafactor: its rate is relative to the size of the weights."""
    return ByParameter(groups, lambda group: torch.optim.Adafactor)


def _sgd(groups: list[Group], config: OptimConfig) -> torch.optim.Optimizer:
    """Gradient descent with momentum; its decay is added to the gradient."""
    return ByParameter(groups, lambda group: partial(torch.optim.SGD, momentum=config.betas[0]))


def _muon(groups: list[Group], config: OptimConfig) -> torch.optim.Optimizer:
    """torch's Muon on hidden matrices, at AdamW's rates; AdamW on all else.

    Source: the rates' factor is that of Moonlight, arXiv 2502.16982, section 2.2.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(
            f"optim.name is muon, which torch {torch.__version__} does not have; use torch 2.9 or later, or adamw."
        )
    muon = partial(torch.optim.Muon, momentum=config.betas[0], adjust_lr_fn="match_rms_adamw")
    adamw = partial(torch.optim.AdamW, betas=config.betas, eps=config.eps)
    return ByParameter(groups, lambda group: muon if group["is_hidden"] else adamw)


OPTIMIZERS: dict[str, Callable[[list[Group], OptimConfig], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "adafactor": _adafactor,
    "muon": _muon,
    "sgd": _sgd,
}
