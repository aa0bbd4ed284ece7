"""The description of a model in Lit-GPT's `lit_config.json` or litgpt's `model_config.yaml`, as a config.json.

A config.json is what families are read from and what an export needs. Knows no weights.
Source: `Config` of Lit-GPT (2023, `lit_gpt/config.py`) and of litgpt 0.2 to 0.5.13 (`litgpt/config.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from litft.checkpoint.disk import read_json
from litft.config.io import load_yaml
from litft.errors import CheckpointError

LIT_CONFIG_NAMES = ("model_config.yaml", "lit_config.json")

_OLD_NAMES = {
    "_norm_class": "norm_class_name",
    "_mlp_class": "mlp_class_name",
    "condense_ratio": "rope_condense_ratio",
}
# What `Config` takes for a field that a file leaves out.
_DEFAULTS: dict[str, Any] = {
    "block_size": 4096,
    "n_layer": 16,
    "n_embd": 4096,
    "n_head": 32,
    "vocab_size": 50254,
    "rotary_percentage": 0.25,
    "parallel_residual": True,
    "shared_attention_norm": False,
    "bias": True,
    "norm_class_name": "LayerNorm",
    "norm_eps": 1e-5,
    "mlp_class_name": "GptNeoxMLP",
    "gelu_approximate": "none",
    "rope_base": 10000,
    "rope_condense_ratio": 1,
    "rope_adjustments": None,
    "head_size": None,
    "n_query_groups": None,
    "intermediate_size": None,
}
# Fields of other families, and the values at which they change nothing.
_INERT: dict[str, tuple[Any, ...]] = {
    "scale_embeddings": (False,),
    "lm_head_bias": (False,),
    "attn_bias": (False,),
    "n_expert": (0,),
    "norm_1": (True,),
    "norm_2": (True,),
}
# Fields that say nothing by themselves: they follow from others, or belong to one that `_INERT` or null excludes.
_SILENT = {
    "source",
    "org",
    "name",
    "hf_config",
    "padding_multiple",
    "padded_vocab_size",
    "rope_n_elem",
    "n_expert_per_token",
    "norm_qk_type",
    "norm_topk_prob",
    "routed_scaling_factor",
    "sliding_window_indices",
    "sliding_window_layer_placing",
    "rope_indices",
}


def read_lit_config(folder: Path) -> dict[str, Any]:
    """Gives the fields of a folder's description in litgpt's present names, absent ones at their defaults.

    Args:
        folder: of Lit-GPT or litgpt.

    Raises:
        CheckpointError: there is no description, or it is litft's own.
    """
    path = next((folder / name for name in LIT_CONFIG_NAMES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(
            f"{folder} holds neither config.json nor {' nor '.join(LIT_CONFIG_NAMES)}; "
            "copy config.json of the model there."
        )
    given = read_json(path) if path.suffix == ".json" else load_yaml(path)
    if "family" in given:
        raise CheckpointError(f"{path} was written by litft, so {folder} is no folder of Lit-GPT; use it as it is.")
    given = {_OLD_NAMES.get(key, key): value for key, value in given.items()}
    organisation = given.pop("org", None)
    values = {**_DEFAULTS, **given, "source": path}
    values["name"] = _name_of(values, folder)
    values["org"] = organisation or (values.get("hf_config") or {}).get("org")
    for key in ("n_layer", "n_embd", "n_head", "block_size"):
        if type(values[key]) is not int or values[key] < 1:
            raise CheckpointError(f"{path} has {key} = {values[key]!r}; a whole number above 0 belongs there.")
    return values


def _name_of(values: dict[str, Any], folder: Path) -> str:
    """Gives the model's name on the hub, else the one in the file, else that of the folder."""
    return str((values.get("hf_config") or {}).get("name") or values.get("name") or folder.resolve().name)


def hf_config_from_lit(values: dict[str, Any], rows: int, tied: bool) -> dict[str, Any]:
    """Gives the config.json that Hugging Face would have for a model of Lit-GPT's.

    Args:
        values: as `read_lit_config` gives them.
        rows: of the embedding.
        tied: whether the head is the embedding.

    Raises:
        CheckpointError: the fields describe none of the families that can be told from them alone.
    """
    for key, value in values.items():
        harmless = _INERT.get(key, (None, False))
        if key not in _DEFAULTS and key not in _SILENT and value not in harmless:
            _refuse(values, f"{key} is {value}")
    family = next((write for matches, write in _FAMILIES if matches(values)), None)
    if family is None:
        shown = ("mlp_class_name", "norm_class_name", "parallel_residual", "shared_attention_norm", "bias")
        _refuse(values, ", ".join(f"{key} is {values[key]}" for key in shown))
    groups = values["n_query_groups"] or values["n_head"]
    common = {
        "vocab_size": rows,
        "hidden_size": values["n_embd"],
        "num_hidden_layers": values["n_layer"],
        "num_attention_heads": values["n_head"],
        "max_position_embeddings": values["block_size"],
        "rope_theta": float(values["rope_base"]),
        "rope_scaling": _rope_scaling(values),
        "tie_word_embeddings": tied,
    }
    return {**family(values, groups), **common}


def _refuse(values: dict[str, Any], what: str) -> NoReturn:
    """Raises the error for a description that belongs to no family here."""
    raise CheckpointError(
        f"{values['source']} describes a model that litft cannot tell the family of ({what}); "
        f"copy config.json of {values['name']} from Hugging Face into {values['source'].parent}."
    )


def _rope_scaling(values: dict[str, Any]) -> dict[str, Any] | None:
    """Gives how rotary frequencies are stretched, in Hugging Face's words."""
    adjustments, ratio = values["rope_adjustments"] or {}, values["rope_condense_ratio"]
    if ratio != 1 and not adjustments:
        return {"rope_type": "linear", "factor": float(ratio)}
    if adjustments.keys() == {"factor"} and ratio == 1:
        return {"rope_type": "linear", "factor": float(adjustments["factor"])}
    names = {"factor", "low_freq_factor", "high_freq_factor", "original_max_seq_len"}
    if adjustments.keys() == names and ratio == 1:
        return {
            "rope_type": "llama3",
            "factor": float(adjustments["factor"]),
            "low_freq_factor": float(adjustments["low_freq_factor"]),
            "high_freq_factor": float(adjustments["high_freq_factor"]),
            "original_max_position_embeddings": adjustments["original_max_seq_len"],
        }
    if adjustments:
        _refuse(values, f"rope_adjustments is {adjustments} and rope_condense_ratio {ratio}")
    return None


def _is_llama(values: dict[str, Any]) -> bool:
    """Says whether a block is Llama's."""
    return (
        values["mlp_class_name"] == "LLaMAMLP"
        and values["norm_class_name"] == "RMSNorm"
        and values["rotary_percentage"] == 1.0
        and not values["parallel_residual"]
    )


def _is_mistral(values: dict[str, Any]) -> bool:
    """Says whether a model with Llama's block goes by Mistral's name; Lit-GPT has no other mark."""
    name = f"{values['org']}/{values['name']}".lower()
    return _is_llama(values) and not values["bias"] and any(word in name for word in ("mistral", "mathstral"))


def _is_plain(values: dict[str, Any]) -> bool:
    """Says whether norms and MLP are GPT-NeoX's, as they are in Falcon."""
    return (values["mlp_class_name"], values["norm_class_name"]) == ("GptNeoxMLP", "LayerNorm")


def _is_pythia(values: dict[str, Any]) -> bool:
    """Says whether a block is GPT-NeoX's."""
    groups = values["n_query_groups"]
    return (
        _is_plain(values)
        and bool(values["bias"])
        and not values["shared_attention_norm"]
        and groups in (None, values["n_head"])
    )


def _is_falcon(values: dict[str, Any]) -> bool:
    """Says whether a block is Falcon's."""
    return (
        _is_plain(values)
        and not values["bias"]
        and values["parallel_residual"]
        and values["rotary_percentage"] == 1.0
        and bool(values["n_query_groups"])
    )


def _llama(values: dict[str, Any], groups: int) -> dict[str, Any]:
    """Gives what only a Llama's config.json has."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_key_value_heads": groups,
        "head_dim": values["head_size"],
        "intermediate_size": values["intermediate_size"],
        "rms_norm_eps": values["norm_eps"],
        "hidden_act": "silu",
        "attention_bias": values["bias"],
        "mlp_bias": values["bias"],
    }


def _mistral(values: dict[str, Any], groups: int) -> dict[str, Any]:
    """Gives what only a Mistral's config.json has; Lit-GPT runs it without a window, on shorter texts."""
    llama = {key: value for key, value in _llama(values, groups).items() if not key.endswith("_bias")}
    return {**llama, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}


def _pythia(values: dict[str, Any], groups: int) -> dict[str, Any]:
    """Gives what only a GPT-NeoX's config.json has."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "intermediate_size": values["intermediate_size"] or 4 * values["n_embd"],
        "layer_norm_eps": values["norm_eps"],
        "hidden_act": _gelu(values),
        "rotary_pct": values["rotary_percentage"],
        "rotary_emb_base": values["rope_base"],
        "use_parallel_residual": values["parallel_residual"],
        "attention_bias": True,
    }


def _falcon(values: dict[str, Any], groups: int) -> dict[str, Any]:
    """Gives what only a Falcon's config.json has: one group is the 7B's kind of block, several the 40B's."""
    one_norm, is_new = values["shared_attention_norm"], groups > 1 or not values["shared_attention_norm"]
    return {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "ffn_hidden_size": values["intermediate_size"] or 4 * values["n_embd"],
        "layer_norm_epsilon": values["norm_eps"],
        "activation": _gelu(values),
        "bias": False,
        "alibi": False,
        "parallel_attn": True,
        "multi_query": not is_new,
        "new_decoder_architecture": is_new,
        "num_kv_heads": groups,
        "num_ln_in_parallel_attn": 1 if one_norm else 2,
    }


def _gelu(values: dict[str, Any]) -> str:
    """Gives the activation of a plain MLP."""
    return "gelu_pytorch_tanh" if values["gelu_approximate"] == "tanh" else "gelu"


# A family more is a row: how it is known by its fields, and what only its config.json has.
_FAMILIES: tuple[tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any], int], dict[str, Any]]], ...] = (
    (_is_mistral, _mistral),
    (_is_llama, _llama),
    (_is_falcon, _falcon),
    (_is_pythia, _pythia),
)
