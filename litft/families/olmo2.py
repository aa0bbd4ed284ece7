"""OLMo 2: norms after attention and MLP, and over all heads of queries and keys together."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family, Rule
from litft.families.fields import HfFields
from litft.families.llama import llama_rules


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of an OLMo 2.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `Olmo2Config`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `Olmo2Config`, `Olmo2Attention` and `Olmo2DecoderLayer` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=4096), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=2048)
    attention_bias = fields.flag("attention_bias", False)
    return ModelConfig(
        name=fields.name,
        family="olmo2",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=11008),
        block_size=block_size,
        **fields.vocabulary(50304),
        norm="rmsnorm_float32",
        norm_eps=fields.number("rms_norm_eps", default=1e-5),
        qk_norm="all_heads",
        activation=fields.activation("hidden_act", "silu"),
        block="post_norm",
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **fields.rope(block_size),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of an OLMo 2's tensors.

    Source: `Olmo2ForCausalLM` of transformers.
    """
    norms = {"norm_attn_out": "post_attention_layernorm", "norm_mlp_out": "post_feedforward_layernorm"}
    return llama_rules(config, norms)


OLMO2 = Family("olmo2", ("olmo2",), config_from_hf, rules)
