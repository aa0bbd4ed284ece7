"""Sizes from config.json: old and new spellings, class defaults, and refusals that name the field."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import FalconConfig, GPTNeoXConfig, LlamaConfig, MistralConfig

from litft.config.model import ModelConfig, RopeScaling
from litft.errors import CheckpointError
from litft.families import FAMILIES, family_of, model_config_from_hf, tensor_rules
from litft.families.base import Drop, Tie, state_shapes

LLAMA3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def read(**values: Any) -> ModelConfig:
    return model_config_from_hf(values, "m")


@pytest.mark.parametrize(
    ("model_type", "config"),
    [("llama", LlamaConfig()), ("mistral", MistralConfig()), ("falcon", FalconConfig()), ("gpt_neox", GPTNeoXConfig())],
)
def test_absent_keys_take_the_class_defaults_of_transformers(model_type: str, config: Any) -> None:
    """A config.json with nothing but model_type, and one with everything written out, mean the same."""
    assert read(model_type=model_type) == model_config_from_hf(config.to_dict(), "m")


@pytest.mark.parametrize("model_type", ["llama", "mistral", "falcon", "gpt_neox", "RefinedWeb", "RefinedWebModel"])
def test_every_tensor_has_exactly_one_rule(model_type: str) -> None:
    config = read(model_type=model_type)
    rules = tensor_rules(config)
    ours = [rule.ours for rule in rules if not isinstance(rule, Drop | Tie)]
    assert sorted(ours) == sorted(state_shapes(config))


def test_rope_spellings_agree() -> None:
    old = read(model_type="llama", rope_theta=500000.0, rope_scaling=LLAMA3_ROPE)
    new = read(model_type="llama", rope_parameters={"rope_theta": 500000.0, **LLAMA3_ROPE})
    expected = RopeScaling(
        kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_block_size=8192
    )
    assert old == new
    assert (old.rope_base, old.rope_scaling) == (500000.0, expected)


def test_linear_scaling_by_its_first_name() -> None:
    config = read(model_type="llama", rope_scaling={"type": "linear", "factor": 4.0})
    assert config.rope_scaling == RopeScaling(kind="linear", factor=4.0)


def test_llama3_scaling_starts_at_the_context_where_no_length_is_named() -> None:
    rope = {key: value for key, value in LLAMA3_ROPE.items() if key != "original_max_position_embeddings"}
    scaling = read(model_type="llama", max_position_embeddings=4096, rope_scaling=rope).rope_scaling
    assert scaling is not None and scaling.original_block_size == 4096


def test_neox_rotary_spellings_agree() -> None:
    old = read(model_type="gpt_neox", rotary_pct=0.5, rotary_emb_base=25000)
    new = read(model_type="gpt_neox", rope_parameters={"partial_rotary_factor": 0.5, "rope_theta": 25000})
    both = read(model_type="gpt_neox", rotary_pct=0.5, rotary_emb_base=25000, rope_theta=25000)
    assert old == new == both
    assert (old.rotary_percentage, old.rope_base) == (0.5, 25000.0)


def test_sliding_window_absent_null_or_given() -> None:
    assert read(model_type="mistral").sliding_window == 4096
    assert read(model_type="mistral", sliding_window=None).sliding_window is None
    assert read(model_type="mistral", sliding_window=1024).sliding_window == 1024


def test_mistral_key_value_heads_absent_or_null() -> None:
    assert read(model_type="mistral").n_query_groups == 8
    assert read(model_type="mistral", num_key_value_heads=None).n_query_groups == 32


def test_first_falcon_spellings() -> None:
    seven = read(model_type="RefinedWebModel", n_head=71, n_layer=32, hidden_size=4544, multi_query=True, alibi=False)
    forty = read(model_type="RefinedWeb", n_head=128, n_head_kv=8, n_layer=60, hidden_size=8192, alibi=False)
    assert seven == read(model_type="falcon")
    assert (forty.n_layer, forty.n_query_groups, forty.shared_attention_norm) == (60, 8, False)


def test_falcon_with_one_norm_or_sequential_or_a_key_for_each_head() -> None:
    falcon2 = read(
        model_type="falcon",
        new_decoder_architecture=True,
        num_ln_in_parallel_attn=1,
        num_attention_heads=32,
        hidden_size=4096,
        num_kv_heads=8,
    )
    assert (falcon2.shared_attention_norm, falcon2.n_query_groups) == (True, 8)
    old = read(
        model_type="falcon", parallel_attn=False, multi_query=False, bias=True, hidden_size=64, num_attention_heads=4
    )
    assert (old.parallel_residual, old.shared_attention_norm, old.n_query_groups) == (False, False, 4)
    assert old.qkv_bias and old.proj_bias and old.mlp_bias


def test_head_size_need_not_divide_the_width() -> None:
    config = read(model_type="llama", hidden_size=100, num_attention_heads=8, head_dim=16)
    assert state_shapes(config)["transformer.h.0.attn.proj.weight"] == (100, 128)


def test_family_goes_by_the_fields_not_the_name() -> None:
    assert model_config_from_hf({"model_type": "gpt_neox"}, "falcon-7b").family == "pythia"


def test_unknown_family_says_which_are_known() -> None:
    with pytest.raises(CheckpointError, match='model_type "qwen2"; litft knows the model types llama, mistral, falcon'):
        family_of({"model_type": "qwen2"}, "m")
    with pytest.raises(CheckpointError, match="no model_type"):
        family_of({}, "m")
    with pytest.raises(CheckpointError, match='Did you mean "mistral"'):
        family_of({"model_type": "mixtral"}, "m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 'rope_scaling .*not "yarn"'),
        ({"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}}, 'not "dynamic"'),
        ({"model_type": "llama", "rope_scaling": {"factor": 2.0}}, "which kind of scaling"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "linear"}}, "its factor must be a number"),
        ({"model_type": "llama", "rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "one set of rotary"),
        ({"model_type": "llama", "partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ({"model_type": "llama", "hidden_act": "relu"}, "hidden_act = 'relu'"),
        ({"model_type": "llama", "num_local_experts": 8}, "num_local_experts = 8"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "quantization_config = {'bits': 4}"),
        ({"model_type": "llama", "clip_qkv": 8.0}, "clip_qkv = 8.0"),
        ({"model_type": "llama", "hidden_size": "big"}, "hidden_size = 'big', but a whole number"),
        ({"model_type": "llama", "hidden_size": 100, "num_attention_heads": 7}, "must divide the hidden size"),
        ({"model_type": "llama", "num_key_value_heads": 5}, "the groups must divide the heads"),
        ({"model_type": "llama", "tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes'"),
        ({"model_type": "mistral", "attention_bias": True}, "attention_bias = True"),
        ({"model_type": "mistral", "layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"model_type": "falcon", "alibi": True}, "alibi = True"),
        ({"model_type": "falcon", "new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn = False"),
        ({"model_type": "falcon", "num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn = 2"),
        ({"model_type": "gpt_neox", "rotary_emb_base": 10000, "rope_theta": 20000}, "rope_theta = 20000"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        model_config_from_hf(values, "m")


@pytest.mark.parametrize(
    "harmless",
    [
        {"pretraining_tp": 2},
        {"num_local_experts": 0},
        {"quantization_config": None},
        {"use_cache": True},
        {"dtype": "x"},
    ],
)
def test_harmless_fields_pass(harmless: dict[str, Any]) -> None:
    assert read(model_type="llama", **harmless) == read(model_type="llama")


def test_table_of_families() -> None:
    assert list(FAMILIES) == ["llama", "mistral", "falcon", "pythia"]
