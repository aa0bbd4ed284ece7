"""A tiny config of each kind of model, by family."""

from __future__ import annotations

import dataclasses

from tiny_run import SIZES

from litft.config.model import ModelConfig, RopeScaling

LLAMA = ModelConfig(name="l", family="llama", head_size=4, vocab_size=50, padded_vocab_size=64, **SIZES)
PYTHIA = dataclasses.replace(
    LLAMA, family="pythia", norm="layernorm", mlp="plain", activation="gelu", block="parallel", n_query_groups=4,
    qkv_bias=True, proj_bias=True, mlp_bias=True, rotary_percentage=0.5,
)  # fmt: skip
FALCON = dataclasses.replace(PYTHIA, family="falcon", qkv_bias=False, proj_bias=False, mlp_bias=False, n_query_groups=1)
FALCON = dataclasses.replace(FALCON, block="shared_norm", rotary_percentage=1.0)
PHI = dataclasses.replace(PYTHIA, family="phi", block="shared_norm", activation="gelu_tanh", lm_head_bias=True)
MIXTRAL = dataclasses.replace(LLAMA, family="mixtral", n_expert=4, n_expert_per_token=2)
GEMMA2 = dataclasses.replace(
    LLAMA, family="gemma2", norm="rmsnorm_plus_one", activation="gelu_tanh", block="sandwich", embedding_scale=4.0,
    attention_scale=0.3, attention_softcap=2.0, logit_softcap=3.0, sliding_window=4, full_attention_layers=(1,),
)  # fmt: skip
OLMO2 = dataclasses.replace(LLAMA, family="olmo2", norm="rmsnorm_float32", qk_norm="all_heads", block="post_norm")
OPT = dataclasses.replace(PYTHIA, family="opt", positions="learned", position_offset=2, activation="relu")
MISTRAL = dataclasses.replace(LLAMA, family="mistral", sliding_window=3)
PHI3 = dataclasses.replace(
    LLAMA, family="phi3", rope_scaling=RopeScaling(
        kind="longrope", factor=4.0, original_block_size=6, short_factors=(1.0, 1.5), long_factors=(2.0, 3.0)
    )
)  # fmt: skip
MPT = dataclasses.replace(
    LLAMA, family="mpt", positions="alibi", norm="layernorm_no_bias", mlp="plain", activation="gelu", n_query_groups=4
)
CONFIGS = {
    config.family: config for config in (LLAMA, PYTHIA, FALCON, PHI, MIXTRAL, GEMMA2, OLMO2, OPT, MISTRAL, PHI3, MPT)
}
