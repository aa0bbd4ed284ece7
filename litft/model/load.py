"""Lays a converted checkpoint's weights into a GPT, tensor by tensor, each straight into its final dtype and device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from litft.checkpoint.disk import require_unchanged
from litft.checkpoint.files import load_model_config, require_converted
from litft.checkpoint.tensors import read_safetensors_header
from litft.config.model import ModelConfig
from litft.errors import CheckpointError, ConfigError, did_you_mean
from litft.model.gpt import GPT
from litft.model.quantize import QuantizedLinear, apply_quantize, check_quantize

Reader = Callable[[str, Tensor], Tensor]  # given each weight as it is read, gives what the model is to have of it
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.float32, "bf16-true": torch.bfloat16}


def load_model(
    checkpoint_dir: Path, precision: str, device: torch.device, quantize: str = "none", reader: Reader | None = None
) -> GPT:
    """Gives the model of a converted checkpoint, in evaluation mode.

    Args:
        checkpoint_dir: holds lit_model.safetensors and model_config.yaml.
        precision: `32-true`, `bf16-mixed` (float32 weights) or `bf16-true`.
        device: where the weights go.
        quantize: how the blocks' linear layers are kept, such as `bnb.nf4`; they can be used then, not trained. No more
            than one of their weights is in memory as it was.
        reader: changes weights before they are rounded or quantised.

    Raises:
        CheckpointError: not converted, damaged, or not the tensors that its model_config.yaml describes.
        ConfigError: an unknown precision, or a form of quantising that is unknown or not installed.
    """
    if precision not in DTYPES:
        raise ConfigError(f'precision is "{precision}"; it must be one of {", ".join(DTYPES)}.')
    check_quantize(quantize)
    require_converted(checkpoint_dir)
    model = build_empty(load_model_config(checkpoint_dir))
    if quantize != "none":
        apply_quantize(model, quantize)
    path = checkpoint_dir / "lit_model.safetensors"
    assign_weights(model, path, set(model.weight_names()), DTYPES[precision], device, reader)
    model.tie_weights()
    return model.eval()


def map_model(checkpoint_dir: Path, precision: str, reader: Reader | None = None) -> GPT:
    """Gives the model of a converted checkpoint with its matrices mapped from the file: read when used.

    Args:
        checkpoint_dir: as in `load_model`; its file must stay as it is while the model lives.
        precision: of the vectors, which are read at once. Matrices are in the file's dtype: who reads them converts.
        reader: changes weights; those that it changes are in memory.

    Raises:
        CheckpointError: not converted, damaged, or not the tensors that its model_config.yaml describes.
    """
    require_converted(checkpoint_dir)
    model = build_empty(load_model_config(checkpoint_dir))
    names = set(model.weight_names())
    assign_weights(model, checkpoint_dir / "lit_model.safetensors", names, None, torch.device("cpu"), reader)
    for parameter in model.parameters():
        if parameter.ndim < 2:
            parameter.data = parameter.data.to(DTYPES[precision])
    model.tie_weights()
    return model.eval()


def build_empty(config: ModelConfig) -> GPT:
    """Gives a GPT whose parameters have shapes but no memory yet."""
    with torch.device("meta"):
        return GPT(config)


def build_random(config: ModelConfig, precision: str, device: torch.device, seed: int) -> GPT:
    """Gives a GPT with random weights; the same seed gives the same weights on the same device."""
    model = build_empty(config).to(DTYPES[precision]).to_empty(device=device)
    model.tie_weights()
    model.init_weights(seed)
    return model


def assign_weights(
    model: nn.Module,
    path: Path,
    names: set[str],
    dtype: torch.dtype | None,
    device: torch.device,
    reader: Reader | None = None,
) -> None:
    """Puts the tensors of a safetensors file into the parameters of these names.

    Args:
        model: its parameters may be on the meta device.
        path: must hold exactly `names`.
        names: parameters to fill.
        dtype: to convert to; None keeps the file's. What is quantised is taken as it is.
        device: where they go.
        reader: changes them first.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape, or the file is damaged or was changed.
    """
    parameters = dict(model.named_parameters())
    read_safetensors_header(path)
    require_unchanged(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            check_names(path, set(file.keys()), names)
            for name in sorted(names):
                tensor = file.get_tensor(name)
                check_shape(path, name, tuple(tensor.shape), tuple(parameters[name].shape))
                tensor = reader(name, tensor) if reader else tensor
                owner, _, leaf = name.rpartition(".")
                layer = model.get_submodule(owner)
                if isinstance(layer, QuantizedLinear) and leaf == "weight":
                    layer.quantize(tensor.to(device))
                else:
                    # Replaced: a copy through the old parameter would need its memory twice.
                    tensor = tensor.to(device=device, dtype=dtype)
                    setattr(layer, leaf, nn.Parameter(tensor, requires_grad=parameters[name].requires_grad))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); write it again from its source.") from error


def check_weights(model: GPT, path: Path) -> None:
    """Makes sure, from its header alone, that a converted file holds the tensors of a model.

    Args:
        model: may be on the meta device.
        path: a lit_model.safetensors.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape, or the file is damaged.
    """
    specs = read_safetensors_header(path)
    check_names(path, set(specs), set(model.weight_names()))
    for name, spec in specs.items():
        check_shape(path, name, spec.shape, tuple(model.get_parameter(name).shape))


def check_shape(path: Path, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Refuses a tensor of another shape.

    Raises:
        CheckpointError: naming it and both shapes.
    """
    if found != wanted:
        raise CheckpointError(f"{name} in {path} is {list(found)}; this model needs {list(wanted)}.")


def check_names(path: Path, found: set[str], wanted: set[str]) -> None:
    """Refuses a file that lacks a tensor or holds one too many.

    Raises:
        CheckpointError: naming the first of them and how many there are.
    """
    if missing := sorted(wanted - found):
        raise CheckpointError(
            f"{path} lacks {len(missing)} tensors, such as {missing[0]}.{did_you_mean(missing[0], found)}"
        )
    if extra := sorted(found - wanted):
        raise CheckpointError(
            f"{path} holds {len(extra)} tensors that this model has no place for, such as {extra[0]}."
        )
