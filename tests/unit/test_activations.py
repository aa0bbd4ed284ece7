"""What a forward pass keeps: gradients are the same bit for bit, and less is kept."""

from __future__ import annotations

import pytest
import torch
from tiny_configs import CONFIGS
from tiny_run import methods
from torch import Tensor

from litft.methods.base import freeze
from litft.model.activations import Activations, _from_cpu, _to_cpu
from litft.model.gpt import GPT


def run(model: GPT, how: Activations) -> tuple[list[Tensor], int]:
    """Gives the gradients and the bytes that were kept for the backward pass."""
    model.keep_activations(how)
    torch.manual_seed(5)  # dropout
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 50, (1, 40), generator=torch.Generator().manual_seed(1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model(ids, documents=((20, -1), (15, -1), (5, -1)))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    hidden.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return gradients, sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize("family", CONFIGS)
def test_what_is_computed_again_gives_the_same_gradient_and_keeps_less(family: str) -> None:
    model = GPT(CONFIGS[family])
    model.init_weights(seed=0)
    method = methods()["lora"]
    method.apply(model)
    freeze(model, method)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(0.1) if name.endswith("lora_B") else None
    plain, all_kept = run(model.train(), Activations())
    sizes = []
    for recompute in ("mlp", "block"):
        gradients, kept = run(model, Activations(recompute))  # type: ignore[arg-type]
        assert all(torch.equal(one, other) for one, other in zip(plain, gradients, strict=True))
        sizes.append(kept)
    assert all_kept > sizes[0] > sizes[1]


def test_offloading_leaves_weights_where_they_are() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 3))
    for tensor in (weight, weight.T, torch.randn(2)):
        assert _from_cpu(_to_cpu(tensor)) is tensor  # on a CPU nothing is copied at all
    model = GPT(CONFIGS["llama"])
    plain, _ = run(model, Activations())
    gradients, _ = run(model, Activations(offload=True))
    assert all(torch.equal(one, other) for one, other in zip(plain, gradients, strict=True))
