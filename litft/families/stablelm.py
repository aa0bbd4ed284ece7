"""StableLM 3B, Zephyr 3B, Stable Code 3B and StableLM 2: Llama's layout with layer norms and partial rotation."""

from __future__ import annotations

from typing import Any

from litft.config.model import ModelConfig
from litft.families.base import Family, Rule, Stack
from litft.families.fields import HfFields
from litft.families.llama import BLOCK, NORMS, THEIR_BLOCK, llama_rules


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a StableLM.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `StableLmConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `StableLmConfig`, `StableLmAttention` and `StableLmDecoderLayer` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=2560), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=4096)
    variants: dict[str, Any] = {
        "qk_norm": "each_head" if fields.flag("qk_layernorm", False) else None,
        "block": "shared_norm" if fields.flag("use_parallel_residual", False) else "sequential",
    }
    return ModelConfig(
        name=fields.name,
        family="stablelm",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head, 32),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=6912),
        block_size=block_size,
        **fields.vocabulary(50304),
        norm="layernorm",
        norm_eps=fields.number("layer_norm_eps", default=1e-5),
        activation=fields.activation("hidden_act", "silu"),
        qkv_bias=fields.flag("use_qkv_bias", False),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **variants,
        **fields.rope(block_size, partial_key="partial_rotary_factor", partial_default=0.25),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a StableLM's tensors; norms of queries and keys are a tensor for each head.

    Source: `StableLmForCausalLM` of transformers.
    """
    norms = {ours: theirs for ours, theirs in NORMS.items() if ours in config.block_norms}
    rules = llama_rules(config, norms)
    if config.qk_norm is None:
        return rules
    heads = {"q": config.n_head, "k": config.n_query_groups}
    stacks: list[Rule] = [
        Stack(
            f"{BLOCK}.attn.norm_{part}.weight",
            tuple(f"{THEIR_BLOCK}.self_attn.{part}_layernorm.norms.{head}.weight" for head in range(count)),
        )
        for part, count in heads.items()
    ]
    return [*rules, *stacks]


STABLELM = Family("stablelm", ("stablelm",), config_from_hf, rules)
