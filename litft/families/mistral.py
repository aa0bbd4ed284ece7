"""Mistral 7B and its kin (Mathstral, Mistral Large, Danube 2): Llama's tensors, a sliding window, other defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litft.config.model import ModelConfig
from litft.families.base import Family
from litft.families.fields import HfFields
from litft.families.llama import rules


def config_from_hf(values: Mapping[str, Any], name: str) -> ModelConfig:
    """Gives the sizes of a Mistral.

    Args:
        values: the parsed config.json; absent keys take the defaults of transformers' `MistralConfig`.
        name: what to call the model.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `MistralConfig` and `MistralAttention` of transformers 5.
    """
    fields = HfFields(values, name)
    for bias in ("attention_bias", "mlp_bias"):
        fields.only(bias, None, False)
    n_embd, n_head = fields.integer("hidden_size", default=4096), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=4096 * 32)
    vocab_size = fields.integer("vocab_size", default=32000)
    return ModelConfig(
        name=name,
        family="mistral",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        # Two kinds of silence: an absent key is the class default, an explicit null means as many as heads.
        n_query_groups=fields.integer("num_key_value_heads", default=n_head if "num_key_value_heads" in values else 8),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=14336),
        block_size=block_size,
        vocab_size=vocab_size,
        padded_vocab_size=vocab_size,
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        activation=fields.activation("hidden_act", "silu"),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        sliding_window=fields.optional_integer("sliding_window") if "sliding_window" in values else 4096,
        **fields.rope(block_size),
    )


MISTRAL = Family("mistral", ("mistral",), config_from_hf, rules)
