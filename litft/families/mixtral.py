"""Mixtral: Mistral's attention and, in place of one MLP, a router over several."""

from __future__ import annotations

from litft.config.model import ModelConfig
from litft.families.base import Family, Rule, rename_linear
from litft.families.fields import HfFields
from litft.families.llama import BLOCK, THEIR_BLOCK, llama_rules


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Mixtral.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `MixtralConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `MixtralConfig` and `MixtralSparseMoeBlock` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=4096), fields.integer("num_attention_heads", default=32)
    block_size = fields.integer("max_position_embeddings", default=4096 * 32)
    return ModelConfig(
        name=fields.name,
        family="mixtral",
        n_layer=fields.integer("num_hidden_layers", default=32),
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head, 8),
        head_size=fields.optional_integer("head_dim") or fields.head_size(n_embd, n_head),
        intermediate_size=fields.integer("intermediate_size", default=14336),
        block_size=block_size,
        **fields.vocabulary(32000),
        norm_eps=fields.number("rms_norm_eps", default=1e-5),
        activation=fields.activation("hidden_act", "silu"),
        n_expert=fields.integer("num_local_experts", default=8),
        n_expert_per_token=fields.integer("num_experts_per_tok", default=2),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        sliding_window=fields.window(None),
        **fields.rope(block_size, base_default=1e6),
    )


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a Mixtral's tensors.

    Source: `MixtralForCausalLM` (names on disk: w1 is gate, w3 is up, w2 is down) of transformers.
    """
    theirs = f"{THEIR_BLOCK}.block_sparse_moe"
    mlp = rename_linear(f"{BLOCK}.mlp.router", f"{theirs}.gate", bias=False)
    for expert in range(config.n_expert):
        for part, number in (("gate", 1), ("up", 3), ("down", 2)):
            ours = f"{BLOCK}.mlp.experts.{expert}.{part}"
            mlp += rename_linear(ours, f"{theirs}.experts.{expert}.w{number}", bias=False)
    return llama_rules(config, mlp=mlp)


MIXTRAL = Family("mixtral", ("mixtral",), config_from_hf, rules)
