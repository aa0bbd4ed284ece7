"""Phi 3, 3.5 and 4: Llama's network with fused projections, and longrope for the long contexts."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Drop, Family, Rule, Split, head_rules, rename_linear
from litft.families.fields import HfFields


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Phi 3.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `Phi3Config`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `Phi3Config` and `Phi3Attention` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=3072), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=4096)
    fields.has("original_max_position_embeddings")
    return ModelConfig(
        name=fields.name,
        family="phi3",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=8192),
        block_size=block_size,
        **fields.vocabulary(32064),
        norm_eps=fields.number("rms_norm_eps", default=1e-5),
        activation=fields.activation("hidden_act", "silu"),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        sliding_window=fields.window(None),
        # The class has a first length of its own, which counts before one inside the rotary fields.
        **fields.rope(block_size, partial_key="partial_rotary_factor", longrope_from=4096),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a Phi 3's tensors: qkv_proj is [q; k; v] as ours, gate_up_proj is [gate; up].

    Source: `Phi3ForCausalLM` of transformers.
    """
    ours, theirs = "transformer.h.{i}", "model.layers.{i}"
    gate_and_up = (f"{ours}.mlp.gate.weight", f"{ours}.mlp.up.weight")
    return [
        *head_rules(config, "model.embed_tokens", "lm_head"),
        *rename_linear(f"{ours}.norm_1", f"{theirs}.input_layernorm", bias=False),
        *rename_linear(f"{ours}.attn.qkv", f"{theirs}.self_attn.qkv_proj", bias=False),
        *rename_linear(f"{ours}.attn.proj", f"{theirs}.self_attn.o_proj", bias=False),
        *rename_linear(f"{ours}.norm_2", f"{theirs}.post_attention_layernorm", bias=False),
        Split(gate_and_up, f"{theirs}.mlp.gate_up_proj.weight"),
        *rename_linear(f"{ours}.mlp.down", f"{theirs}.mlp.down_proj", bias=False),
        *rename_linear("transformer.ln_f", "model.norm", bias=False),
        Drop(f"{theirs}.self_attn.rotary_emb.inv_freq"),
    ]


PHI3 = Family("phi3", ("phi3",), config_from_hf, rules)
