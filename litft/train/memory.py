"""The memory of a training step, told without taking it: the step itself runs on tensors that have a shape and no data.

`MemoryTrace` runs whatever torch code is under it that way and notes each storage that comes and goes. So the number
follows the model as it is, its attention, its loss and its optimizer; there is no formula to keep true. Numbers that
decide how the code goes on (token ids, targets, masks, lengths) are real. Knows no model, no method and no data.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

ACTIVATIONS, LOGITS = "activations", "logits"
aten = torch.ops.aten


class MemoryTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs floating-point work on shapes alone and notes every storage, with its size, from first to last.

    A tensor made under it that holds numbers with a fraction, and more than one, has no data; what is computed with it
    has none either. Where the code asks such a tensor for its value, the answer is 1 or True; where it asks for the
    places of the largest, as a router of experts does, each place comes as often as any. All else runs as always.
    """

    def __init__(self, vocab_size: int) -> None:
        """Begins with nothing.

        Args:
            vocab_size: tensors whose last size this is are counted as logits, unless they are something else.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._vocab_size = vocab_size
        self._shapes: dict[Any, Tensor] = {}
        self._events: list[tuple[int, int]] = []  # (number of the storage, bytes that came, or went if negative)
        self._living: dict[int, tuple[weakref.ref[Any], int]] = {}  # by address: the storage and its number
        self._parts: dict[int, str] = {}  # number of the storage -> what it is
        self._entered: list[tuple[int, int | None]] = []  # number of the first event in a block, and which block it is
        self._repeated, self._times = -1, 1
        self._owned: set[int] = set()  # storages of the repeated block

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operation."""
        if func is torch.ops.prim.device.default:  # asked at every other turn, and no work
            return args[0].fake_device
        out = self._run(func, args, kwargs or {})
        for tensor in _tensors((out,)):
            self._note(tensor)
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs one operation on shapes where an argument has no data, else as it is."""
        given = [*_tensors(args), *_tensors(kwargs.values())]
        if any(isinstance(tensor, FakeTensor) for tensor in given):
            if func is aten._local_scalar_dense.default:
                return 1.0 if given[0].is_floating_point() else True if given[0].dtype == torch.bool else 1
            if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
                args = (args[0], _opened(args[1]), *args[2:])  # how many a mask chooses is asked of the real mask
            if isinstance(kwargs.get("out"), FakeTensor):
                return kwargs["out"]  # which has its place already
            if func is aten._unsafe_view.default:
                func = aten.view.default  # which makes the same, and is run much faster
            written = {id(args[place]) for place in _written(func) if place < len(args)}
            with self._fake:
                out = func(*self._shapes_of(args, written), **kwargs)
            return (out[0], _places_in_turn(given[0], out[1])) if func is aten.topk.default else out
        if not given and any(isinstance(result.type, torch.TensorType) for result in func._schema.returns):
            with self._fake:
                made = func(*args, **kwargs)
            if made.is_floating_point() and made.numel() > 1:
                return made
        return func(*args, **kwargs)

    def _shapes_of(self, values: Iterable[Any], written: set[int]) -> list[Any]:
        """Puts in the place of each real tensor that is only read one of its shape, as such work is run much faster."""
        shapes: list[Any] = []
        for value in values:
            if isinstance(value, (list, tuple)) and id(value) not in written:
                value = self._shapes_of(value, written)
            elif isinstance(value, Tensor) and not isinstance(value, FakeTensor) and id(value) not in written:
                key = value.shape, value.stride(), value.dtype, value.device
                if key not in self._shapes:
                    self._shapes[key] = torch.empty_strided(key[0], key[1], dtype=key[2], device=key[3])
                value = self._shapes[key]
            shapes.append(value)
        return shapes

    def _note(self, tensor: Tensor) -> None:
        """Notes the storage of a tensor, unless it is known."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._living:
            return
        number, size = len(self._events), storage.nbytes()

        def gone(_: Any) -> None:
            self._events.append((number, -size))
            del self._living[address]

        self._events.append((number, size))
        self._living[address] = weakref.ref(storage, gone), number
        if tensor.ndim and tensor.shape[-1] == self._vocab_size:
            self._parts[number] = LOGITS

    def name(self, part: str, tensors: Iterable[Tensor]) -> None:
        """Says what these tensors are, such as `weights`; those that nobody names are activations."""
        for tensor in tensors:
            self._note(tensor)
            self._parts[self._living[tensor.untyped_storage()._cdata][1]] = part

    def enter(self, block: int | None) -> None:
        """Says that what comes now is the work of this block of the model, forward or backward; None: of no block."""
        self._entered.append((len(self._events), block))

    def repeat(self, block: int, times: int, tensors: Iterable[Tensor]) -> None:
        """Says that a block stands for so many that are all alike; those beside it must be two more of them.

        Args:
            block: which one; its work is counted so often, one time after the other.
            times: how many it stands for, itself included.
            tensors: its weights and what the optimizer keeps of them.
        """
        self._repeated, self._times = block, times
        for tensor in tensors:
            self._note(tensor)
            self._owned.add(self._living[tensor.untyped_storage()._cdata][1])

    def peak(self) -> dict[str, int]:
        """Gives the bytes of each part at the moment when most bytes were held."""
        held = most = last = 0
        for place, (_, size) in enumerate(self._timeline()):
            held += size
            if held > most:
                most, last = held, place
        parts: dict[str, int] = {}
        for number, size in itertools.islice(self._timeline(), last + 1):
            part = self._parts.get(number, ACTIVATIONS)
            parts[part] = parts.get(part, 0) + size
        return parts

    def _timeline(self) -> Iterator[tuple[int, int]]:
        """Gives the events of the whole model.

        What the repeated block's work makes may be let go in the work of a block beside it, as that block's own is in
        the repeated one's: there it counts once, as for each of those that it stands for. Elsewhere all goes at once.
        """
        bounds = [(0, None), *self._entered, (len(self._events), None)]
        runs = [(block, self._events[start:stop]) for (start, block), (stop, _) in itertools.pairwise(bounds)]
        made = {number for block, events in runs if block == self._repeated for number, size in events if size > 0}
        for block, events in runs:
            if block == self._repeated:
                for _ in range(self._times):
                    yield from events
                continue
            is_beside = block is not None and abs(block - self._repeated) == 1
            for number, size in events:
                belongs = number in self._owned or number in made
                yield number, size * (self._times if belongs and not is_beside else 1)


@functools.cache
def _written(operation: Any) -> list[int]:
    """Gives the places of the arguments that an operation writes to."""
    given = operation._schema.arguments
    return [place for place, each in enumerate(given) if each.alias_info is not None and each.alias_info.is_write]


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Gives the tensors among values and lists of them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _places_in_turn(source: Tensor, places: Tensor) -> Tensor:
    """Gives real places in the last dimension of a tensor without data, in the shape of others: 0, 1, 2, ..., 0, 1."""
    return torch.arange(places.numel(), device=source.device).remainder_(source.shape[-1]).view(places.shape)


def _opened(indices: Iterable[Any]) -> list[Any]:
    """Turns real masks among the indices into the numbers of the places that they choose."""
    opened: list[Any] = []
    for index in indices:
        is_mask = isinstance(index, Tensor) and not isinstance(index, FakeTensor) and index.dtype == torch.bool
        opened.extend(index.nonzero().unbind(1) if is_mask else [index])
    return opened


def empty_weights(model: nn.Module, trace: MemoryTrace, device: torch.device) -> None:
    """Gives each parameter that is on the meta device a place on `device`, still without data; shared ones stay so."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            if parameter.device.type == "meta" and parameter not in made:
                with trace:
                    data = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                made[parameter] = nn.Parameter(data, requires_grad=parameter.requires_grad)
            setattr(module, leaf, made.get(parameter, parameter))


def name_gradients(model: nn.Module, trace: MemoryTrace) -> None:
    """Has each gradient named as it comes."""

    def name(parameter: Tensor) -> None:
        if parameter.grad is not None:
            trace.name("gradients", [parameter.grad])

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(name)  # type: ignore[no-untyped-call]
