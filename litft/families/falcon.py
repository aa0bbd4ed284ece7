"""Falcon 7B, 40B, 180B and 11B, in transformers' spelling and in the first one (`RefinedWeb`, `RefinedWebModel`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litft.config.model import ModelConfig
from litft.families.base import Drop, Family, Rule, head_rules, regroup_qkv, rename_linear
from litft.families.fields import HfFields


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Falcon.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `FalconConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `FalconConfig`, `FalconAttention` and `FalconDecoderLayer` of transformers 5.
    """
    n_embd = fields.integer("n_embed", "hidden_size", default=4544)
    n_head = fields.integer("num_attention_heads", default=71)
    block_size = fields.integer("max_position_embeddings", default=2048)
    bias = fields.flag("bias", False)
    parallel, norms = _residual(fields)
    fields.only("ff_factor", None, 4)  # says again what ffn_hidden_size says
    return ModelConfig(
        name=fields.name,
        family="falcon",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=_query_groups(fields, n_head),
        head_size=fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("ffn_hidden_size", default=4 * n_embd),
        block_size=block_size,
        **fields.vocabulary(65024),
        norm="layernorm",
        norm_eps=fields.number("layer_norm_epsilon", default=1e-5),
        mlp="plain",
        activation=fields.activation("activation", "gelu"),
        block="sequential" if not parallel else "shared_norm" if norms == 1 else "parallel",
        qkv_bias=bias,
        proj_bias=bias,
        mlp_bias=bias,
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        **fields.rope(block_size),
    )


def _is_new_decoder(fields: HfFields) -> bool:
    """Says whether the blocks are those of Falcon 40B."""
    return fields.flag("new_decoder_architecture", False)


def _query_groups(fields: HfFields, n_head: int) -> int:
    """Gives the key/value heads: a number of their own in the new decoder, else one for all or one for each."""
    own = fields.integer("num_kv_heads", default=n_head)
    shared = 1 if fields.flag("multi_query", True) else n_head
    return own if _is_new_decoder(fields) else shared


def _residual(fields: HfFields) -> tuple[bool, int]:
    """Says whether attention and MLP run in parallel, and gives how many norms they then have."""
    new_decoder, parallel = _is_new_decoder(fields), fields.flag("parallel_attn", True)
    norms = fields.integer("num_ln_in_parallel_attn", default=2 if new_decoder else 1)
    if new_decoder and not parallel:
        fields.refuse("parallel_attn", "the new decoder architecture is always parallel")
    if norms not in (1, 2) or (norms == 2 and not new_decoder):
        fields.refuse("num_ln_in_parallel_attn", "litft knows one norm, or two in the new decoder architecture")
    return parallel, norms


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a Falcon's tensors.

    Source: `FalconForCausalLM` of transformers.
    """
    ours, theirs = "transformer.h.{i}", "transformer.h.{i}"
    first, second = _norm_names(config)
    norm_2 = [] if second is None else rename_linear(f"{ours}.norm_2", f"{theirs}.{second}", bias=True)
    return [
        *head_rules(config, "transformer.word_embeddings", "lm_head"),
        *rename_linear(f"{ours}.norm_1", f"{theirs}.{first}", bias=True),
        *regroup_qkv(f"{ours}.attn.qkv", f"{theirs}.self_attention.query_key_value", config),
        *rename_linear(f"{ours}.attn.proj", f"{theirs}.self_attention.dense", config.proj_bias),
        *norm_2,
        *rename_linear(f"{ours}.mlp.up", f"{theirs}.mlp.dense_h_to_4h", config.mlp_bias),
        *rename_linear(f"{ours}.mlp.down", f"{theirs}.mlp.dense_4h_to_h", config.mlp_bias),
        *rename_linear("transformer.ln_f", "transformer.ln_f", bias=True),
        Drop(f"{theirs}.self_attention.rotary_emb.inv_freq"),
        Drop(f"{theirs}.self_attention.maybe_rotary.inv_freq"),
        Drop("transformer.rotary_emb.inv_freq"),
    ]


def _norm_names(config: ModelConfig) -> tuple[str, str | None]:
    """Gives what the norms before attention and before the MLP are called."""
    if config.block == "shared_norm":
        return "input_layernorm", None
    return ("ln_attn", "ln_mlp") if config.block == "parallel" else ("input_layernorm", "post_attention_layernorm")


def standard_config(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a config.json of the first spelling in that of transformers; others as they are.

    Source: `configuration_RW.py` of the repositories; that of the 40B said by its model_type alone what its blocks are.
    """
    if hf_config.get("model_type") not in ("RefinedWeb", "RefinedWebModel"):
        return dict(hf_config)
    spellings = {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_head_kv": "num_kv_heads"}
    kept = {key: value for key, value in hf_config.items() if key not in ("auto_map", *spellings)}
    renamed = {new: hf_config[old] for old, new in spellings.items() if old in hf_config}
    is_new = hf_config.get("new_decoder_architecture", hf_config["model_type"] == "RefinedWeb")
    return {
        **renamed,
        **kept,
        "new_decoder_architecture": is_new,
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
    }


FALCON = Family(
    "falcon", ("falcon", "RefinedWeb", "RefinedWebModel"), config_from_hf, rules, config_out=standard_config
)
