"""Fields of a config.json as people and old releases wrote them: litft reads what the installed transformers reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from parity_checks import CPU, Pair, build_theirs, logits
from parity_models import GEMMA, HEAD_DIM, LONG_FACTORS, MPT, SHORT_FACTORS, SPECIAL, WIDE

from litft.checkpoint.convert import from_hf
from litft.config.convert import FromHfConfig
from litft.model.load import load_model

PHI3 = {"model_type": "phi3", **WIDE, **SPECIAL}
FACTORS = {"short_factor": SHORT_FACTORS, "long_factor": LONG_FACTORS}
GEMMA3 = {"model_type": "gemma3_text", **GEMMA, "sliding_window_pattern": 2}
DEFAULTS = {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
MIXED = ["full_attention", "sliding_attention", "full_attention"]

CONFIGS: dict[str, dict[str, Any]] = {
    "phi3, first length inside": {
        **PHI3,
        "rope_scaling": {"type": "longrope", **FACTORS, "original_max_position_embeddings": 16},
    },
    "phi3, first length outside": {
        **PHI3,
        "rope_scaling": {"type": "su", **FACTORS, "original_max_position_embeddings": 32},
        "original_max_position_embeddings": 16,
    },
    "phi3, first length nowhere": {
        **PHI3,
        "max_position_embeddings": 8192,
        "rope_scaling": {"type": "longrope", **FACTORS},
    },
    "phi3, yarn by name": {
        **PHI3,
        "rope_scaling": {"type": "yarn", "factor": 2.0, **FACTORS},
        "original_max_position_embeddings": 16,
    },
    "yarn with factors of longrope": {"model_type": "llama", **WIDE, "rope_scaling": {**YARN, **FACTORS}},
    "yarn with zeros": {"model_type": "llama", **WIDE, "rope_scaling": {**YARN, "beta_fast": 0, "beta_slow": 0}},
    "yarn with null": {
        "model_type": "qwen3",
        **HEAD_DIM,
        "rope_scaling": {**YARN, "original_max_position_embeddings": 64, "truncate": None},
    },
    "gemma, gelu by its other name": {"model_type": "gemma", **HEAD_DIM, "hidden_act": "gelu_python"},
    "gemma, gelu": {"model_type": "gemma", **HEAD_DIM, "hidden_act": "gelu"},
    "gemma3, bases outside": {**GEMMA3, "rope_parameters": DEFAULTS, "rope_theta": 5e3, "rope_local_base_freq": 300.0},
    "gemma3, one base inside": {
        **GEMMA3,
        "rope_parameters": {**DEFAULTS, "full_attention": {"rope_theta": 700.0}},
        "rope_theta": 5e3,
    },
    "gemma3, both spellings": {
        **GEMMA3,
        "rope_parameters": DEFAULTS,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "gemma3, old spelling": {
        **GEMMA3,
        "rope_theta": 5e3,
        "rope_local_base_freq": 300.0,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    },
    "mistral with types of blocks": {"model_type": "mistral", **HEAD_DIM, "sliding_window": 5, "layer_types": MIXED},
    "mpt, names of other families": {"model_type": "mpt", **MPT, "num_attention_heads": 2},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_spelling_means_what_transformers_takes_it_for(name: str, tmp_path: Path) -> None:
    text = json.dumps(CONFIGS[name])
    (tmp_path / "config.json").write_text(text)
    theirs = build_theirs(transformers.AutoConfig.from_pretrained(tmp_path))
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    from_hf(FromHfConfig(checkpoint_dir=tmp_path))
    assert logits(Pair(theirs, load_model(tmp_path, "32-true", CPU), tmp_path), tmp_path) <= 1e-5
