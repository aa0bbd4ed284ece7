"""Mistral 7B and its kin (Mathstral, Mistral Large, Danube 2): Llama's tensors, a sliding window, other defaults."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family
from litft.families.fields import HfFields
from litft.families.llama import rules


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Mistral.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `MistralConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `MistralConfig` and `MistralAttention` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=4096), fields.integer("num_attention_heads", default=32)
    n_layer = fields.integer("num_hidden_layers", default=32)
    block_size = fields.integer("max_position_embeddings", default=4096 * 32)
    return ModelConfig(
        name=fields.name,
        family="mistral",
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head, 8),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=14336),
        block_size=block_size,
        **fields.vocabulary(32000),
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        activation=fields.activation("hidden_act", "silu"),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **fields.windows(fields.window(4096), (), n_layer),
        **fields.rope(block_size),
    )


MISTRAL = Family("mistral", ("mistral",), config_from_hf, rules)
