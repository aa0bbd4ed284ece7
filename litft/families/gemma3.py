"""Gemma 3, text: Gemma 2 without soft caps, norms on queries and keys, five blocks with a window to one without.

The models that also see images (4b and larger) are read for their text half; an export holds that half alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litft.config.model import ModelConfig
from litft.families.base import Drop, Family, Rule
from litft.families.fields import HfFields
from litft.families.gemma2 import NORMS
from litft.families.llama import llama_rules
from litft.families.rope import RopeFields

_PREFIXES = (("model.language_model.", "model."), ("language_model.model.", "model."), ("language_model.", ""))
_IMAGE_PARTS = ("vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector.")


def config_from_hf(fields: HfFields) -> ModelConfig:
    """Gives the sizes of a Gemma 3's text half.

    Args:
        fields: of config.json; absent ones take the defaults of transformers' `Gemma3TextConfig`.

    Raises:
        CheckpointError: a field that litft cannot honour.

    Source: `Gemma3TextConfig`, `Gemma3Attention` and `Gemma3DecoderLayer` of transformers 5.
    """
    n_embd, n_head = fields.integer("hidden_size", default=2304), fields.integer("num_attention_heads", default=8)
    n_layer = fields.integer("num_hidden_layers", default=26)
    every = fields.integer("sliding_window_pattern", default=6)
    if every < 1:
        fields.refuse("sliding_window_pattern", "every so many blocks one sees all, so at least 1 belongs there")
    block_size = fields.integer("max_position_embeddings", default=131_072)
    attention_bias = fields.flag("attention_bias", False)
    fields.has("hidden_act")  # a second spelling of hidden_activation, which transformers does not read
    return ModelConfig(
        name=fields.name,
        family="gemma3",
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        n_query_groups=fields.query_groups(n_head, 4),
        head_size=fields.integer("head_dim", default=256),
        intermediate_size=fields.integer("intermediate_size", default=9216),
        block_size=block_size,
        **fields.vocabulary(262_208),
        norm="rmsnorm_plus_one",
        norm_eps=fields.number("rms_norm_eps", default=1e-6),
        qk_norm="head",
        activation=fields.activation("hidden_activation", "gelu_tanh"),
        block="sandwich",
        qkv_bias=attention_bias,
        proj_bias=attention_bias,
        attention_scale=fields.number("query_pre_attn_scalar", default=256) ** -0.5,
        logit_softcap=fields.cap("final_logit_softcapping", None),
        embedding_scale=n_embd**0.5,
        tie_embeddings=fields.flag("tie_word_embeddings", True),
        **fields.windows(fields.window(4096), range(every - 1, n_layer, every), n_layer),
        **_rope(fields, block_size),
    )


def _rope(fields: HfFields, block_size: int) -> dict[str, Any]:
    """Gives the rotation: blocks that see all have a large base and may be stretched, the others do neither.

    Source: `Gemma3TextConfig.convert_rope_params_to_dict`: bases outside count where none stands inside, and
    `rope_scaling` is laid over the parameters of the blocks that see all.
    """
    fields.only("original_max_position_embeddings", None)
    whole = _rope_of(fields, "full_attention", _whole_scaling(fields))
    local = _rope_of(fields, "sliding_attention", {})
    if local.scaling(block_size) is not None:
        fields.refuse("rope_parameters", "litft does not stretch the blocks with a window")
    return {
        "rope_base": whole.number("rope_theta", fields.number("rope_theta", default=1e6)),
        "rope_scaling": whole.scaling(block_size),
        "rope_local_base": local.number("rope_theta", fields.number("rope_local_base_freq", default=10_000.0)),
    }


def _whole_scaling(fields: HfFields) -> Mapping[str, Any]:
    """Gives `rope_scaling`, the old spelling."""
    scaling = fields.value("rope_scaling") or {}
    if not isinstance(scaling, dict) or ("type" in scaling and "rope_type" not in scaling):
        fields.refuse("rope_scaling", "a map of parameters belongs there, whose kind this family calls rope_type")
    return scaling


def _rope_of(fields: HfFields, kind: str, over: Mapping[str, Any]) -> RopeFields:
    """Gives the rotary parameters of one type of block, with others laid over them."""
    nested = fields.value("rope_parameters") or {}
    if not isinstance(nested, dict) or not all(isinstance(value, dict | None) for value in nested.values()):
        fields.refuse("rope_parameters", "a map of parameters belongs there for each type of block")
    return fields.rope_part("rope_scaling" if over else "rope_parameters", {**(nested.get(kind) or {}), **over})


def rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of a Gemma 3's text tensors; those of images are dropped.

    Source: `Gemma3ForCausalLM` and `Gemma3ForConditionalGeneration` of transformers.
    """
    return [*llama_rules(config, NORMS), *(Drop(f"{part}*") for part in _IMAGE_PARTS)]


def text_config(hf_config: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the config.json of the text half of one that describes images too; one of text alone as it is.

    What the whole model says of tokens, dtype and tying counts before what its text half says.
    """
    if not isinstance(hf_config.get("text_config"), Mapping):
        return dict(hf_config)
    tokens, types = ("bos_token_id", "eos_token_id", "pad_token_id"), ("dtype", "torch_dtype", "transformers_version")
    kept = (*tokens, *types, "tie_word_embeddings", "quantization_config")
    outer = {key: hf_config[key] for key in kept if hf_config.get(key) is not None}
    return {
        **hf_config["text_config"],
        **outer,
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
    }


GEMMA3 = Family("gemma3", ("gemma3_text", "gemma3"), config_from_hf, rules, _PREFIXES, text_config)
