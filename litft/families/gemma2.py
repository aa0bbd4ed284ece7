"""Gemma 2: norms before and after attention and MLP, soft caps, every second block with a window."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family, Rule
from litft.families.fields import HfFields
from litft.families.llama import llama_rules

# `post_attention_layernorm` stands after attention here, and before the MLP in Llama.
NORMS = {
    "norm_1": "input_layernorm",
    "norm_attn_out": "post_attention_layernorm",
    "norm_2": "pre_feedforward_layernorm",
    "norm_mlp_out": "post_feedforward_layernorm",
}


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Gemma 2.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `Gemma2Config`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `Gemma2Config`, `Gemma2Attention` and `Gemma2DecoderLayer` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=2304), fields.integer("num_attention_heads", default=8)
    n_layer = fields.integer("num_hidden_layers", default=26)
    block_size = fields.integer("max_position_embeddings", default=8192)
    attention_bias = fields.flag("attention_bias", False)
    for field in ("hidden_act", "sliding_window_size"):
        fields.has(field)  # second spellings in the published files, which transformers does not read
    return ModelConfig(
        name=fields.name,
        family="gemma2",
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head, 4),
        head_size=fields.integer("head_dim", default=256),
        intermediate_size=fields.integer("intermediate_size", default=9216),
        block_size=block_size,
        **fields.vocabulary(256000),
        norm="rmsnorm_plus_one",
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        activation=fields.activation("hidden_activation", "gelu_tanh"),
        block="sandwich",
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        attention_scale=fields.number("query_pre_attn_scalar", default=256) ** -0.5,
        attention_softcap=fields.cap("attn_logit_softcapping", 50.0),
        logit_softcap=fields.cap("final_logit_softcapping", 30.0),
        embedding_scale=n_embd**0.5,
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        **fields.windows(fields.window(4096), range(1, n_layer, 2), n_layer),
        **fields.rope(block_size),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a Gemma 2's tensors.

    Source: `Gemma2ForCausalLM` of transformers.
    """
    return llama_rules(config, NORMS)


GEMMA2 = Family("gemma2", ("gemma2",), config_from_hf, rules)
