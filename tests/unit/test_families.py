"""Sizes from config.json: old and new spellings, class defaults, and the fields that nothing knows."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import transformers
from parity import parity_models

from litft.config.model import ModelConfig, RopeScaling
from litft.families import FAMILIES, family_of, model_config_from_hf, tensor_rules, unknown_fields
from litft.families.base import Copied, Tie
from litft.families.shapes import state_shapes

LLAMA3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
# model_type -> transformers' class
CLASSES = {
    "falcon": "FalconConfig",
    "gemma": "GemmaConfig",
    "gemma2": "Gemma2Config",
    "gemma3_text": "Gemma3TextConfig",
    "gemma3": "Gemma3Config",
    "gpt_neox": "GPTNeoXConfig",
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "mixtral": "MixtralConfig",
    "mpt": "MptConfig",
    "olmo": "OlmoConfig",
    "olmo2": "Olmo2Config",
    "opt": "OPTConfig",
    "phi": "PhiConfig",
    "phi3": "Phi3Config",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "qwen3_moe": "Qwen3MoeConfig",
    "stablelm": "StableLmConfig",
}
MPT_7B = {
    "model_type": "mpt",
    "attn_config": {
        "alibi": True,
        "alibi_bias_max": 8,
        "attn_impl": "torch",
        "attn_pdrop": 0,
        "attn_type": "multihead_attention",
        "attn_uses_sequence_id": False,
        "clip_qkv": None,
        "prefix_lm": False,
        "qk_ln": False,
        "softmax_scale": None,
    },
    "d_model": 4096,
    "emb_pdrop": 0,
    "embedding_fraction": 1.0,
    "expansion_ratio": 4,
    "init_config": {"name": "kaiming_normal_", "init_nonlinearity": "relu"},
    "init_device": "cpu",
    "learned_pos_emb": True,
    "logit_scale": None,
    "max_seq_len": 2048,
    "n_heads": 32,
    "n_layers": 32,
    "no_bias": True,
    "norm_type": "low_precision_layernorm",
    "resid_pdrop": 0,
    "tokenizer_name": "EleutherAI/gpt-neox-20b",
    "torch_dtype": "bfloat16",
    "use_cache": False,
    "verbose": 0,
    "vocab_size": 50432,
}
OPT_125M = {
    "model_type": "opt",
    "_remove_final_layer_norm": False,
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "prefix": "</s>",
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}


def read(**values: Any) -> ModelConfig:
    return model_config_from_hf(values, "m")


def test_the_classes_are_those_of_the_families() -> None:
    firsts = {"RefinedWeb", "RefinedWebModel"}  # Falcon's own, before transformers had it
    assert CLASSES.keys() | firsts == {kind for family in FAMILIES.values() for kind in family.model_types}
    assert list(FAMILIES) == sorted(FAMILIES)
    assert parity_models.FAMILIES.keys() == FAMILIES.keys()


@pytest.mark.parametrize("model_type", CLASSES)
def test_absent_keys_take_the_class_defaults_of_transformers(model_type: str) -> None:
    """A config.json with nothing but model_type, and one with everything written out, mean the same."""
    everything = getattr(transformers, CLASSES[model_type])().to_dict()
    assert everything["model_type"] == model_type
    assert read(model_type=model_type) == model_config_from_hf(everything, "m")
    assert unknown_fields(everything, "m") == []


@pytest.mark.parametrize(("family", "variation"), parity_models.VARIATIONS)
def test_what_transformers_writes_holds_nothing_unknown(family: str, variation: str) -> None:
    kind, arguments = parity_models.FAMILIES[family][variation]
    assert unknown_fields(getattr(transformers, kind)(**arguments).to_dict(), "m") == []


@pytest.mark.parametrize(("family", "variation"), parity_models.VARIATIONS)
def test_every_tensor_has_exactly_one_rule(family: str, variation: str) -> None:
    kind, arguments = parity_models.FAMILIES[family][variation]
    config = model_config_from_hf(getattr(transformers, kind)(**arguments).to_dict(), "m")
    shapes, rules = state_shapes(config), tensor_rules(config)
    made = [rule for rule in rules if isinstance(rule, Copied)]
    assert sorted(name for rule in made for name in rule.our_names) == sorted(shapes)
    theirs = [name for rule in made for name in rule.their_shapes(shapes)]
    assert len(theirs) == len(set(theirs))
    assert config.tie_embeddings == any(isinstance(rule, Tie) for rule in rules)


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


def test_yarn_as_the_qwen_pages_tell_people_to_add_it() -> None:
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    scaling = read(model_type="qwen2", rope_scaling=rope).rope_scaling
    assert scaling == RopeScaling(
        kind="yarn", factor=4.0, original_block_size=32768, magnitude=pytest.approx(1.1386294)
    )


def test_dynamic_scaling_starts_at_the_context() -> None:
    scaling = read(model_type="llama", rope_scaling={"type": "dynamic", "factor": 2.0}).rope_scaling
    assert scaling == RopeScaling(kind="dynamic", factor=2.0, original_block_size=2048)


@pytest.mark.parametrize("kind", ["longrope", "su", "yarn"])
def test_longrope_by_its_first_names(kind: str) -> None:
    """Phi 3 called it `su`, and for a while `yarn`."""
    rope = {"type": kind, "short_factor": [1.0, 1.5], "long_factor": [2, 3]}
    config = read(
        model_type="phi3",
        hidden_size=16,
        num_attention_heads=4,
        max_position_embeddings=16384,
        original_max_position_embeddings=4096,
        rope_scaling=rope,
    )
    assert config.rope_scaling == RopeScaling(
        kind="longrope",
        factor=4.0,
        original_block_size=4096,
        short_factors=(1.0, 1.5),
        long_factors=(2.0, 3.0),
        magnitude=pytest.approx((7 / 6) ** 0.5),  # ln 4 / ln 4096 = 1/6
    )


def test_neox_rotary_spellings_agree() -> None:
    old = read(model_type="gpt_neox", rotary_pct=0.5, rotary_emb_base=25000)
    new = read(model_type="gpt_neox", rope_parameters={"partial_rotary_factor": 0.5, "rope_theta": 25000})
    both = read(model_type="gpt_neox", rotary_pct=0.5, rotary_emb_base=25000, rope_theta=25000)
    assert old == new == both
    assert (old.rotary_percentage, old.rope_base) == (0.5, 25000.0)


@pytest.mark.parametrize("model_type", ["mistral", "gemma2", "gemma3_text"])
def test_sliding_window_absent_null_or_given(model_type: str) -> None:
    assert read(model_type=model_type).sliding_window == 4096
    assert read(model_type=model_type, sliding_window=None).sliding_window is None
    assert read(model_type=model_type, sliding_window=1024).sliding_window == 1024


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "qwen3_moe"])
def test_a_window_of_qwen_counts_only_where_it_is_used(model_type: str) -> None:
    unused = {"sliding_window": 131072, "max_window_layers": 3, "use_sliding_window": False}
    assert read(model_type=model_type, **unused) == read(model_type=model_type)
    assert read(model_type=model_type, **unused).sliding_window is None
    used = read(model_type=model_type, **{**unused, "use_sliding_window": True})
    below = () if model_type == "qwen3_moe" else (0, 1, 2)
    assert (used.sliding_window, used.full_attention_layers) == (131072, below)
    assert read(model_type=model_type, use_sliding_window=True).sliding_window == 4096


@pytest.mark.parametrize("model_type", ["mixtral", "phi3"])
def test_a_window_is_in_every_block_of_families_without_types(model_type: str) -> None:
    """transformers asks these for `sliding_window` alone."""
    config = read(model_type=model_type, sliding_window=8, layer_types=["full_attention"] * 32)
    assert (config.sliding_window, config.full_attention_layers) == (8, ())


def test_layer_types_win_over_a_pattern() -> None:
    listed = read(
        model_type="gemma3_text",
        num_hidden_layers=3,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    )
    assert listed.full_attention_layers == (0, 2)
    pattern = read(model_type="gemma3_text", num_hidden_layers=4, sliding_window_pattern=2)
    assert pattern.full_attention_layers == (1, 3)
    all_full = read(model_type="gemma2", num_hidden_layers=1, layer_types=["full_attention"])
    assert (all_full.sliding_window, all_full.full_attention_layers) == (None, ())


@pytest.mark.parametrize(("model_type", "default"), [("mistral", 8), ("mixtral", 8), ("gemma2", 4), ("llama", 32)])
def test_key_value_heads_absent_or_null(model_type: str, default: int) -> None:
    """Absent is the class default; null means as many as heads."""
    config = read(model_type=model_type)
    assert config.n_query_groups == default
    assert read(model_type=model_type, num_key_value_heads=None).n_query_groups == config.n_head


def test_first_falcon_spellings() -> None:
    seven = read(model_type="RefinedWebModel", n_head=71, n_layer=32, hidden_size=4544, multi_query=True, alibi=False)
    forty = read(model_type="RefinedWeb", n_head=128, n_head_kv=8, n_layer=60, hidden_size=8192, alibi=False)
    assert seven == read(model_type="falcon")
    assert (forty.n_layer, forty.n_query_groups, forty.block) == (60, 8, "parallel")


def test_falcon_with_one_norm_or_sequential_or_a_key_for_each_head() -> None:
    falcon2 = read(
        model_type="falcon",
        new_decoder_architecture=True,
        num_ln_in_parallel_attn=1,
        num_attention_heads=32,
        hidden_size=4096,
        num_kv_heads=8,
    )
    assert (falcon2.block, falcon2.n_query_groups) == ("shared_norm", 8)
    old = read(
        model_type="falcon", parallel_attn=False, multi_query=False, bias=True, hidden_size=64, num_attention_heads=4
    )
    assert (old.block, old.n_query_groups) == ("sequential", 4)
    assert old.qkv_bias and old.proj_bias and old.mlp_bias


@pytest.mark.parametrize(
    "spelling",
    [
        {"hidden_act": "gelu"},  # what the first files say, where the tanh form is meant
        {"hidden_act": "gelu", "hidden_activation": None},
        {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"},
        {"hidden_act": "gelu_pytorch_tanh"},
        {},
    ],
)
def test_gemma_1_has_the_tanh_form_however_it_is_spelled(spelling: dict[str, Any]) -> None:
    assert read(model_type="gemma", **spelling).activation == "gelu_tanh"


def test_gemma_3_rotation_old_and_new() -> None:
    old = read(
        model_type="gemma3_text",
        rope_theta=1000000.0,
        rope_local_base_freq=20000.0,
        rope_scaling={"rope_type": "linear", "factor": 8.0},
        sliding_window_pattern=6,
    )
    nested = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
    }
    assert old == read(model_type="gemma3_text", rope_parameters=nested)
    assert (old.rope_base, old.rope_local_base) == (1e6, 20000.0)
    assert old.rope_scaling == RopeScaling(kind="linear", factor=8.0)


def test_mpt_as_its_repositories_write_it() -> None:
    config = model_config_from_hf(MPT_7B, "mpt-7b")
    assert (config.n_layer, config.n_head, config.n_embd, config.intermediate_size) == (32, 32, 4096, 16384)
    assert (config.positions, config.norm, config.qkv_clip) == ("alibi", "layernorm_no_bias", None)
    assert unknown_fields(MPT_7B, "mpt-7b") == []
    writer = {**MPT_7B, "attn_config": {"alibi": True, "alibi_bias_max": 16, "clip_qkv": 6, "softmax_scale": 0.5}}
    config = model_config_from_hf(writer, "mpt-7b-storywriter")
    assert (config.alibi_bias_max, config.qkv_clip, config.attention_scale) == (16, 6, 0.5)
    assert model_config_from_hf({**MPT_7B, "attn_config": {"clip_qkv": 0}}, "m").qkv_clip is None


def test_opt_as_its_repositories_write_it() -> None:
    config = model_config_from_hf(OPT_125M, "opt-125m")
    assert dataclasses.replace(config, name="m") == read(model_type="opt")
    assert (config.positions, config.position_offset, config.activation) == ("learned", 2, "relu")
    assert unknown_fields(OPT_125M, "opt-125m") == []


def test_opt_files_of_2022_lack_the_first_part_of_their_names() -> None:
    name = "model.decoder.layers.0.fc1.weight"
    assert FAMILIES["opt"].standard_name(name.removeprefix("model.")) == name
    assert FAMILIES["opt"].standard_name(name) == name
    assert FAMILIES["opt"].standard_name("lm_head.weight") == "lm_head.weight"


def test_head_size_need_not_divide_the_width() -> None:
    config = read(model_type="llama", hidden_size=100, num_attention_heads=8, head_dim=16)
    assert state_shapes(config)["transformer.h.0.attn.proj.weight"] == (100, 128)


def test_family_goes_by_the_fields_not_the_name() -> None:
    assert model_config_from_hf({"model_type": "gpt_neox"}, "falcon-7b").family == "pythia"
    assert family_of({"model_type": "RefinedWeb"}).name == "falcon"


def test_unknown_fields_are_named_wherever_they_stand() -> None:
    values = {
        "model_type": "llama",
        "dual_chunk_attention_config": {"chunk_size": 8},
        "zebra": 1,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0, "short_mscale": 1.1},
    }
    assert unknown_fields(values, "m") == ["dual_chunk_attention_config", "rope_scaling.short_mscale", "zebra"]
    mpt = {"model_type": "mpt", "attn_config": {"kv_n_heads": 4, "attn_impl": "flash"}}
    assert unknown_fields(mpt, "m") == ["attn_config.kv_n_heads"]


@pytest.mark.parametrize(
    "harmless",
    [
        {"pretraining_tp": 2},
        {"num_local_experts": 0},
        {"quantization_config": None},
        {"use_cache": True},
        {"dtype": "x"},
        {"lm_head_bias": False},
        {"max_sequence_length": 2048, "temperature": 0.6, "top_p": 0.9, "do_sample": True},
    ],
)
def test_harmless_fields_pass_in_silence(harmless: dict[str, Any]) -> None:
    assert read(model_type="llama", **harmless) == read(model_type="llama")
    assert unknown_fields({"model_type": "llama", **harmless}, "m") == []
