"""Gemma 1: Llama's layout, norms of 1 + weight, scaled embeddings, a head tied to them."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family
from litft.families.fields import Activation, HfFields
from litft.families.llama import llama_rules


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Gemma 1.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `GemmaConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `GemmaConfig` and `GemmaModel` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=3072), fields.integer("num_attention_heads", default=16)
    block_size = fields.integer("max_position_embeddings", default=8192)
    attention_bias = fields.flag("attention_bias", False)
    return ModelConfig(
        name=fields.name,
        family="gemma",
        n_layer=fields.integer("num_hidden_layers", default=28),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head, 16),
        head_size=fields.integer("head_dim", default=256),
        intermediate_size=fields.integer("intermediate_size", default=24576),
        block_size=block_size,
        **fields.vocabulary(256000),
        norm="rmsnorm_plus_one",
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        activation=_activation(fields),
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        embedding_scale=n_embd**0.5,
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        **fields.rope(block_size),
    )


def _activation(fields: HfFields) -> Activation:
    """Gives the activation; the first files say `gelu`, where the tanh form was meant. Source: `GemmaConfig`."""
    activation = "gelu_tanh" if fields.value("hidden_act") == "gelu" else fields.activation("hidden_act", "gelu_tanh")
    if fields.activation("hidden_activation", activation) != activation:
        fields.refuse("hidden_activation", f"hidden_act means {activation}")
    return activation


GEMMA = Family("gemma", ("gemma",), config_from_hf, llama_rules)
