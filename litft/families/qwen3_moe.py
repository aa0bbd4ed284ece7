"""Qwen3 with a mixture of experts: Qwen3's attention, a router over many small MLPs."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family, Rule, rename_linear
from litft.families.fields import HfFields
from litft.families.llama import BLOCK, THEIR_BLOCK, llama_rules


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Qwen3-MoE.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `Qwen3MoeConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `Qwen3MoeConfig` and `Qwen3MoeSparseMoeBlock` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=2048), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=32768)
    attention_bias = fields.flag("attention_bias", False)
    fields.only("mlp_only_layers", None, [])
    fields.only("decoder_sparse_step", None, 1)
    for field in ("intermediate_size", "max_window_layers"):
        fields.has(field)  # of blocks without experts; of Qwen2, and not read here
    return ModelConfig(
        name=fields.name,
        family="qwen3_moe",
        n_layer=fields.integer("num_hidden_layers", default=24),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head, 4),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("moe_intermediate_size", default=768),
        block_size=block_size,
        **fields.vocabulary(151936),
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        qk_norm="head",
        activation=fields.activation("hidden_act", "silu"),
        n_expert=fields.integer("num_experts", "num_local_experts", default=128),
        n_expert_per_token=fields.integer("num_experts_per_tok", default=8),
        normalize_expert_weights=fields.flag("norm_topk_prob", False),
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        sliding_window=fields.window(4096, fields.flag("use_sliding_window", False)),
        **fields.rope(block_size),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a Qwen3-MoE's tensors.

    Source: `Qwen3MoeForCausalLM` (names on disk) of transformers.
    """
    theirs = f"{THEIR_BLOCK}.mlp"
    mlp = rename_linear(f"{BLOCK}.mlp.router", f"{theirs}.gate", bias=False)
    for expert in range(config.n_expert):
        for part in ("gate", "up", "down"):
            ours = f"{BLOCK}.mlp.experts.{expert}.{part}"
            mlp += rename_linear(ours, f"{theirs}.experts.{expert}.{part}_proj", bias=False)
    return llama_rules(config, mlp=mlp)


QWEN3_MOE = Family("qwen3_moe", ("qwen3_moe",), config_from_hf, rules)
