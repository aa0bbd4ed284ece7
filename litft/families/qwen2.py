"""Qwen2, Qwen2.5 and QwQ: Llama's layout with biases on queries, keys and values."""

from __future__ import annotations

from typing import Any

from litft.config.model import ModelConfig
from litft.families.base import Family
from litft.families.fields import HfFields
from litft.families.llama import llama_rules


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Qwen2.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `Qwen2Config`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `Qwen2Config` and `Qwen2Attention` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=4096), fields.integer("num_attention_heads", default=32)
    n_layer = fields.integer("num_hidden_layers", default=32)
    block_size = fields.integer("max_position_embeddings", default=32768)
    return ModelConfig(
        name=fields.name,
        family="qwen2",
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head, 32),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=22016),
        block_size=block_size,
        **fields.vocabulary(151936),
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        activation=fields.activation("hidden_act", "silu"),
        qkv_bias=True,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **qwen_windows(fields, n_layer),
        **fields.rope(block_size),
    )


def qwen_windows(fields: HfFields, n_layer: int) -> dict[str, Any]:
    """Gives the blocks with a sliding window: those from `max_window_layers` on, where windows are used at all."""
    window = fields.window(4096, fields.flag("use_sliding_window", False))
    full = range(min(n_layer, fields.integer("max_window_layers", default=28)))
    return fields.windows(window, full, n_layer)


QWEN2 = Family("qwen2", ("qwen2",), config_from_hf, llama_rules)
