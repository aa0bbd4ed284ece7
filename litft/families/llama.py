"""Llama and everything with its layout: Llama 1 to 3.x, Code Llama, Vicuna, TinyLlama, SmolLM2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litft.config.model import ModelConfig
from litft.families.base import Drop, Family, Rule, fuse_qkv, head_rules, rename_linear
from litft.families.fields import HfFields


def config_from_hf(values: Mapping[str, Any], name: str) -> ModelConfig:
    """Gives the sizes of a Llama.

    Args:
        values: the parsed config.json; absent keys take the defaults of transformers' `LlamaConfig`.
        name: what to call the model.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `LlamaConfig` and `LlamaAttention` of transformers 5.
    """
    fields = HfFields(values, name)
    n_embd, n_head = fields.integer("hidden_size", default=4096), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=2048)
    attention_bias = fields.flag("attention_bias", False)
    vocab_size = fields.integer("vocab_size", default=32000)
    return ModelConfig(
        name=name,
        family="llama",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.integer("num_key_value_heads", default=n_head),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=11008),
        block_size=block_size,
        vocab_size=vocab_size,
        padded_vocab_size=vocab_size,
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        activation=fields.activation("hidden_act", "silu"),
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        mlp_bias=fields.flag("mlp_bias", False),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        **fields.rope(block_size),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a Llama's tensors.

    Source: `LlamaForCausalLM` of transformers; `inv_freq` stood in files written before transformers 4.32.
    """
    ours, theirs = "transformer.h.{i}", "model.layers.{i}"
    projections = [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]
    return [
        *head_rules(config, "model.embed_tokens.weight", "lm_head.weight"),
        *rename_linear(f"{ours}.norm_1", f"{theirs}.input_layernorm", bias=False),
        *fuse_qkv(f"{ours}.attn.qkv", projections, config),
        *rename_linear(f"{ours}.attn.proj", f"{theirs}.self_attn.o_proj", config.proj_bias),
        *rename_linear(f"{ours}.norm_2", f"{theirs}.post_attention_layernorm", bias=False),
        *rename_linear(f"{ours}.mlp.gate", f"{theirs}.mlp.gate_proj", config.mlp_bias),
        *rename_linear(f"{ours}.mlp.up", f"{theirs}.mlp.up_proj", config.mlp_bias),
        *rename_linear(f"{ours}.mlp.down", f"{theirs}.mlp.down_proj", config.mlp_bias),
        *rename_linear("transformer.ln_f", "model.norm", bias=False),
        Drop(f"{theirs}.self_attn.rotary_emb.inv_freq"),
        Drop("model.rotary_emb.inv_freq"),
    ]


LLAMA = Family("llama", ("llama",), config_from_hf, rules)
