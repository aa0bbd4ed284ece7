"""What a method is, and the one that trains the model's own weights.

The same predicate, `is_trainable(name)`, freezes, saves and checks what is loaded.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from litft.config.train import FullTrainConfig
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
    """Every parameter is trained, but for those frozen: the first blocks, the embedding, the head."""

    name = "full"
    weights_file = "lit_model.safetensors"

    def __init__(self, config: FullTrainConfig | None = None) -> None:
        self.config = config or FullTrainConfig()
        blocks = [f"transformer.h.{layer}." for layer in range(self.config.n_freeze)]
        embed = ["transformer.wte.", "transformer.wpe."] if self.config.freeze_embed else []
        self.frozen = (*blocks, *embed, *(["lm_head."] if self.config.freeze_head else []))

    def apply(self, model: GPT) -> None:
        """Changes nothing.

        Raises:
            ConfigError: there are fewer blocks than are to be frozen, or one matrix is to be frozen and trained.
        """
        config, sizes = self.config, model.config
        if config.n_freeze > sizes.n_layer:
            raise ConfigError(f"train.n_freeze is {config.n_freeze}, but {sizes.name} has {sizes.n_layer} blocks.")
        if sizes.tie_embeddings and config.freeze_embed != config.freeze_head:
            raise ConfigError(
                f"train.freeze_embed is {config.freeze_embed} and train.freeze_head {config.freeze_head}, but the head "
                f"of {sizes.name} is its embedding; set both or none."
            )

    def is_trainable(self, name: str) -> bool:
        """True for all that is not frozen."""
        return not name.startswith(self.frozen)

    def settings(self) -> dict[str, Any]:
        """Nothing to remember: the result is a whole model."""
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


def is_in_final(method: Method, name: str) -> bool:
    """Says whether `final/` holds this parameter: after a full run a whole model, with what was frozen; else no more
    than was trained.
    """
    return method.weights_file == Full.weights_file or method.is_trainable(name)


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
