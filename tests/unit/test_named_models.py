"""The table of published models: against the facts it was made from, and against real config.json texts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from litft.config.model import ModelConfig
from litft.errors import ConfigError
from litft.families import model_config_from_hf

FACTS = Path(__file__).parents[2] / ".." / "shared" / "facts" / "models.csv"

HF_CONFIGS: dict[str, dict[str, Any]] = {
    "Llama-2-7b-hf": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": 32000,
    },
    "Llama-3.1-8B": {
        "model_type": "llama",
        "attention_bias": False,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "vocab_size": 128256,
    },
    "Mistral-7B-v0.1": {
        "model_type": "mistral",
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "vocab_size": 32000,
    },
    "falcon-7b": {
        "model_type": "falcon",
        "alibi": False,
        "bias": False,
        "hidden_size": 4544,
        "layer_norm_epsilon": 1e-05,
        "multi_query": True,
        "new_decoder_architecture": False,
        "num_attention_heads": 71,
        "num_hidden_layers": 32,
        "parallel_attn": True,
        "vocab_size": 65024,
    },
    "falcon-40b": {
        "model_type": "falcon",
        "alibi": False,
        "bias": False,
        "hidden_size": 8192,
        "layer_norm_epsilon": 1e-05,
        "new_decoder_architecture": True,
        "num_attention_heads": 128,
        "num_hidden_layers": 60,
        "num_kv_heads": 8,
        "parallel_attn": True,
        "vocab_size": 65024,
    },
    "pythia-160m": {
        "model_type": "gpt_neox",
        "hidden_act": "gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
        "vocab_size": 50304,
    },
}


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_a_named_model_is_what_its_config_json_says(name: str) -> None:
    """All but vocab_size, which config.json gives as rows of the embedding."""
    named, read = ModelConfig.from_name(name).to_dict(), model_config_from_hf(HF_CONFIGS[name], name).to_dict()
    assert named["vocab_size"] <= read["vocab_size"]
    assert {**named, "vocab_size": 0} == {**read, "vocab_size": 0}


def test_found_by_each_of_its_names() -> None:
    names = ("Llama-3-8B", "meta-llama/Meta-Llama-3-8B", "Meta-Llama-3-8B")
    assert len({ModelConfig.from_name(name) for name in names}) == 1


def test_a_misspelt_name_is_met_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r'Did you mean "Mistral-7B-v0\.1"'):
        ModelConfig.from_name("Mistral-7B-v01")


@pytest.mark.skipif(not FACTS.is_file(), reason="the facts are not here")
def test_the_table_agrees_with_the_facts() -> None:
    rows = list(csv.DictReader(FACTS.read_text(encoding="utf-8").splitlines()))
    rows = [row for row in rows if row["family"] in ("llama", "mistral", "falcon", "gpt_neox")]
    assert len(rows) == 141
    for row in rows:
        config = ModelConfig.from_name(row["name"])
        numbers = ("n_layer", "n_embd", "n_head", "n_query_groups", "head_size", "intermediate_size", "block_size")
        for field in (*numbers, "vocab_size", "norm_eps", "rope_base", "rotary_percentage"):
            assert getattr(config, field) == float(row[field]), (row["name"], field)
        for field in ("parallel_residual", "shared_attention_norm", "tie_embeddings"):
            assert getattr(config, field) == (row[field] == "true"), (row["name"], field)
        assert config.padded_vocab_size == int(row["padded_vocab_size_in_checkpoint"])
        assert config.family == {"gpt_neox": "pythia"}.get(row["family"], row["family"])
        assert config.norm == row["norm_type"].lower()
        assert (config.mlp, config.activation) == (
            ("gated", "silu") if row["activation"] == "silu" else ("plain", "gelu")
        )
        assert config.sliding_window == (4096 if row["sliding_window"] else None)
        scaling = json.loads(row["rope_scaling"] or "null")
        assert (config.rope_scaling is None) == (scaling is None)
        if config.rope_scaling is not None:
            assert (config.rope_scaling.kind, config.rope_scaling.factor) == (scaling["rope_type"], scaling["factor"])
        assert (config.qkv_bias, config.mlp_bias) == (config.family == "pythia", config.family == "pythia")
