"""Phi 1, 1.5 and 2: attention and MLP in parallel behind one norm, biases everywhere, the head included."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Drop, Family, Rule, fuse_qkv, head_rules, rename_linear
from litft.families.fields import HfFields


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Phi.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `PhiConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `PhiConfig`, `PhiAttention` and `PhiDecoderLayer` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=2048), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=2048)
    return ModelConfig(
        name=fields.name,
        family="phi",
        n_layer=fields.integer("num_hidden_layers", default=24),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=8192),
        block_size=block_size,
        **fields.vocabulary(51200),
        norm="layernorm",
        norm_eps=fields.number("layer_norm_eps", default=1e-5),
        mlp="plain",
        activation=fields.activation("hidden_act", "gelu_tanh"),
        block="shared_norm",
        qkv_bias=True,
        proj_bias=True,
        mlp_bias=True,
        lm_head_bias=True,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **fields.rope(block_size, partial_key="partial_rotary_factor", partial_default=0.5),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a Phi's tensors.

    Source: `PhiForCausalLM` of transformers.
    """
    ours, theirs = "transformer.h.{i}", "model.layers.{i}"
    attention = f"{theirs}.self_attn"
    return [
        *head_rules(config, "model.embed_tokens", "lm_head"),
        *rename_linear(f"{ours}.norm_1", f"{theirs}.input_layernorm", bias=True),
        *fuse_qkv(f"{ours}.attn.qkv", [f"{attention}.{part}_proj" for part in "qkv"], config),
        *rename_linear(f"{ours}.attn.proj", f"{attention}.dense", bias=True),
        *rename_linear(f"{ours}.mlp.up", f"{theirs}.mlp.fc1", bias=True),
        *rename_linear(f"{ours}.mlp.down", f"{theirs}.mlp.fc2", bias=True),
        *rename_linear("transformer.ln_f", "model.final_layernorm", bias=True),
        Drop(f"{attention}.rotary_emb.inv_freq"),
    ]


PHI = Family("phi", ("phi",), config_from_hf, rules)
