"""A config.json that litft cannot honour is refused in one sentence that names the field and its value."""

from __future__ import annotations

from typing import Any

import pytest

from litft.errors import CheckpointError
from litft.families import FAMILIES, family_of, model_config_from_hf

NO_EXPERTS = sorted(
    kind for family in FAMILIES.values() for kind in family.model_types if family.name not in ("mixtral", "qwen3_moe")
)
NO_ROPE = {"mpt", "opt"}
MPT = {"model_type": "mpt"}
OPT = {"model_type": "opt"}
MIXED = ("full_attention", "sliding_attention")
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.0] * 48}


def refusal(values: dict[str, Any], name: str = "m") -> str:
    """Gives the sentence."""
    with pytest.raises(CheckpointError) as caught:
        model_config_from_hf(values, name)
    return str(caught.value)


def test_unknown_family_says_which_are_known() -> None:
    with pytest.raises(CheckpointError, match=r'model_type "gpt2"; litft knows .* falcon, .*qwen3_moe'):
        family_of({"model_type": "gpt2"}, "m")
    with pytest.raises(CheckpointError, match="no model_type"):
        family_of({}, "m")
    with pytest.raises(CheckpointError, match='Did you mean "mistral"'):
        family_of({"model_type": "mistrall"}, "m")


@pytest.mark.parametrize("model_type", ["phi-msft", "stablelm_epoch", "phimoe", "qwen2_moe", "phi3_v"])
def test_layouts_that_look_like_ours_are_other_families(model_type: str) -> None:
    """`phi-msft` and `stablelm_epoch` are what the repositories' own code read before transformers had the models."""
    assert f'config.json of m says model_type "{model_type}"' in refusal({"model_type": model_type})


@pytest.mark.parametrize("model_type", NO_EXPERTS)
def test_experts_belong_to_their_families(model_type: str) -> None:
    said = refusal({"model_type": model_type, "num_local_experts": 8})
    assert said == "config.json of m has num_local_experts = 8, but litft does not support that."


@pytest.mark.parametrize("model_type", [kind for family in FAMILIES.values() for kind in family.model_types])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("quantization_config", {"bits": 4}),
        ("residual_multiplier", 0.22),
        ("no_rope_layers", [1, 0]),
        ("hidden_size", "big"),
    ],
)
def test_what_no_family_can_honour(model_type: str, field: str, value: object) -> None:
    field = {"mpt": "d_model"}.get(model_type, field) if field == "hidden_size" else field
    assert f"config.json of m has {field} = {value!r}, but " in refusal({"model_type": model_type, field: value})


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - NO_ROPE))
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_unknown_rotation_is_refused_in_every_family(family: str, key: str) -> None:
    rope: dict[str, Any] = {"rope_type": "spiral", "factor": 2.0}
    rope = {"full_attention": rope} if (family, key) == ("gemma3", "rope_parameters") else rope
    values = {"model_type": FAMILIES[family].model_types[0], key: rope}
    assert 'knows the rope types default, linear, llama3, yarn, longrope and dynamic, not "spiral"' in refusal(values)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"mpt"}))
def test_unknown_activation_is_refused_in_every_family(family: str) -> None:
    """MPT's is always gelu."""
    others = {"falcon": "activation", "opt": "activation_function", "gemma2": "hidden_activation"}
    field = {**others, "gemma3": "hidden_activation"}.get(family, "hidden_act")
    values = {"model_type": FAMILIES[family].model_types[0], field: "relu6"}
    assert f"{field} = 'relu6', but litft knows the activations silu, swish, gelu" in refusal(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "llama", "rope_scaling": {"factor": 2.0}}, "which kind of scaling"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "linear"}}, "its factor must be a number"),
        ({"model_type": "llama", "rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "one set of rotary"),
        ({"model_type": "llama", "partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"model_type": "llama", "clip_qkv": 8.0}, "clip_qkv = 8.0"),
        ({"model_type": "llama", "hidden_size": 100, "num_attention_heads": 7}, "must divide the hidden size"),
        ({"model_type": "llama", "num_key_value_heads": 5}, "the groups must divide the heads"),
        ({"model_type": "llama", "tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes'"),
        ({"model_type": "llama", "layer_types": ["full_attention", "sliding_attention"]}, "every block .* alike"),
        ({"model_type": "llama", "rope_interleaved": True}, "rope_interleaved = True"),
        ({"model_type": "llama", "lm_head_bias": True}, "lm_head_bias = True"),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias = True"),
        ({"model_type": "mistral", "layer_types": ["full_attention", "sliding_attention"]}, "one for each of 32"),
        *(  # transformers reads layer_types in none of these, so it would put the window into every block
            ({"model_type": kind, "sliding_window": 8, "layer_types": list(MIXED)}, "every block .* alike")
            for kind in ("mixtral", "phi3", "qwen3_moe")
        ),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window = 0, but a token must see at least itself"),
        ({"model_type": "mixtral", "num_experts_per_tok": 9}, "chooses 9 of 8 experts"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": [0]}, r"mlp_only_layers = \[0\]"),
        ({"model_type": "qwen3_moe", "decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
        ({"model_type": "qwen2", "use_mrope": True}, "use_mrope = True"),
        ({"model_type": "falcon", "alibi": True}, "alibi = True"),
        ({"model_type": "falcon", "new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn = False"),
        ({"model_type": "falcon", "num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn = 2"),
        ({"model_type": "gpt_neox", "rotary_emb_base": 10000, "rope_theta": 20000}, "rope_theta = 20000"),
        ({"model_type": "gpt_neox", "head_dim": 64}, "head_dim = 64"),  # 96; transformers would rotate by it alone
        ({"model_type": "llama", "rope_scaling": {**LONGROPE, "type": "su"}}, 'longrope and dynamic, not "su"'),
        ({"model_type": "phi3", "rope_scaling": {"type": "linear", "factor": 2.0}}, "stretched by longrope alone"),
        ({"model_type": "phi", "qk_layernorm": True}, "qk_layernorm = True"),
        ({"model_type": "stablelm", "partial_rotary_factor": 0.29}, "rotates 23 numbers per head"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        model_config_from_hf(values, "m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope_scaling": {**LONGROPE, "short_factor": [1.0] * 47}}, "47 longrope factors for 48 rotary frequencies"),
        ({"rope_scaling": {**LONGROPE, "long_factor": [1.0]}}, "1 longrope factors for 48"),
        ({"rope_scaling": {**LONGROPE, "long_factor": None}}, "its long_factor must be a list of numbers"),
        ({"rope_scaling": LONGROPE, "partial_rotary_factor": 0.5}, "48 longrope factors for 24"),
        ({"rope_scaling": {**LONGROPE, "short_factor": ["1"] * 48}}, "its short_factor must be a list of numbers"),
    ],
)
def test_longrope_needs_a_factor_for_each_frequency(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        model_config_from_hf({"model_type": "phi3", **values}, "m")


@pytest.mark.parametrize("model_type", ["gemma", "gemma2", "gemma3_text"])
def test_gemma_looks_back_only(model_type: str) -> None:
    values = {"model_type": model_type, "use_bidirectional_attention": True}
    assert "use_bidirectional_attention = True" in refusal(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gemma", "hidden_activation": "gelu"}, "hidden_activation = 'gelu', but hidden_act means"),
        ({"model_type": "gemma2", "layer_types": ["sliding_attention"]}, "layer_types .* one for each of 26 blocks"),
        ({"model_type": "gemma2", "layer_types": ["full_attention"] * 25 + ["moving"]}, "knows full_attention and"),
        # transformers keeps the field and computes without it
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        ({"model_type": "gemma3_text", "layer_types": "full_attention"}, "one for each of 26 blocks"),
        ({"model_type": "gemma3_text", "sliding_window_pattern": 0}, "sliding_window_pattern = 0"),
        ({"model_type": "gemma3_text", "rope_parameters": {"full_attention": {}, "sliding_attention": 1}}, "a map of"),
        (
            {
                "model_type": "gemma3_text",
                "rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 8.0}},
            },
            "does not stretch the blocks with a window",
        ),
        # transformers reads no one set for all, and of the old spelling no `type`
        ({"model_type": "gemma3_text", "rope_parameters": {"rope_theta": 5e5}}, "for each type of block"),
        ({"model_type": "gemma3_text", "rope_scaling": {"type": "linear", "factor": 8.0}}, "calls rope_type"),
        ({"model_type": "gemma3_text", "original_max_position_embeddings": 8}, "original_max_position_embeddings = 8"),
        ({"model_type": "gemma3", "text_config": {}, "quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_gemma_that_is_built_otherwise(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        model_config_from_hf(values, "m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attn_config": {"alibi": False}}, "alibi = False"),
        ({"attn_config": {"attn_type": "multiquery_attention"}}, "attn_type = 'multiquery_attention'"),
        ({"attn_config": {"prefix_lm": True}}, "prefix_lm = True"),
        ({"attn_config": {"qk_ln": True}}, "qk_ln = True"),
        ({"attn_config": {"rope": True}}, "rope = True"),
        ({"attn_config": {"clip_qkv": "6"}}, "clip_qkv = '6', but a number"),
        ({"attn_config": [8]}, r"attn_config = \[8\], but a map of fields"),
        ({"ffn_config": {"ffn_type": "mptglu"}}, "ffn_type = 'mptglu'"),
        ({"no_bias": False}, "no_bias = False"),
        ({"norm_type": "rmsnorm"}, "norm_type = 'rmsnorm'"),
        ({"expansion_ratio": 8}, "expansion_ratio = 8"),
        ({"embedding_fraction": 0.5}, "embedding_fraction = 0.5"),
        ({"logit_scale": "inv_sqrt_d_model"}, "logit_scale = 'inv_sqrt_d_model'"),
    ],
)
def test_mpt_that_is_built_otherwise(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        model_config_from_hf({**MPT, **values}, "m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"do_layer_norm_before": False}, "do_layer_norm_before = False"),  # opt-350m
        ({"hidden_size": 1024, "num_attention_heads": 16, "word_embed_proj_dim": 512}, "word_embed_proj_dim = 512"),
        ({"enable_bias": False}, "enable_bias = False"),
        ({"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine = False"),
        ({"_remove_final_layer_norm": True}, "_remove_final_layer_norm = True"),
    ],
)
def test_opt_that_is_built_otherwise(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        model_config_from_hf({**OPT, **values}, "m")


def test_a_long_value_is_cut() -> None:
    said = refusal({"model_type": "llama", "quantization_config": {str(i): i for i in range(100)}})
    assert len(said) < 320 and "..., but litft does not support that." in said
