"""Pythia and everything with GPT-NeoX's layout: Dolly v2, RedPajama-INCITE, StableLM alpha."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Drop, Family, Rule, head_rules, regroup_qkv, rename_linear
from litft.families.fields import HfFields


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a GPT-NeoX.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `GPTNeoXConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `GPTNeoXConfig` and `GPTNeoXAttention` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=6144), fields.integer("num_attention_heads", default=64)
    block_size = fields.integer("max_position_embeddings", default=2048)
    attention_bias = fields.flag("attention_bias", True)
    head_size = fields.head_size(n_embd, n_head)
    fields.only("head_dim", None, head_size)  # transformers would take its rotation from it, and nothing else
    return ModelConfig(
        name=fields.name,
        family="pythia",
        n_layer=fields.integer("num_hidden_layers", default=44),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=n_head,
        head_size=head_size,
        intermediate_size=fields.integer("intermediate_size", default=24576),
        block_size=block_size,
        **fields.vocabulary(50432),
        norm="layernorm",
        norm_eps=fields.number("layer_norm_eps", default=1e-5),
        mlp="plain",
        activation=fields.activation("hidden_act", "gelu"),
        block="parallel" if fields.flag("use_parallel_residual", True) else "sequential",
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        mlp_bias=True,
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **fields.rope(block_size, base_key="rotary_emb_base", partial_key="rotary_pct", partial_default=0.25),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a GPT-NeoX's tensors; query_key_value holds q, k, v head by head.

    Source: `GPTNeoXForCausalLM` of transformers (names on disk); old files also hold the causal mask as
    `attention.bias` and `attention.masked_bias`.
    """
    ours, theirs = "transformer.h.{i}", "gpt_neox.layers.{i}"
    return [
        *head_rules(config, "gpt_neox.embed_in", "embed_out"),
        *rename_linear(f"{ours}.norm_1", f"{theirs}.input_layernorm", bias=True),
        *regroup_qkv(f"{ours}.attn.qkv", f"{theirs}.attention.query_key_value", config),
        *rename_linear(f"{ours}.attn.proj", f"{theirs}.attention.dense", config.proj_bias),
        *rename_linear(f"{ours}.norm_2", f"{theirs}.post_attention_layernorm", bias=True),
        *rename_linear(f"{ours}.mlp.up", f"{theirs}.mlp.dense_h_to_4h", config.mlp_bias),
        *rename_linear(f"{ours}.mlp.down", f"{theirs}.mlp.dense_4h_to_h", config.mlp_bias),
        *rename_linear("transformer.ln_f", "gpt_neox.final_layer_norm", bias=True),
        Drop(f"{theirs}.attention.bias"),
        Drop(f"{theirs}.attention.masked_bias"),
        Drop(f"{theirs}.attention.rotary_emb.inv_freq"),
        Drop("gpt_neox.rotary_emb.inv_freq"),
    ]


PYTHIA = Family("pythia", ("gpt_neox",), config_from_hf, rules)
