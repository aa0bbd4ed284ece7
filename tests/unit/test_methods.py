"""Methods begin as their base, add up to what their papers say, and merge without a difference."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_configs import CONFIGS, FALCON, LLAMA, MIXTRAL, OLMO2, PYTHIA
from tiny_run import LORA, methods
from torch import Tensor, nn

from litft.config.model import ModelConfig
from litft.config.run import AdapterConfig, LoRAConfig
from litft.errors import ConfigError
from litft.methods.adapter import Adapter, AdapterAttention, AdapterLinear
from litft.methods.base import freeze, swap_module, trainable_state
from litft.methods.lora import LoRA, LoRALinear, target_slices
from litft.methods.lora_product import keep_mask
from litft.model.attention import AttentionContext
from litft.model.gpt import GPT

UNPACKED = AttentionContext(torch.empty(0), torch.empty(0), (None,), torch.empty(0), None, None, is_plain=True)


@pytest.fixture(params=CONFIGS)
def gpt(request: pytest.FixtureRequest) -> GPT:
    model = GPT(CONFIGS[request.param])
    model.init_weights(seed=0)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases, of which a forgotten one would not be seen as they begin
                parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))


def logits(model: GPT, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model.head(model(ids))


def shake(model: GPT, method_name: str) -> None:
    """Moves every trainable parameter away from its start."""
    torch.manual_seed(1)
    for tensor in trainable_state(model, methods()[method_name]).values():
        tensor += 0.3 * torch.randn_like(tensor)


@pytest.mark.parametrize("name", methods())
def test_a_method_begins_as_its_base_and_matters_once_moved(gpt: GPT, ids: Tensor, name: str) -> None:
    base = logits(gpt, ids)
    methods()[name].apply(gpt)
    assert torch.allclose(logits(gpt.eval(), ids), base, atol=1e-6)
    shake(gpt, name)
    assert (logits(gpt, ids) - base).abs().max() > 1e-3


@pytest.mark.parametrize("name", methods())
def test_a_gradient_reaches_what_is_trained_and_nothing_else(gpt: GPT, ids: Tensor, name: str) -> None:
    method = methods()[name]
    method.apply(gpt)
    freeze(gpt, method)
    gpt.head(gpt(ids)).sum().backward()
    with_gradient = {name for name, parameter in gpt.named_parameters() if parameter.grad is not None}
    assert with_gradient == trainable_state(gpt, method).keys()
    assert with_gradient


def test_merged_lora_equals_unmerged(gpt: GPT, ids: Tensor) -> None:
    LoRA(LORA).apply(gpt)
    shake(gpt, "lora")
    wanted = logits(gpt.eval(), ids)
    layers = [(path, module) for path, module in gpt.named_modules() if isinstance(module, LoRALinear)]
    assert layers
    for path, layer in layers:
        layer.base.weight.data += layer.delta()
        swap_module(gpt, path, layer.base)
    assert torch.allclose(logits(gpt, ids), wanted, atol=1e-5)


def test_lora_is_the_papers_formula_on_the_rows_of_q_and_v_only() -> None:
    torch.manual_seed(0)
    config = LoRAConfig(r=2, alpha=6, dropout=0.0, targets=("q", "v"))
    model = GPT(LLAMA)
    base = model.get_submodule("transformer.h.0.attn.qkv")
    assert isinstance(base, nn.Linear)
    LoRA(config).apply(model)
    layer = model.get_submodule("transformer.h.0.attn.qkv")
    assert isinstance(layer, LoRALinear)
    layer.lora_B.data.normal_()
    x = torch.randn(3, 16)
    q_rows, v_rows = slice(0, 16), slice(24, 32)  # 16 of q, 8 of k, 8 of v
    wanted = base(x)
    wanted[:, q_rows] += 3.0 * x @ layer.lora_A[:2].T @ layer.lora_B[:16].T
    wanted[:, v_rows] += 3.0 * x @ layer.lora_A[2:].T @ layer.lora_B[16:].T
    assert torch.allclose(layer(x), wanted, atol=1e-6)


def test_dropout_falls_on_what_an_adapter_reads_and_only_in_training() -> None:
    model = GPT(LLAMA)
    base = model.get_submodule("transformer.h.0.attn.proj")
    LoRA(LoRAConfig(r=2, alpha=6, dropout=0.4, targets=("proj",))).apply(model)
    layer = model.get_submodule("transformer.h.0.attn.proj")
    assert isinstance(base, nn.Linear) and isinstance(layer, LoRALinear)
    layer.lora_B.data.normal_()
    layer.base.requires_grad_(False)
    x = torch.randn(3, 16)
    for training in (True, False):
        torch.manual_seed(0)
        seen = x * keep_mask(x, 0.4) / 0.6 if training else x
        torch.manual_seed(0)
        wanted = base(x) + 3.0 * seen @ layer.lora_A.T @ layer.lora_B.T
        assert torch.allclose(layer.train(training)(x), wanted, atol=1e-6)


def test_lora_adapters_are_float32_beside_bfloat16_weights(ids: Tensor) -> None:
    model = GPT(LLAMA).to(torch.bfloat16)
    for name in ("lora", "adapter_v2"):
        methods()[name].apply(model)
    for name, parameter in model.named_parameters():
        trained = any(methods()[kind].is_trainable(name) for kind in ("lora", "adapter_v2"))
        assert parameter.dtype == (torch.float32 if trained else torch.bfloat16), name
    assert model(ids).dtype == torch.bfloat16


def test_published_counts_of_llama_2_7b() -> None:
    """Lit-GPT's r=8 on q and v trains 4,194,304 parameters of Llama 2 7b; LLaMA-Adapter v1 trains 1,229,760."""
    for method, count in ((LoRA(LoRAConfig()), 4_194_304), (Adapter(AdapterConfig()), 1_229_760)):
        with torch.device("meta"):
            model = GPT(ModelConfig.from_name("Llama-2-7b-hf"))
        assert sum(parameter.numel() for parameter in model.parameters()) == 6_738_415_616
        method.apply(model)
        freeze(model, method)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_targets_name_the_rows_of_each_family() -> None:
    assert target_slices(LLAMA, ("v", "q"))["transformer.h.0.attn.qkv"] == [(0, 16), (24, 32)]
    assert target_slices(FALCON, ("k",))["transformer.h.1.attn.qkv"] == [(16, 20)]
    assert {path for path in target_slices(PYTHIA, ("mlp",)) if ".0." in path} == {
        "transformer.h.0.mlp.up",
        "transformer.h.0.mlp.down",
    }
    assert list(target_slices(LLAMA, ("head",))) == ["lm_head"]
    assert target_slices(OLMO2, ("q", "v")) == target_slices(LLAMA, ("q", "v"))


def test_lora_on_the_mlp_of_a_mixture_adapts_every_expert_and_never_the_router() -> None:
    found = target_slices(MIXTRAL, ("mlp",))
    parts = {"gate": (0, 24), "up": (0, 24), "down": (0, 16)}
    assert found == {
        f"transformer.h.{layer}.mlp.experts.{expert}.{part}": [rows]
        for layer in range(2)
        for expert in range(4)
        for part, rows in parts.items()
    }
    everything = target_slices(MIXTRAL, LORA.targets)
    assert not any("router" in path for path in everything)
    linears = {path for path, module in GPT(MIXTRAL).named_modules() if isinstance(module, nn.Linear)}
    assert linears - everything.keys() == {f"transformer.h.{layer}.mlp.router" for layer in range(2)}


def test_adapter_v2_scales_the_router_too() -> None:
    model = GPT(MIXTRAL)
    methods()["adapter_v2"].apply(model)
    assert isinstance(model.get_submodule("transformer.h.0.mlp.router"), AdapterLinear)
    assert isinstance(model.get_submodule("transformer.h.1.mlp.experts.3.down"), AdapterLinear)


def test_the_prompt_of_an_adapter_is_attended_by_its_own_softmax_without_rotation() -> None:
    torch.manual_seed(0)
    model = GPT(LLAMA)
    Adapter(AdapterConfig(prompt_length=3, start_layer=0)).apply(model)
    layer = model.get_submodule("transformer.h.0.attn")
    assert isinstance(layer, AdapterAttention)
    layer.adapter_gate.data = torch.tensor([0.0, 1.0, 2.0, -1.0])
    q, k, v = torch.randn(1, 4, 5, 4), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4)
    _, prompt_k, prompt_v = layer.qkv(layer.adapter_prompt).split([16, 8, 8], dim=-1)
    plain = super(AdapterAttention, layer).attend(q, k, v, UNPACKED)
    for head, gate in enumerate(layer.adapter_gate.tolist()):
        group = slice(4 * (head // 2), 4 * (head // 2) + 4)
        scores = (q[0, head] @ prompt_k[:, group].T / 2).softmax(-1)  # 2 = sqrt(head_size)
        wanted = plain[0, head] + gate * scores @ prompt_v[:, group]
        assert torch.allclose(layer.attend(q, k, v, UNPACKED)[0, head], wanted, atol=1e-6)


def test_a_tied_head_is_no_target() -> None:
    with pytest.raises(ConfigError, match="is its embedding; leave head out"):
        LoRA(LORA).apply(GPT(dataclasses.replace(LLAMA, tie_embeddings=True)))
