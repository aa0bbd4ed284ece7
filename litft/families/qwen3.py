"""Qwen3: Llama's layout with a norm on each query and key."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family
from litft.families.fields import HfFields
from litft.families.llama import llama_rules
from litft.families.qwen2 import qwen_windows


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Qwen3.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `Qwen3Config`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `Qwen3Config` and `Qwen3Attention` of transformers 5.
    """
    n_head, n_layer = fields.integer("num_attention_heads", default=32), fields.integer("num_hidden_layers", default=32)
    block_size = fields.integer("max_position_embeddings", default=32768)
    attention_bias = fields.flag("attention_bias", False)
    return ModelConfig(
        name=fields.name,
        family="qwen3",
        n_layer=n_layer,
        n_head=n_head,
        n_embd=fields.integer("hidden_size", default=4096),
        n_query_groups=fields.query_groups(n_head, 32),
        head_size=fields.integer("head_dim", default=128),
        intermediate_size=fields.integer("intermediate_size", default=22016),
        block_size=block_size,
        **fields.vocabulary(151936),
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        qk_norm="head",
        activation=fields.activation("hidden_act", "silu"),
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **qwen_windows(fields, n_layer),
        **fields.rope(block_size),
    )


QWEN3 = Family("qwen3", ("qwen3",), config_from_hf, llama_rules)
