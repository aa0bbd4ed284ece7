"""The weights of a run as its processes hold them: whole on one device, a copy on each, or cut into a part for each.

FSDP2 (`fully_shard`) cuts. Knows no rows and no loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from litft.checkpoint.tensors import save_safetensors, tensor_specs
from litft.config.run import FullRun, RunConfig
from litft.errors import ConfigError
from litft.methods.base import Full, Method, is_in_final
from litft.methods.lora import LoRA
from litft.methods.merged import inner_method
from litft.methods.pissa import as_differences
from litft.model.gpt import GPT
from litft.model.load import DTYPES, build_random, load_model, map_model
from litft.train.kernels import choose_kernels
from litft.train.parallel import failing_together, from_first, is_cut, seed_apart

if TYPE_CHECKING:
    from litft.train.state import Inputs

BUCKET_BYTES = 2**26  # gradients sent at once: a call for each of a thousand adapters would take its time


@dataclass(frozen=True)
class Part:
    """One parameter.

    Attributes:
        parameter: in the model: a plain one, or a DTensor of which each process holds some rows.
        own: what this process holds of it and its optimizer moves; the parameter itself if it is plain.
    """

    parameter: nn.Parameter
    own: nn.Parameter

    @property
    def is_cut(self) -> bool:
        """Whether other processes hold the rest."""
        return self.own is not self.parameter

    def refresh(self) -> nn.Parameter:
        """Gives `own` where it lies now: FSDP moves it once, before the first forward pass."""
        if self.is_cut:
            self.own.data = cast(DTensor, self.parameter).to_local().detach()
        return self.own

    def is_cut_like(self, values: Tensor) -> bool:
        """Says whether values are of this process's rows alone, as weights are and the optimizer's moments of them."""
        return self.is_cut and values.shape == self.own.shape

    def whole_shape(self, values: Tensor) -> torch.Size:
        """Gives the shape of what `whole` makes of these values."""
        return self.parameter.shape if self.is_cut_like(values) else values.shape

    def whole(self, values: Tensor) -> Tensor:
        """Gives values of the whole parameter from those of its rows here; all processes must call this together.

        Args:
            values: such as weights or the optimizer's moments; what is not cut, such as a count of steps, stays.
        """
        if not self.is_cut_like(values):
            return values
        like = cast(DTensor, self.parameter)
        there = values.to(like.device_mesh.device_type)
        tensor = DTensor.from_local(
            there, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )
        return tensor.full_tensor().cpu()

    def rows(self, values: Tensor) -> Tensor:
        """Gives this process's part of values of the whole parameter; of a mapped file no more is read."""
        return own_rows(values, cast(DTensor, self.parameter).device_mesh) if self.is_cut else values


class Parts:
    """A model and what this process holds of each of its parameters.

    Attributes:
        model: the GPT; the same module, with its parameters cut where the strategy cuts.
        parts: by name.
    """

    def __init__(self, model: GPT, fabric: Fabric) -> None:
        self.model, self.fabric = model, fabric
        self.parts = {name: _part_of(parameter) for name, parameter in model.named_parameters()}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Gives what an optimizer moves in this process, by the names of the model."""
        return ((name, part.own) for name, part in self.parts.items())

    def state(self, method: Method) -> dict[str, Tensor]:
        """Gives what this process holds of what a method trains, by name."""
        return {name: part.refresh().detach() for name, part in self.parts.items() if method.is_trainable(name)}

    def final_state(self, method: Method) -> dict[str, Tensor]:
        """Gives what this process holds of what `final/` is to hold, by name."""
        state = {name: part.refresh().detach() for name, part in self.parts.items() if is_in_final(method, name)}
        return as_differences(self.model, state)

    def whole_state(self, method: Method) -> dict[str, Tensor]:
        """Gives the same, but whole, to the first process alone; all must call this together."""
        state = ((name, self.parts[name].whole(own)) for name, own in self.final_state(method).items())
        return {name: value for name, value in state if self.fabric.global_rank == 0}

    def trained(self) -> list[Part]:
        """Gives the parts that require a gradient."""
        return [part for part in self.parts.values() if part.own.requires_grad]

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Puts the gradient of the whole window, over all processes, beside what the optimizer moves.

        FSDP adds up the gradients of what is cut in each backward pass: kept until the window's end they would be as
        large as the whole model. The others are added here, once.
        """
        for part in self.trained():
            if part.is_cut:
                gradient, part.parameter.grad = part.parameter.grad, None
                mean = None if gradient is None else cast(DTensor, gradient).to_local()
                # Without rows here there is nothing to move; optimizers need not know of such a weight.
                own = part.refresh()
                own.grad = None if mean is None or not mean.numel() else mean.mul_(self.fabric.world_size)
        if self.fabric.world_size > 1:
            _add_gradients([part.own for part in self.trained() if not part.is_cut])

    def clip_gradients(self, max_norm: float) -> Tensor:
        """Scales the gradients down where their norm is above `max_norm`; gives the norm of before, a scalar."""
        trained = self.trained()
        norm = _norm([part.own for part in trained if not part.is_cut])
        if cut := [part for part in trained if part.is_cut]:
            mesh = cast(DTensor, cut[0].parameter).device_mesh
            copies = mesh.size() // mesh.size(mesh.ndim - 1)  # of the same part
            squares = _norm([part.own for part in cut]).to(self.fabric.device).square() / copies
            dist.all_reduce(squares)
            norm = (norm.to(self.fabric.device).square() + squares).sqrt()
        torch.nn.utils.clip_grads_with_norm_([part.own for part in trained], max_norm, norm)
        return norm

    def n_bytes(self, tensors: Mapping[str, Tensor], owner: Callable[[str], str] = str) -> int:
        """Says how large these tensors are as `save` writes them."""
        return sum(tensor.nbytes for tensor in self._shapes(tensors, owner).values())

    def save(self, path: Path, tensors: Mapping[str, Tensor], owner: Callable[[str], str] = str) -> None:
        """Writes tensors of the whole model to a safetensors file; the first process writes, one tensor at a time.

        All processes must call this together, with the same names. What is not cut is the first one's.

        Args:
            path: the file.
            tensors: this process's part of each.
            owner: gives the parameter that a name belongs to.
        """
        shapes, pieces = self._shapes(tensors, owner), self._pieces(tensors, owner)
        try:
            if self.fabric.global_rank == 0:
                save_safetensors(path, pieces, tensor_specs(shapes))
        finally:
            for _ in pieces:  # the other processes send, until nothing is left
                pass

    def copies(self, tensors: Mapping[str, Tensor], owner: Callable[[str], str] = str) -> dict[str, Tensor]:
        """Gives what `save` would write, in the CPU's memory, where no step moves it; to the first process alone.

        Args:
            tensors, owner: as `save` takes them; all processes must call this together.
        """
        pieces = self._pieces(tensors, owner)
        return {name: whole.to("cpu", copy=True) for name, whole in pieces if self.fabric.global_rank == 0}

    def _pieces(self, tensors: Mapping[str, Tensor], owner: Callable[[str], str]) -> Iterator[tuple[str, Tensor]]:
        """Gives whole tensors one by one, the same names in each process; each must take them all."""
        shapes = self._shapes(tensors, owner)
        kinds = from_first(self.fabric, {name: value.dtype for name, value in shapes.items()})
        for name, kind in kinds.items():
            yield name, self._whole(name, tensors, owner, kind)

    def _whole(
        self, name: str, tensors: Mapping[str, Tensor], owner: Callable[[str], str], dtype: torch.dtype
    ) -> Tensor:
        """Gives one whole tensor; a process that has no rows of it may not have met it."""
        part = self.parts[owner(name)]
        return part.whole(tensors[name] if name in tensors else torch.empty_like(part.own, dtype=dtype))

    def _shapes(self, tensors: Mapping[str, Tensor], owner: Callable[[str], str]) -> dict[str, Tensor]:
        """Gives the whole of each tensor without memory: that of its parameter where it is like this process's part."""
        shapes: dict[str, Tensor] = {}
        for name, value in tensors.items():
            shapes[name] = torch.empty(self.parts[owner(name)].whole_shape(value), dtype=value.dtype, device="meta")
        return shapes


def load_base(inputs: Inputs, fabric: Fabric) -> GPT:
    """Gives the base of a run in its precision on its device, or, where `spread` is to cut it, mapped from its file."""
    config, device = inputs.config, torch.device("cpu") if is_cut(fabric) else fabric.device
    method = inner_method(inputs.method)
    with failing_together(fabric):
        reader = method.reader(inputs.model_config, fabric.device) if isinstance(method, LoRA) else None
        if isinstance(config, FullRun) and config.init == "random":
            model = build_random(inputs.model_config, config.precision, device, config.seed)
        elif is_cut(fabric) and config.quantize == "none":
            model = map_model(inputs.checkpoint_dir, config.precision, reader)
        else:
            model = load_model(inputs.checkpoint_dir, config.precision, device, config.quantize, reader)
    return model


def spread(model: GPT, inputs: Inputs, fabric: Fabric) -> Parts:
    """Lays a model out over the devices of the run; with one device, it stays where it is.

    Args:
        model: with the method applied and frozen what is not trained.
        inputs: of the run.
        fabric: of the run.
    """
    choose_kernels(model, inputs.config, fabric, inputs.report)
    if is_cut(fabric):
        _cut(model, _trained_beside(model, inputs), inputs.config, fabric)
    seed_apart(fabric, inputs.config.seed)  # what a method added began alike; from here on each draws its own
    return Parts(model, fabric)


def own_rows(values: Tensor, mesh: DeviceMesh) -> Tensor:
    """Gives the rows of this process: as FSDP2 deals them, the same number to each but the last.

    Source: `torch.chunk`, by which `Shard(0)` of torch.distributed.tensor is defined.
    """
    count, place = mesh.size(mesh.ndim - 1), mesh.get_local_rank(mesh.ndim - 1)
    share = math.ceil(len(values) / count)
    return values[share * place : share * (place + 1)]


def _part_of(parameter: nn.Parameter) -> Part:
    """Gives what this process holds of a parameter."""
    if not isinstance(parameter, DTensor):
        return Part(parameter, parameter)
    own = nn.Parameter(parameter.to_local().detach(), requires_grad=parameter.requires_grad)
    return Part(parameter, own)


def _trained_beside(model: GPT, inputs: Inputs) -> set[nn.Parameter]:
    """Gives what a method trains beside a frozen base; empty where it trains the base."""
    if isinstance(inner_method(inputs.method), Full):
        return set()
    return {parameter for parameter in model.parameters() if parameter.requires_grad}


def _cut(model: GPT, added: set[nn.Parameter], config: RunConfig, fabric: Fabric) -> None:
    """Cuts the weights of a model in place; each process reads its own rows of them, and no more.

    What a method adds is not cut but copied. It is small; it is float32 beside a base that may be bfloat16 or packed in
    bytes, and FSDP2 wants one dtype in what it gathers at once; and adapters need no care then for being cut.

    Args:
        model: its weights in the CPU's memory or mapped from their file.
        added: what is copied.
        config: its strategy and precision.
        fabric: of the run.
    """
    source = _take_weights(model, added, DTYPES[config.precision])
    mesh = _mesh(config, fabric)
    policy = CPUOffloadPolicy(pin_memory=fabric.device.type == "cuda") if config.cpu_offload else OffloadPolicy()
    settings: dict[str, Any] = {"mesh": mesh, "ignored_params": added, "offload_policy": policy}
    for block in cast(nn.ModuleList, model.transformer["h"]):
        _shard(block, **settings)
    # Embedding, last norm and head stay gathered from the forward pass to the end of the backward one: the head is used
    # outside of the model's own forward, and may be the embedding.
    _shard(model, reshard_after_forward=False, **settings)
    for module in model.modules():
        if isinstance(module, FSDPModule) and model.config.n_expert:
            _count_unused(module)
    device = torch.device("cpu") if config.cpu_offload else fabric.device
    _give_rows(model, source, device)
    for parameter in added:
        parameter.data = parameter.data.to(fabric.device)


def _shard(module: nn.Module, **settings: Any) -> None:
    """Cuts the weights of a module that nothing in it has cut yet.

    Raises:
        ConfigError: they are whole numbers, which this torch cannot cut.
    """
    try:
        fully_shard(module, **settings)
    except RuntimeError as error:
        if "floating point dtype can require gradients" not in str(error):
            raise
        what = f"A quantised base cut over several devices needs torch 2.13; this is {torch.__version__}"
        raise ConfigError(f"{what}; use --strategy ddp, or leave out --quantize.") from error


def _count_unused(module: FSDPModule) -> None:
    """Makes the processes agree on what they add up: a token may have met an expert in one of them only.

    Raises:
        ConfigError: this torch cannot.
    """
    if not hasattr(module, "set_reduce_scatter_unused_params"):
        raise ConfigError(f"strategy fsdp with experts needs torch 2.13; this is {torch.__version__}; use ddp.")
    module.set_reduce_scatter_unused_params(True)


def _mesh(config: RunConfig, fabric: Fabric) -> DeviceMesh:
    """Gives the processes as FSDP2 wants them: in a line, or as nodes with copies of each other."""
    if config.strategy == "hybrid":
        shape, names = (config.num_nodes, config.devices), ("copies", "parts")
        return init_device_mesh(fabric.device.type, shape, mesh_dim_names=names)
    return cast(DeviceMesh, cast(Any, fabric.strategy).device_mesh["data_parallel"])


def _take_weights(model: GPT, kept: set[nn.Parameter], dtype: torch.dtype) -> dict[str, Tensor]:
    """Puts parameters without memory in the place of all but `kept`; gives by name what they stand for."""
    source: dict[str, Tensor] = {}
    empty: dict[nn.Parameter, nn.Parameter] = {}
    for module, leaf, name, old in _places(model):
        if old in kept:
            continue
        if old not in empty:  # shared ones stay shared
            kind = dtype if old.is_floating_point() else old.dtype
            data = torch.empty_like(old, dtype=kind, device="meta")
            empty[old] = nn.Parameter(data, requires_grad=old.requires_grad)
            source[name] = old.detach()
        setattr(module, leaf, empty[old])
    return source


def _give_rows(model: GPT, source: Mapping[str, Tensor], device: torch.device) -> None:
    """Fills what was cut with this process's rows."""
    filled: dict[nn.Parameter, nn.Parameter] = {}
    for module, leaf, name, old in _places(model):
        if not isinstance(old, DTensor):
            continue
        if old not in filled:
            rows = own_rows(source[name], old.device_mesh).to(device=device, dtype=old.dtype, copy=True)
            tensor = DTensor.from_local(
                rows, old.device_mesh, old.placements, run_check=False, shape=old.shape, stride=old.stride()
            )
            filled[old] = nn.Parameter(tensor, requires_grad=old.requires_grad)
        setattr(module, leaf, filled[old])


def _places(model: GPT) -> list[tuple[nn.Module, str, str, nn.Parameter]]:
    """Gives each place of a parameter: its module, its name there, its name in the model, and what stands there."""
    return [
        (module, leaf, f"{path}.{leaf}" if path else leaf, parameter)
        for path, module in model.named_modules()
        for leaf, parameter in module.named_parameters(recurse=False)
    ]


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    """Gives the norm of all their gradients together."""
    return torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])


def _add_gradients(parameters: list[nn.Parameter]) -> None:
    """Adds gradients up over all processes; of a parameter that was not used here they are zero."""
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    bucket: list[Tensor] = []
    for index, parameter in enumerate(parameters):
        bucket.append(cast(Tensor, parameter.grad))
        following = parameters[index + 1] if index + 1 < len(parameters) else None
        is_full = sum(gradient.nbytes for gradient in bucket) >= BUCKET_BYTES
        if following is None or is_full or following.dtype != parameter.dtype:
            _add_up(bucket)
            bucket = []


def _add_up(gradients: list[Tensor]) -> None:
    """Adds these up over all processes, in one call."""
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    for gradient, total in zip(gradients, torch.split(together, [each.numel() for each in gradients]), strict=True):
        gradient.copy_(total.view_as(gradient))
