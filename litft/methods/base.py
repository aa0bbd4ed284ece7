"""What a method is, and the one that trains everything.

The same predicate, `is_trainable(name)`, freezes, saves and checks what is loaded.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from litft.errors import ConfigError
from litft.model.gpt import GPT


class Method(Protocol):
    """One way of finetuning.

    Attributes:
        name: as on the command line and in method.yaml.
        weights_file: where `final/` keeps what was trained.
    """

    name: str
    weights_file: str

    def apply(self, model: GPT) -> None:
        """Swaps modules in place; new parameters are float32, on the device of the weights beside them."""

    def is_trainable(self, name: str) -> bool:
        """Says whether the parameter of this name is trained."""

    def settings(self) -> dict[str, Any]:
        """Gives what `method.yaml` must hold to apply the method again."""


class Full:
    """Every parameter is trained."""

    name = "full"
    weights_file = "lit_model.safetensors"

    def apply(self, model: GPT) -> None:
        """Changes nothing."""

    def is_trainable(self, name: str) -> bool:
        """True for all."""
        return True

    def settings(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}


def freeze(model: nn.Module, method: Method) -> None:
    """Lets gradients flow to the trainable parameters only.

    Raises:
        ConfigError: the method trains no parameter of this model.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(method.is_trainable(name))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"The method {method.name} with {method.settings()} trains no parameter of this model.")


def trainable_state(model: nn.Module, method: Method) -> dict[str, Tensor]:
    """Gives the trained parameters by name, as they stand."""
    return {name: tensor.detach() for name, tensor in model.named_parameters() if method.is_trainable(name)}


def swap_module(model: nn.Module, path: str, new: nn.Module) -> None:
    """Puts `new` where the module of this dotted path stands."""
    owner, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(owner), leaf, new)


def settings_of(config: Any) -> dict[str, Any]:
    """Gives a method's config dataclass as plain types."""
    values = dataclasses.asdict(config)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def weights_path(folder: Path, method: Method) -> Path:
    """Says where a finished run keeps what the method trained."""
    return folder / method.weights_file
