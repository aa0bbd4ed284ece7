"""MPT: ALiBi in place of positions, no biases at all, a head tied to the embedding."""

from __future__ import annotations

from typing import Any

from litft.config.model import ModelConfig
from litft.families.base import Family, Rule, head_rules, rename_linear
from litft.families.fields import HfFields

# Fields of `attn_config` that litft does not know, and the values at which they change nothing.
_ATTENTION: dict[str, tuple[object, ...]] = {
    "alibi": (True,),
    "attn_type": ("multihead_attention",),
    "prefix_lm": (False,),
    "qk_ln": (False,),
    "qk_gn": (False,),
    "rope": (False,),
    "attn_uses_sequence_id": (False,),
    "sliding_window_size": (-1,),
}


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of an MPT.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `MptConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `MptConfig`, `MptAttentionConfig` and `MptBlock` of transformers 5.
    """
    n_embd = fields.integer("hidden_size", "d_model", default=2048)
    n_head = fields.integer("num_attention_heads", "n_heads", default=16)
    attention = _attention(fields)
    fields.only("no_bias", None, True)
    fields.only("embedding_fraction", None, 1.0)
    # Of the repositories' own code, which could be told to build something else than transformers does.
    fields.only("norm_type", None, "low_precision_layernorm", "layernorm")
    feed_forward = fields.part("ffn_config")
    feed_forward.only("ffn_type", None, "mptmlp")
    for part, field in ((fields, "learned_pos_emb"), (fields, "fc_type"), (feed_forward, "fc_type")):
        part.has(field)  # no position is learned beside alibi; how a linear layer is computed
    return ModelConfig(
        name=fields.name,
        family="mpt",
        n_layer=fields.integer("num_hidden_layers", "n_layers", default=24),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=n_head,
        head_size=fields.head_size(n_embd, n_head),
        intermediate_size=4 * n_embd,
        block_size=fields.integer("max_seq_len", default=2048),
        **fields.vocabulary(50368),
        positions="alibi",
        # As the models were trained; transformers reads the field and computes with 8, which an export's proof shows.
        alibi_bias_max=attention.number("alibi_bias_max", default=8),
        norm="layernorm_no_bias",
        norm_eps=fields.number("layer_norm_epsilon", default=1e-5),
        mlp="plain",
        activation="gelu",
        qkv_clip=attention.cap("clip_qkv", None),
        attention_scale=attention.optional_number("softmax_scale"),
        tie_embeddings=fields.flag("tie_word_embeddings", True),
    )


def _attention(fields: HfFields) -> HfFields:
    """Gives the fields of `attn_config`, of which none may say what litft cannot do."""
    attention = fields.part("attn_config")
    for field, harmless in _ATTENTION.items():
        attention.only(field, None, *harmless)
    # transformers' MLP is always four times as wide, whatever the field says.
    fields.only("expansion_ratio", None, 4)
    return attention


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of an MPT's tensors; Wqkv is [q; k; v] as ours.

    Source: `MptForCausalLM` of transformers.
    """
    ours, theirs = "transformer.h.{i}", "transformer.blocks.{i}"
    names: dict[str, Any] = {
        "norm_1": "norm_1",
        "attn.qkv": "attn.Wqkv",
        "attn.proj": "attn.out_proj",
        "norm_2": "norm_2",
        "mlp.up": "ffn.up_proj",
        "mlp.down": "ffn.down_proj",
    }
    return [
        *head_rules(config, "transformer.wte", "lm_head"),
        *(rule for a, b in names.items() for rule in rename_linear(f"{ours}.{a}", f"{theirs}.{b}", bias=False)),
        *rename_linear("transformer.ln_f", "transformer.norm_f", bias=False),
    ]


MPT = Family("mpt", ("mpt",), config_from_hf, rules)
