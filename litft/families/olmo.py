"""OLMo 1 (the -hf repositories): Llama's layout with norms that have no parameters."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family
from litft.families.fields import HfFields
from litft.families.llama import llama_rules


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of an OLMo.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `OlmoConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `OlmoConfig`, `OlmoLayerNorm` and `OlmoAttention` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=4096), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=2048)
    attention_bias = fields.flag("attention_bias", False)
    return ModelConfig(
        name=fields.name,
        family="olmo",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=11008),
        block_size=block_size,
        **fields.vocabulary(50304),
        norm="layernorm_plain",
        norm_eps=1e-5,
        activation=fields.activation("hidden_act", "silu"),
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        qkv_clip=fields.optional_number("clip_qkv"),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **fields.rope(block_size),
    )


OLMO = Family("olmo", ("olmo",), config_from_hf, llama_rules)
