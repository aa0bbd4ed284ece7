"""Where bfloat16 rounds: parts of a model give, bit for bit, what transformers' do; errors of a whole hide in noise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import (
    Gemma2RMSNorm,
    Gemma2TextScaledWordEmbedding,
    eager_attention_forward,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding
from transformers.models.olmo.modeling_olmo import OlmoLayerNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock
from transformers.models.stablelm.modeling_stablelm import StableLmLayerNormPerHead

from litft.families import model_config_from_hf
from litft.model.attention import softcapped_attention
from litft.model.gpt import GPT
from litft.model.layers import NORMS, MixtureOfExperts, NormEachHead
from litft.model.rope import Rope

C = 256
THEIRS: dict[str, Callable[[], nn.Module]] = {
    "rmsnorm": lambda: LlamaRMSNorm(C, eps=1e-5),
    "rmsnorm_float32": lambda: Olmo2RMSNorm(C, eps=1e-5),
    "rmsnorm_plus_one": lambda: Gemma2RMSNorm(C, eps=1e-5),
    "layernorm": lambda: nn.LayerNorm(C),
    "layernorm_no_bias": lambda: nn.LayerNorm(C, bias=False),
    "layernorm_plain": lambda: OlmoLayerNorm(C),
}


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()


@torch.no_grad()
@pytest.mark.parametrize("kind", NORMS)
def test_norms(kind: str) -> None:
    ours, theirs = NORMS[kind](C, 1e-5).bfloat16(), THEIRS[kind]().bfloat16()
    for index, (name, parameter) in enumerate(ours.named_parameters()):
        parameter += 0.3 * randn(index + 1, C)[-1]
        theirs.get_parameter(name).copy_(parameter)
    x = 3 * randn(8, 40, C)
    assert torch.equal(ours(x), theirs(x))


@torch.no_grad()
def test_a_norm_of_each_head() -> None:
    ours, theirs = NormEachHead(4, 64, 1e-5).bfloat16(), StableLmLayerNormPerHead(64, 4, eps=1e-5).bfloat16()
    ours.weight += 0.3 * randn(4, 64)
    for head, weight in enumerate(ours.weight):
        theirs.norms[head].weight.copy_(weight)
    x = 3 * randn(2, 4, 40, 64)
    assert torch.equal(ours(x), theirs(x))


@torch.no_grad()
@pytest.mark.parametrize("normalized", [True, False])
def test_a_router_and_its_experts(normalized: bool) -> None:
    hf = transformers.Qwen3MoeConfig(
        hidden_size=64, moe_intermediate_size=32, num_experts=16, num_experts_per_tok=4, norm_topk_prob=normalized
    )
    hf._experts_implementation = "eager"
    theirs = Qwen3MoeSparseMoeBlock(hf).bfloat16()
    for index, parameter in enumerate(theirs.parameters()):
        parameter.copy_(0.2 * randn(index + 1, *parameter.shape)[-1])
    ours = MixtureOfExperts(model_config_from_hf(hf.to_dict(), "m")).bfloat16()
    ours.router.weight.copy_(theirs.gate.weight)
    for index, expert in enumerate(ours.experts):
        gate, up = theirs.experts.gate_up_proj[index].chunk(2)
        for part, weight in (("gate", gate), ("up", up), ("down", theirs.experts.down_proj[index])):
            expert.get_parameter(f"{part}.weight").copy_(weight)
    x = randn(2, 50, 64)
    assert torch.equal(ours(x), theirs(x))


@torch.no_grad()
def test_attention_with_a_soft_cap() -> None:
    q, k, v = 4 * randn(2, 4, 40, 16), randn(2, 2, 40, 16), randn(2, 2, 40, 16)
    module = nn.Module().eval()
    module.num_key_value_groups = 2
    mask = torch.full((40, 40), torch.finfo(torch.bfloat16).min, dtype=torch.bfloat16).triu(1)
    theirs, _ = eager_attention_forward(module, q, k, v, mask, scaling=0.3, softcap=5.0)
    ours = softcapped_attention(q, k, v, mask=None, causal=True, scale=0.3, cap=5.0)
    assert torch.equal(ours.transpose(1, 2), theirs)


@torch.no_grad()
def test_scaled_embeddings() -> None:
    """The root of 48 is 6.928, in bfloat16 6.9375."""
    hf = transformers.Gemma2Config(vocab_size=96, hidden_size=48, num_hidden_layers=1, intermediate_size=8)
    ours = GPT(model_config_from_hf(hf.to_dict(), "m")).bfloat16()
    theirs = Gemma2TextScaledWordEmbedding(96, 48, 0, embed_scale=48**0.5).bfloat16()
    theirs.weight.copy_(ours.transformer.wte.weight)
    ids = torch.arange(96)[None]
    assert torch.equal(ours.embed(ids, torch.arange(96)), theirs(ids))


def test_angles_of_late_positions() -> None:
    """bfloat16 holds no whole number above 256 exactly."""
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(hidden_size=64, num_attention_heads=1))
    positions, x = torch.arange(3000, 3040), torch.zeros(1, dtype=torch.bfloat16)
    for ours, wanted in zip(
        Rope(64, 1e4, None).angles(positions, [(40, 4096)], x.dtype), theirs(x, positions[None]), strict=True
    ):
        assert torch.equal(ours, wanted[0])
