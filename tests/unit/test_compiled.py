"""Blocks compiled one by one: the same gradients, few compilations, and a run goes on where that fails."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from tiny_configs import CONFIGS
from torch import Tensor
from torch._dynamo.utils import counters

from litft.config.model import ModelConfig
from litft.config.run import AdapterConfig, LoRAConfig
from litft.methods.adapter import AdapterV2
from litft.methods.base import Full, Method, freeze
from litft.methods.lora import LoRA
from litft.model.activations import Activations
from litft.model.attention import KVCache
from litft.model.gpt import GPT
from litft.model.load import build_random
from litft.train.kernels import compile_fault

# Of torch's own code, as it traces ours.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}Warning") for kind in ("Deprecation", "User")]
CPU = torch.device("cpu")
LLAMA = CONFIGS["llama"]
ONE_BLOCK = dataclasses.replace(LLAMA, n_layer=1)  # each further one is compiled again, to the same
LORA = LoRAConfig(r=2, dropout=0.0, targets=("q", "v", "proj", "mlp"))
# Ten windows: of other lengths, other numbers of documents, one that goes on from another.
WINDOWS = [
    [(9, -1), (7, -1)],
    [(20, -1), (12, -1)],
    [(30, -1), (2, -1), (16, -1)],
    [(64, -1)],
    [(10, -1)] * 8,
    [(16, -1), (17, 0), (15, 0)],
    [(33, -1), (15, -1)],
    [(40, -1), (30, -1), (10, -1)],
    [(5, -1)] * 16,
    [(96, -1), (16, -1)],
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def build(config: ModelConfig, method: Method) -> GPT:
    torch.manual_seed(0)
    model = build_random(config, "32-true", CPU, 0)
    method.apply(model)
    freeze(model, method)
    for name, parameter in model.named_parameters():
        if name.endswith(("lora_B", "adapter_gate")):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def gradients(model: GPT, documents: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(documents))
    total = sum(length for length, _ in documents)
    ids = torch.randint(model.config.vocab_size, (1, total), generator=generator)
    model.zero_grad()
    hidden = model(ids, documents=documents)
    (hidden * torch.randn(hidden.shape, generator=generator)).sum().backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_same(compiled: GPT, plain: GPT, documents: Sequence[tuple[int, int]]) -> None:
    found, right = gradients(compiled, documents), gradients(plain, documents)
    assert found.keys() == right.keys()
    for name, gradient in right.items():
        assert torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name


def test_ten_windows_need_no_more_compilations_than_four() -> None:
    config = dataclasses.replace(LLAMA, n_layer=2)
    compiled, plain = build(config, LoRA(LORA)), build(config, LoRA(LORA))
    compiled.compile_blocks("aot_eager")
    graphs = []
    for documents in WINDOWS:
        assert_same(compiled, plain, documents)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] > 0
    assert graphs[3:] == [graphs[3]] * 7, graphs
    with torch.no_grad():
        assert torch.equal(token_by_token(compiled), token_by_token(plain))
    assert counters["stats"]["unique_graphs"] == graphs[3]  # a cache is never compiled for


def token_by_token(model: GPT) -> Tensor:
    cache = KVCache(model.config, 1, 8, CPU, torch.float32)
    return torch.cat([model(torch.tensor([[token]]), cache) for token in range(8)])


CASES: dict[str, tuple[str, Any, Activations]] = {
    "all of Gemma 2's is trained": ("gemma2", lambda: Full(), Activations()),
    "experts": ("mixtral", lambda: Full(), Activations()),
    "adapters": ("llama", lambda: AdapterV2(AdapterConfig(start_layer=0)), Activations("mlp")),
    "DoRA": ("llama", lambda: LoRA(dataclasses.replace(LORA, dora=True)), Activations()),
    "blocks computed again": ("pythia", lambda: LoRA(LORA), Activations("block")),
    "activations kept elsewhere": ("llama", lambda: LoRA(LORA), Activations("none", offload=True)),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_plain_blocks(case: str) -> None:
    family, method, activations = CASES[case]
    models = []
    for _ in range(2):
        models.append(build(dataclasses.replace(CONFIGS[family], n_layer=1), method()))
        models[-1].keep_activations(activations)
    models[0].compile_blocks("eager")  # what torch makes of the code; the test above goes further
    for documents in WINDOWS[:2]:
        assert_same(*models, documents)
    assert counters["stats"]["unique_graphs"] > 0


def test_answers_are_those_of_plain_blocks() -> None:
    models = [build(ONE_BLOCK, LoRA(LORA)).eval() for _ in range(2)]
    models[0].compile_blocks("eager")
    with torch.no_grad():
        ids = torch.arange(48)[None]
        assert torch.allclose(models[0](ids, documents=WINDOWS[6]), models[1](ids, documents=WINDOWS[6]), atol=1e-5)
        padded = torch.arange(32).view(2, 16)
        assert torch.allclose(models[0](padded), models[1](padded), atol=1e-5)
    assert counters["stats"]["unique_graphs"] > 0


@pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("c++") is None, reason="no compiler")
def test_the_compiler_of_a_run_gives_the_same_gradients() -> None:
    found = []
    for compiles in (True, False):
        model = build(ONE_BLOCK, LoRA(dataclasses.replace(LORA, targets=("q", "v"))))
        if compiles:
            model.compile_blocks()
        model(torch.arange(32).view(2, 16)).square().mul(torch.arange(16)).sum().backward()
        found.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    assert counters["inductor"]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def wrong(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
    """A compiler that gets floating-point numbers wrong."""

    def run(*given: Any) -> Any:
        out = graph(*given)
        return tuple(each * 1.1 if isinstance(each, Tensor) and each.is_floating_point() else each for each in out)

    return run


def broken(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
    raise RuntimeError("no compiler here")


def test_a_compiler_that_is_wrong_or_missing_is_found_out() -> None:
    model = build(ONE_BLOCK, LoRA(LORA))
    assert compile_fault(model, CPU, "eager") is None
    torch._dynamo.reset()
    assert "off by" in str(compile_fault(model, CPU, wrong))
    torch._dynamo.reset()
    assert "torch.compile fails here (" in str(compile_fault(model, CPU, broken))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_run_is_never_compiled_to_other_gradients() -> None:
    """Whatever this torch makes of dropout and of gradients that are written out: it is said, or it is right."""
    models = [build(ONE_BLOCK, LoRA(dataclasses.replace(LORA, dropout=0.1))) for _ in range(2)]
    fault = compile_fault(models[0], CPU, "eager")
    assert next(module.p for module in models[0].modules() if isinstance(module, torch.nn.Dropout)) == 0.1
    if fault is None:
        models[0].compile_blocks("eager")
    else:
        assert "off by" in fault or "fails here" in fault
    for model in models:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    assert_same(*models, WINDOWS[0])
