"""OPT: learned positions, biases everywhere, a head tied to the embedding."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family, Rename, Rule, fuse_qkv, head_rules, rename_linear
from litft.families.fields import HfFields


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of an OPT.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `OPTConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `OPTConfig`, `OPTLearnedPositionalEmbedding` and `OPTDecoderLayer` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=768), fields.integer("num_attention_heads", default=12)
    fields.only("do_layer_norm_before", None, True)
    fields.only("_remove_final_layer_norm", None, False)
    fields.only("layer_norm_elementwise_affine", None, True)
    fields.only("enable_bias", None, True)
    fields.only("word_embed_proj_dim", None, n_embd)
    fields.has("prefix")  # a text that old versions put before every prompt
    return ModelConfig(
        name=fields.name,
        family="opt",
        n_layer=fields.integer("num_hidden_layers", default=12),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=n_head,
        head_size=fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("ffn_dim", default=3072),
        block_size=fields.integer("max_position_embeddings", default=2048),
        **fields.vocabulary(50272),
        positions="learned",
        position_offset=2,
        norm="layernorm",
        norm_eps=1e-5,
        mlp="plain",
        activation=fields.activation("activation_function", "relu"),
        qkv_bias=True,
        proj_bias=True,
        mlp_bias=True,
        tie_embeddings=fields.flag("tie_word_embeddings", True),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of an OPT's tensors.

    Source: `OPTForCausalLM` of transformers.
    """
    ours, theirs = "transformer.h.{i}", "model.decoder.layers.{i}"
    attention = f"{theirs}.self_attn"
    return [
        *head_rules(config, "model.decoder.embed_tokens", "lm_head"),
        Rename("transformer.wpe.weight", "model.decoder.embed_positions.weight"),
        *rename_linear(f"{ours}.norm_1", f"{theirs}.self_attn_layer_norm", bias=True),
        *fuse_qkv(f"{ours}.attn.qkv", [f"{attention}.{part}_proj" for part in "qkv"], config),
        *rename_linear(f"{ours}.attn.proj", f"{attention}.out_proj", bias=True),
        *rename_linear(f"{ours}.norm_2", f"{theirs}.final_layer_norm", bias=True),
        *rename_linear(f"{ours}.mlp.up", f"{theirs}.fc1", bias=True),
        *rename_linear(f"{ours}.mlp.down", f"{theirs}.fc2", bias=True),
        *rename_linear("transformer.ln_f", "model.decoder.final_layer_norm", bias=True),
    ]


# Files of 2022 lack the first `model.`.
OPT = Family("opt", ("opt",), config_from_hf, rules, (("decoder.", "model.decoder."),))
