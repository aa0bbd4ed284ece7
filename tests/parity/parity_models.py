"""Tiny random models of every family and of every variation that occurs in it, as arguments for transformers."""

from __future__ import annotations

from typing import Any

Arguments = dict[str, Any]

SIZES: Arguments = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
WIDE: Arguments = {**SIZES, "intermediate_size": 56, "max_position_embeddings": 64}
GQA: Arguments = {**WIDE, "num_key_value_heads": 2}
HEAD_DIM: Arguments = {**GQA, "head_dim": 16}
MOE: Arguments = {**GQA, "num_experts_per_tok": 2}
QWEN_MOE: Arguments = {**MOE, "head_dim": 16, "moe_intermediate_size": 24, "num_experts": 5}
GEMMA: Arguments = {**HEAD_DIM, "query_pre_attn_scalar": 24, "sliding_window": 5}
GEMMA2: Arguments = {**GEMMA, "attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.5}
PHI_ROPE: Arguments = {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}
MPT: Arguments = {"vocab_size": 96, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64}
OPT: Arguments = {**SIZES, "ffn_dim": 56, "max_position_embeddings": 64, "word_embed_proj_dim": 32, "dropout": 0.0}
SPECIAL: Arguments = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def rope(kind: str, **values: Any) -> Arguments:
    """Gives `rope_parameters` of a kind of scaling."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **values}}


LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=16)
YARN_MSCALE = rope(
    "yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7, mscale_all_dim=0.4, beta_fast=8, truncate=False
)
# Shorter texts than 30 tokens take the short factors, longer than 16 the long ones.
SHORT_FACTORS, LONG_FACTORS = [1.0, 1.1, 1.3, 1.7], [1.5, 2.5, 4.0, 9.0]


def longrope(original: int, count: int, share: float = 1.0) -> Arguments:
    """Gives a Phi 3's longrope whose first context was `original` tokens."""
    factors = {"short_factor": SHORT_FACTORS[:count], "long_factor": LONG_FACTORS[:count]}
    parameters = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": share, **factors}
    return {"original_max_position_embeddings": original, "rope_parameters": parameters}


GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}

# family -> variation -> (transformers' config class, its arguments)
FAMILIES: dict[str, dict[str, tuple[str, Arguments]]] = {
    "llama": {
        "mha": ("LlamaConfig", WIDE),
        "gqa": ("LlamaConfig", GQA),
        "mqa": ("LlamaConfig", {**WIDE, "num_key_value_heads": 1}),
        "tied": ("LlamaConfig", {**WIDE, "tie_word_embeddings": True}),
        "biases": ("LlamaConfig", {**WIDE, "attention_bias": True, "mlp_bias": True}),
        "wide heads": ("LlamaConfig", {**WIDE, "head_dim": 16}),
        "rope linear": ("LlamaConfig", {**WIDE, **rope("linear", factor=4.0)}),
        "rope llama3": ("LlamaConfig", {**WIDE, **LLAMA3}),
        "rope yarn": ("LlamaConfig", {**WIDE, **YARN}),
        "rope dynamic": ("LlamaConfig", {**WIDE, "max_position_embeddings": 16, **rope("dynamic", factor=2.0)}),
    },
    "mistral": {
        "no window": ("MistralConfig", {**GQA, "sliding_window": None}),
        "short window": ("MistralConfig", {**GQA, "sliding_window": 5}),
        "long window": ("MistralConfig", {**GQA, "sliding_window": 50}),
    },
    "mixtral": {
        "2 of 4": ("MixtralConfig", {**MOE, "num_local_experts": 4}),
        "window": ("MixtralConfig", {**MOE, "num_local_experts": 3, "sliding_window": 5}),
    },
    "falcon": {
        "7b": ("FalconConfig", {**SIZES, "multi_query": True, "parallel_attn": True, "alibi": False}),
        "40b": ("FalconConfig", {**SIZES, "new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False}),
        "11b": (
            "FalconConfig",
            {**SIZES, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
        ),
        "sequential": ("FalconConfig", {**SIZES, "multi_query": False, "parallel_attn": False, "bias": True}),
    },
    "pythia": {
        "parallel": ("GPTNeoXConfig", WIDE),
        "sequential": ("GPTNeoXConfig", {**WIDE, "use_parallel_residual": False}),
        "whole heads": (
            "GPTNeoXConfig",
            {**WIDE, "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0}},
        ),
    },
    "stablelm": {
        "3b": ("StableLmConfig", {**WIDE, "num_key_value_heads": 4}),
        "1.6b": ("StableLmConfig", {**WIDE, "num_key_value_heads": 4, "use_qkv_bias": True}),
        "12b": ("StableLmConfig", {**GQA, "qk_layernorm": True, "use_parallel_residual": True}),
    },
    "phi": {"1.5": ("PhiConfig", WIDE), "2": ("PhiConfig", {**WIDE, "rope_parameters": PHI_ROPE})},
    "phi3": {
        "4k": ("Phi3Config", {**WIDE, **SPECIAL}),
        "window": ("Phi3Config", {**GQA, **SPECIAL, "sliding_window": 5}),
        "longrope short": ("Phi3Config", {**WIDE, **SPECIAL, **longrope(30, 4)}),
        "longrope long": ("Phi3Config", {**WIDE, **SPECIAL, **longrope(16, 4)}),
        "4 mini": ("Phi3Config", {**GQA, **SPECIAL, **longrope(16, 3, 0.75), "tie_word_embeddings": True}),
    },
    "gemma": {
        "7b": ("GemmaConfig", {**WIDE, "num_key_value_heads": 4, "head_dim": 16}),
        "2b": ("GemmaConfig", {**HEAD_DIM, "num_key_value_heads": 1}),
    },
    "gemma2": {
        "9b": ("Gemma2Config", GEMMA2),
        "long window": ("Gemma2Config", {**GEMMA2, "sliding_window": 50}),
    },
    "gemma3": {
        "1b": ("Gemma3TextConfig", {**GEMMA, "num_hidden_layers": 7}),
        "4b": ("Gemma3TextConfig", {**GEMMA, "num_hidden_layers": 7, "rope_parameters": GEMMA3_ROPE}),
    },
    "qwen2": {
        "7b": ("Qwen2Config", GQA),
        "tied": ("Qwen2Config", {**GQA, "tie_word_embeddings": True}),
        "yarn": ("Qwen2Config", {**GQA, **YARN_MSCALE}),
        "window above": (
            "Qwen2Config",
            {**GQA, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        ),
    },
    "qwen3": {"dense": ("Qwen3Config", HEAD_DIM), "biases": ("Qwen3Config", {**HEAD_DIM, "attention_bias": True})},
    "qwen3_moe": {
        "normalized": ("Qwen3MoeConfig", {**QWEN_MOE, "norm_topk_prob": True}),
        "not normalized": ("Qwen3MoeConfig", {**QWEN_MOE, "norm_topk_prob": False}),
    },
    "olmo": {
        "1b": ("OlmoConfig", {**WIDE, **SPECIAL, "tie_word_embeddings": True}),
        "clipped": ("OlmoConfig", {**WIDE, **SPECIAL, "clip_qkv": 0.05}),
    },
    "olmo2": {"7b": ("Olmo2Config", {**WIDE, **SPECIAL}), "32b": ("Olmo2Config", {**GQA, **SPECIAL})},
    "mpt": {
        "7b": ("MptConfig", MPT),
        "clipped, 6 heads": ("MptConfig", {**MPT, "d_model": 48, "n_heads": 6, "attn_config": {"clip_qkv": 0.05}}),
    },
    "opt": {"relu": ("OPTConfig", {**OPT, **SPECIAL})},
}

VARIATIONS = [(family, variation) for family, variations in FAMILIES.items() for variation in variations]
