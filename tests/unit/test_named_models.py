"""The table of published models: against the facts it was made from, and against real config.json texts."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from published_configs import HF_CONFIGS

from litft.config.model import ModelConfig
from litft.errors import ConfigError
from litft.families import FAMILIES, model_config_from_hf, unknown_fields

FACTS = Path(__file__).parents[2] / ".." / "shared" / "facts"
TABLE = Path(__file__).parents[2] / "litft" / "config" / "named_models.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))

# The facts' words -> ours.
NORMS = {
    "LayerNorm": "layernorm",
    "LayerNorm, non-parametric (no weight, no bias)": "layernorm_plain",
    "RMSNorm": "rmsnorm",
    "RMSNorm with (1+weight)": "rmsnorm_plus_one",
}
QK_NORMS = {
    "": None,
    "RMSNorm over head_size per head": "head",
    "RMSNorm over head_size per head with (1+weight)": "head",
    "RMSNorm over the whole q / k projection width": "all_heads",
    "LayerNorm over head_size, a separate weight per head, no bias": "each_head",
}
ACTIVATIONS = {
    "silu": "silu",
    "gelu (erf)": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new = gelu tanh": "gelu_tanh",
}
# The biases of q, k, v; of the projection; of the MLP; of the head.
BIASES = {
    "none": (False, False, False, False),
    "linears none; norms have bias": (False, False, False, False),
    "q,k,v yes; o no; mlp no; lm_head no": (True, False, False, False),
    "q,k,v yes; other linears none; norms have bias": (True, False, False, False),
    "attn qkv+dense yes; mlp yes; lm_head no; norms have bias": (True, True, True, False),
    "attn qkv+dense yes; mlp yes; lm_head yes; norms have bias": (True, True, True, True),
}


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_a_named_model_is_what_its_config_json_says(name: str) -> None:
    """All but vocab_size, which config.json gives as rows of the embedding."""
    named, read = ModelConfig.from_name(name).to_dict(), model_config_from_hf(HF_CONFIGS[name], name).to_dict()
    assert named["vocab_size"] <= read["vocab_size"]
    assert {**named, "vocab_size": 0} == {**read, "vocab_size": 0}


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_published_files_hold_nothing_unknown(name: str) -> None:
    assert unknown_fields(HF_CONFIGS[name], name) == []


def test_every_family_with_names_is_held_against_a_published_file() -> None:
    named = {row["family"] for row in ROWS}
    assert named == {ModelConfig.from_name(name).family for name in HF_CONFIGS}
    assert named == set(FAMILIES)


def test_each_model_is_found_by_each_of_its_names_and_by_no_other() -> None:
    taken: set[str] = set()
    for row in ROWS:
        names = {row["name"], row["repo_id"], row["repo_id"].rpartition("/")[2]}
        assert {ModelConfig.from_name(name).name for name in names} == {row["name"]}
        assert not taken & names
        taken |= names


def test_found_in_whatever_organisation() -> None:
    names = ("Llama-3-8B", "meta-llama/Meta-Llama-3-8B", "Meta-Llama-3-8B", "mirror/Meta-Llama-3-8B")
    assert len({ModelConfig.from_name(name) for name in names}) == 1


def test_a_misspelt_name_is_met_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r'Did you mean "Mistral-7B-v0\.1"'):
        ModelConfig.from_name("Mistral-7B-v01")


def facts() -> list[dict[str, str]]:
    if not FACTS.is_dir():
        pytest.skip("the facts are not here")
    return list(csv.DictReader((FACTS / "models.csv").read_text(encoding="utf-8").splitlines()))


def test_every_model_of_the_facts_has_a_name() -> None:
    rows, beyond = facts(), {"mpt", "opt"}
    assert len(rows) == 254
    named = {(row["name"], row["repo_id"]) for row in ROWS if row["family"] not in beyond}
    assert {(row["name"], row["hf_repo_id"]) for row in rows} == named


def test_the_table_agrees_with_the_facts() -> None:
    """Every column; a model's fields that no column speaks of are their defaults."""
    for row in facts():
        config = ModelConfig.from_name(row["name"])
        wanted = {**sizes(row), **variants(row), **windows(row), **experts(row), **scales(row)}
        changed = {
            field.name
            for field in dataclasses.fields(ModelConfig)
            if field.default is not dataclasses.MISSING and getattr(config, field.name) != field.default
        }
        assert changed <= wanted.keys() | {"rope_scaling"}, row["name"]
        assert {field: getattr(config, field) for field in wanted} == wanted, row["name"]
        check_rope_scaling(config, row)


def sizes(row: dict[str, str]) -> dict[str, Any]:
    whole = ("n_layer", "n_embd", "n_head", "n_query_groups", "head_size", "block_size", "vocab_size")
    return {
        **{field: int(row[field]) for field in whole},
        "padded_vocab_size": int(row["padded_vocab_size_in_checkpoint"]),
        "rotary_percentage": float(row["rotary_percentage"]),
        "rope_base": float(row["rope_base"]),
        "norm_eps": float(row["norm_eps"]),
    }


def variants(row: dict[str, str]) -> dict[str, Any]:
    qkv_bias, proj_bias, mlp_bias, lm_head_bias = BIASES[row["bias"]]
    return {
        "family": {"gpt_neox": "pythia"}.get(row["family"], row["family"]),
        "norm": "rmsnorm_float32" if row["family"] == "olmo2" else NORMS[row["norm_type"]],
        "qk_norm": QK_NORMS[row["qk_norm"]],
        "block": block(row),
        "mlp": "plain" if row["mlp_type"] == "2-matrix" else "gated",
        "activation": ACTIVATIONS[row["activation"]],
        "qkv_bias": qkv_bias,
        "proj_bias": proj_bias,
        "mlp_bias": mlp_bias,
        "lm_head_bias": lm_head_bias,
        "tie_embeddings": row["tie_embeddings"] == "true",
    }


def block(row: dict[str, str]) -> str:
    if row["parallel_residual"] == "true":
        return "shared_norm" if row["shared_attention_norm"] == "true" else "parallel"
    assert row["shared_attention_norm"] == "false"
    if "no pre-norms" in row["notes"]:
        return "post_norm"
    return "sandwich" if "4 norms per block" in row["notes"] else "sequential"


def windows(row: dict[str, str]) -> dict[str, Any]:
    """Reads such as `1024 except every 6th layer ((i+1)%6==0 is full)`."""
    text, layers = row["sliding_window"], range(int(row["n_layer"]))
    if not text:
        return {"sliding_window": None, "full_attention_layers": ()}
    size, _, which = text.partition(" ")
    full: dict[str, list[int]] = {
        "all layers": [],
        "(never active)": [],
        "on layers i%2==0": [i for i in layers if i % 2 == 1],
        "except every 6th layer ((i+1)%6==0 is full)": [i for i in layers if (i + 1) % 6 == 0],
    }
    local = {"rope_local_base": 10000.0} if row["family"] == "gemma3" else {}
    return {"sliding_window": int(size), "full_attention_layers": tuple(full[which]), **local}


def experts(row: dict[str, str]) -> dict[str, Any]:
    found = re.search(r"(\d+) experts, (\d+) per token", row["notes"])
    if row["mlp_type"] != "MoE of gated experts":
        assert found is None
        return {"intermediate_size": int(row["intermediate_size"]), "n_expert": 0}
    assert found is not None
    width = re.search(r"moe_intermediate_size=(\d+)", row["notes"])
    return {
        "intermediate_size": int(width[1] if width else row["intermediate_size"]),
        "n_expert": int(found[1]),
        "n_expert_per_token": int(found[2]),
        "normalize_expert_weights": True,
    }


def scales(row: dict[str, str]) -> dict[str, Any]:
    scalar = re.search(r"query_pre_attn_scalar=(\d+)", row["notes"])
    caps = {"": (None, None), "attn 50.0; final 30.0": (50.0, 30.0)}[row["softcaps"]]
    return {
        "attention_scale": int(scalar[1]) ** -0.5 if scalar else None,
        "attention_softcap": caps[0],
        "logit_softcap": caps[1],
        "embedding_scale": {"no": None, "sqrt(n_embd)": int(row["n_embd"]) ** 0.5}[row["scale_embeddings"]],
    }


def check_rope_scaling(config: ModelConfig, row: dict[str, str]) -> None:
    scaling, wanted = config.rope_scaling, json.loads(row["rope_scaling"] or "null")
    if scaling is None or wanted is None:
        assert scaling is wanted is None, row["name"]
        return
    assert scaling.kind == wanted["rope_type"]
    if scaling.kind == "longrope":
        check_longrope(config, wanted["original_max_position_embeddings"])
        return
    ours = {"factor": "factor", "low_freq_factor": "low_freq_factor", "high_freq_factor": "high_freq_factor"}
    ours["original_max_position_embeddings"] = "original_block_size"
    assert {key: getattr(scaling, ours[key]) for key in wanted if key in ours} == {
        key: value for key, value in wanted.items() if key in ours
    }


def check_longrope(config: ModelConfig, original: int) -> None:
    """The lists of Phi 3 mini 128k are not among the facts; they rise and end where its siblings' do."""
    scaling = config.rope_scaling
    assert scaling is not None
    assert (scaling.factor, scaling.original_block_size) == (config.block_size / original, original)
    assert scaling.magnitude == math.sqrt(1 + math.log(scaling.factor) / math.log(original))
    if config.name == "Phi-3-mini-128k-instruct":
        assert list(scaling.long_factors) == sorted(scaling.long_factors)
        assert list(scaling.short_factors) == sorted(scaling.short_factors)
        assert 64 < scaling.long_factors[-1] < 65 and 1 <= scaling.short_factors[0] < scaling.short_factors[-1] < 4
        return
    published = json.loads((FACTS / "longrope_factors.json").read_text(encoding="utf-8"))
    wanted = published["Phi-3.5-mini-instruct" if "3.5" in config.name else "Phi-4-mini-instruct"]
    assert list(scaling.short_factors) == wanted["short_factor"]
    assert list(scaling.long_factors) == wanted["long_factor"]
