"""Llama and everything with its layout: Llama 1 to 3.x, Code Llama, Vicuna, TinyLlama, SmolLM2, Falcon 3.

Many families share this layout but for their norms or MLP; they call `llama_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from litft.config.model import ModelConfig
from litft.families.base import Drop, Family, Rename, Rule, fuse_qkv, head_rules, rename_linear
from litft.families.fields import HfFields

# Our norm -> Hugging Face's, in a block of Llama's kind.
NORMS = {"norm_1": "input_layernorm", "norm_2": "post_attention_layernorm"}
BLOCK, THEIR_BLOCK = "transformer.h.{i}", "model.layers.{i}"


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Llama.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `LlamaConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `LlamaConfig` and `LlamaAttention` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=4096), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=2048)
    attention_bias = fields.flag("attention_bias", False)
    return ModelConfig(
        name=fields.name,
        family="llama",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=11008),
        block_size=block_size,
        **fields.vocabulary(32000),
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

    Source: `LlamaForCausalLM` of transformers.
    """
    return llama_rules(config)


def llama_rules(config: ModelConfig, norms: Mapping[str, str] = NORMS, mlp: Sequence[Rule] | None = None) -> list[Rule]:
    """Gives the map of the tensors of Llama and its kin.

    Args:
        config: the model's sizes and variants.
        norms: our norms of a block and their names in Hugging Face's.
        mlp: the rules of the MLP; by default those of one gated MLP.

    Source: `LlamaForCausalLM` of transformers; `inv_freq` stood in files written before transformers 4.32.
    """
    attention = f"{THEIR_BLOCK}.self_attn"
    norm_names = {f"{BLOCK}.{ours}": f"{THEIR_BLOCK}.{theirs}" for ours, theirs in norms.items()}
    return [
        *head_rules(config, "model.embed_tokens", "lm_head"),
        *_rename_norms(norm_names, config),
        *fuse_qkv(f"{BLOCK}.attn.qkv", [f"{attention}.{part}_proj" for part in "qkv"], config),
        *_qk_norm_rules(config),
        *rename_linear(f"{BLOCK}.attn.proj", f"{attention}.o_proj", config.proj_bias),
        *(gated_mlp_rules(config) if mlp is None else mlp),
        *_rename_norms({"transformer.ln_f": "model.norm"}, config),
        Drop(f"{attention}.rotary_emb.inv_freq"),
        Drop("model.rotary_emb.inv_freq"),
    ]


def gated_mlp_rules(config: ModelConfig) -> list[Rule]:
    """Gives the rules of gate, up and down projections."""
    names = {f"{BLOCK}.mlp.{part}": f"{THEIR_BLOCK}.mlp.{part}_proj" for part in ("gate", "up", "down")}
    return [rule for ours, theirs in names.items() for rule in rename_linear(ours, theirs, config.mlp_bias)]


def _qk_norm_rules(config: ModelConfig) -> list[Rule]:
    """Gives the rules of the norms of queries and keys that are one tensor each."""
    if config.qk_norm not in ("head", "all_heads"):
        return []
    names = {f"{BLOCK}.attn.norm_{part}": f"{THEIR_BLOCK}.self_attn.{part}_norm" for part in "qk"}
    return [rule for ours, theirs in names.items() for rule in rename_linear(ours, theirs, bias=False)]


def _rename_norms(names: Mapping[str, str], config: ModelConfig) -> list[Rule]:
    """Gives the rules of norms over the width of the model."""
    return [
        Rename(f"{ours}.{kind}", f"{theirs}.{kind}") for ours, theirs in names.items() for kind in config.norm_tensors
    ]


LLAMA = Family("llama", ("llama",), config_from_hf, rules)
