"""Typed reading of a Hugging Face config.json: old and new spellings, class defaults, refusal of the unknown.

Knows no single family, no torch and no files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn

from litft.config.model import LARGEST, LARGEST_NUMBER
from litft.errors import CheckpointError
from litft.families.rope import RopeFields

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]

# Source: `ACT2CLS` in transformers' activations.py. The four tanh forms differ by rounding only.
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
}

# Fields that change the result wherever a family gives them a meaning, and the values at which they do not.
# A family that knows such a field asks for it; for all others it is checked here.
_INERT: dict[str, tuple[object, ...]] = {
    "quantization_config": (None,),
    "compression_config": (None,),
    "per_layer_config": (None,),
    "num_local_experts": (None, 0),
    "num_experts": (None, 0),
    "n_routed_experts": (None, 0),
    "moe_intermediate_size": (None, 0),
    "clip_qkv": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "qk_layernorm": (None, False),
    "use_qk_norm": (None, False),
    "alibi": (None, False),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "use_bidirectional_attention": (None, False, "none"),
    "no_rope_layers": (None, []),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "lm_head_bias": (None, False),
    "use_qkv_bias": (None, False),
    "apply_residual_connection_post_layernorm": (None, False),
    "rope_interleaved": (None, False),
    "use_mrope": (None, False),
    "full_attn_mod": (None, 1),
    "interpolate_factor": (None, 1),
    "embedding_multiplier": (None, 1.0),
    "residual_multiplier": (None, 1.0),
    "attention_multiplier": (None, 1.0),
}

# Fields that describe files, tokens, training, sampling or how the result is to be computed, not what it is.
_HARMLESS = re.compile(
    r"_.*|architectures|model_type|auto_map|custom_pipelines|name_or_path|transformers_version|transformers\.js_config"
    r"|torch_dtype|dtype|is_llama_config|tokenizer_.*|.*_token|.*_token_id|pad_vocab_size_multiple|unsloth_.*"
    r"|.*dropout.*|.*_pdrop|layerdrop|initializer_.*|init_.*|gradient_checkpointing|router_aux_loss_coef"
    r"|router_jitter_noise|pretraining_tp|problem_type|id2label|label2id|task_.*"
    r"|use_cache|cache_implementation|attn_impl|attn_implementation|use_flash_attn|chunk_size_feed_forward|verbose"
    r"|return_dict|output_.*|is_decoder|is_encoder_decoder|tie_encoder_decoder"
    r"|max_length|max_sequence_length|do_sample|num_beams|temperature|top_[kp]|repetition_penalty"
)


class HfFields:
    """The fields of one config.json. A field that is absent or null takes the default it is asked with."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        """Keeps the fields.

        Args:
            values: the parsed config.json.
            name: what to call the model.
        """
        self.values = values
        self.name = name
        self.asked: set[str] = set()
        self.parts: dict[str, list[HfFields | RopeFields]] = {}

    def has(self, field: str) -> bool:
        """Says whether a field is there, be it null."""
        self.asked.add(field)
        return field in self.values

    def value(self, field: str) -> Any:
        """Gives a field as it stands, or None."""
        self.asked.add(field)
        return self.values.get(field)

    def check_rest(self) -> None:
        """Refuses what the family did not ask for and what would change the result.

        Raises:
            CheckpointError: naming the field and its value.
        """
        for field, harmless in _INERT.items():
            if field not in self.asked:
                self.only(field, *harmless)
        is_read = "layer_types" in self.asked
        types = self.value("layer_types") or []
        if not is_read and (not isinstance(types, list) or len(set(map(str, types))) > 1):
            self.refuse("layer_types", "litft builds every block of this family alike")

    def ignored(self) -> list[str]:
        """Gives the fields that nothing here knows, after the family has asked for its own; `outer.inner` in a part."""
        known = self.asked | set(_INERT)
        found = {field for field in self.values if field not in known and not _HARMLESS.fullmatch(field)}
        inside = {f"{key}.{field}" for key, parts in self.parts.items() for part in parts for field in part.ignored()}
        return sorted(found | inside)

    def part(self, field: str) -> HfFields:
        """Gives the fields of a map inside config.json; none where it is absent or null.

        Raises:
            CheckpointError: the value is no map.
        """
        given = self.value(field) or {}
        if not isinstance(given, Mapping):
            self.refuse(field, "a map of fields belongs there")
        part = HfFields(given, self.name)
        self.parts.setdefault(field, []).append(part)
        return part

    def rope_part(self, field: str, values: Mapping[str, Any], longrope_from: int | None = None) -> RopeFields:
        """Gives one set of rotary parameters of those that stand in a field."""
        part = RopeFields(values, self, field, longrope_from)
        self.parts.setdefault(field, []).append(part)
        return part

    def refuse(self, field: str, why: str) -> NoReturn:
        """Raises the error that names a field and its value.

        Raises:
            CheckpointError: always.
        """
        shown = self.values.get(field)
        text = repr(shown) if len(repr(shown)) < 200 else f"{repr(shown)[:200]}..."
        raise CheckpointError(f"config.json of {self.name} has {field} = {text}, but {why}.")

    def only(self, field: str, *harmless: object) -> None:
        """Refuses a field that is there with a value other than these.

        Raises:
            CheckpointError: naming the field and its value.
        """
        if self.has(field) and self.values[field] not in harmless:
            self.refuse(field, "litft does not support that")

    def integer(self, *keys: str, default: int) -> int:
        """Gives the first of these fields that is set, as a whole number.

        Raises:
            CheckpointError: the value is not a whole number.
        """
        value = self.optional_integer(*keys)
        return default if value is None else value

    def optional_integer(self, *keys: str) -> int | None:
        """Gives the first of these fields that is set, or None.

        Raises:
            CheckpointError: the value is not a whole number.
        """
        self.asked.update(keys)
        for key in keys:
            value = self.value(key)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int):
                    self.refuse(key, "a whole number belongs there")
                return value
        return None

    def number(self, *keys: str, default: float) -> float:
        """Gives the first of these fields that is set, as a number.

        Raises:
            CheckpointError: the value is not a number.
        """
        self.asked.update(keys)
        for key in keys:
            value = self.value(key)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_NUMBER:
                    self.refuse(key, "a number belongs there")
                return float(value)
        return default

    def optional_number(self, *keys: str) -> float | None:
        """Gives the first of these fields that is set, as a number, or None.

        Raises:
            CheckpointError: the value is not a number.
        """
        found = self.number(*keys, default=math.nan)
        return None if math.isnan(found) else found

    def cap(self, key: str, default: float | None) -> float | None:
        """Gives a soft cap; an absent field takes the default, null and 0 mean none.

        Raises:
            CheckpointError: the value is not a number.
        """
        return (self.optional_number(key) or None) if self.has(key) else default

    def flag(self, key: str, default: bool) -> bool:
        """Gives a field that is true or false.

        Raises:
            CheckpointError: the value is neither.
        """
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(key, "true or false belongs there")
        return value

    def activation(self, key: str, default: Activation) -> Activation:
        """Gives the activation in our words.

        Raises:
            CheckpointError: litft does not have that activation.
        """
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            self.refuse(key, f"litft knows the activations {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]

    def head_size(self, n_embd: int, n_head: int) -> int:
        """Gives the width of one head where the family derives it from the hidden size.

        Raises:
            CheckpointError: the heads do not divide the hidden size.
        """
        if n_head < 1 or n_embd % n_head:
            raise CheckpointError(
                f"config.json of {self.name} has a hidden size of {n_embd} and {n_head} attention heads; "
                "the heads must divide the hidden size."
            )
        return n_embd // n_head

    def vocabulary(self, default: int) -> dict[str, Any]:
        """Gives `vocab_size` and `padded_vocab_size`; config.json knows only the rows of the embedding.

        Raises:
            CheckpointError: the value is not a whole number.
        """
        rows = self.integer("vocab_size", default=default)
        return {"vocab_size": rows, "padded_vocab_size": rows}

    def query_groups(self, n_head: int, default: int | None = None) -> int:
        """Gives the key/value heads.

        Two kinds of silence: an absent key is the class default, an explicit null means as many as heads.

        Args:
            n_head: the query heads.
            default: of the class; None for as many as heads.

        Raises:
            CheckpointError: the value is not a whole number.
        """
        silent = n_head if default is None or self.has("num_key_value_heads") else default
        return self.integer("num_key_value_heads", default=silent)

    def window(self, default: int | None, is_used: bool = True) -> int | None:
        """Gives the tokens that a block with a window sees, None for all.

        Args:
            default: of the class, where the field is absent; null means none.
            is_used: whether there are such blocks.

        Raises:
            CheckpointError: the value is not a whole number, or is below 1.
        """
        window = self.optional_integer("sliding_window") if self.has("sliding_window") else default
        if not is_used:
            return None
        if window is not None and window < 1:
            self.refuse("sliding_window", "a token must see at least itself")
        return window

    def windows(self, window: int | None, full: Iterable[int], n_layer: int) -> dict[str, Any]:
        """Gives `sliding_window` and `full_attention_layers` of a family whose blocks need not be alike.

        Args:
            window: tokens that a block with a window sees, or None.
            full: the blocks that see all, where config.json does not list the types of its blocks.
            n_layer: how many blocks there are.

        Raises:
            CheckpointError: `layer_types` names an unknown type, or not one for each block.
        """
        if n_layer > LARGEST["n_layer"]:  # before they are listed
            self.refuse("num_hidden_layers", f"the most is {LARGEST['n_layer']:,}")
        types = self.value("layer_types")
        if types is not None:
            if not isinstance(types, list) or len(types) != n_layer:
                self.refuse("layer_types", f"one for each of {n_layer} blocks belongs there")
            for kind in types:
                if kind not in ("full_attention", "sliding_attention"):
                    self.refuse("layer_types", "litft knows full_attention and sliding_attention")
            full = [layer for layer, kind in enumerate(types) if kind == "full_attention"]
        layers = tuple(full)
        if window is None or len(layers) == n_layer:
            return {"sliding_window": None, "full_attention_layers": ()}
        return {"sliding_window": window, "full_attention_layers": layers}

    def rope(
        self,
        block_size: int,
        base_key: str = "rope_theta",
        base_default: float = 10000.0,
        partial_key: str = "",
        partial_default: float = 1.0,
        longrope_from: int | None = None,
    ) -> dict[str, Any]:
        """Gives `rope_base`, `rope_scaling` and `rotary_percentage` for a `ModelConfig`.

        Reads `rope_scaling` beside `rope_theta` (before transformers 5) and `rope_parameters`, which holds them all.

        Args:
            block_size: the longest text in tokens, where the scaling does not name the length it starts from.
            base_key: the family's own old name of the base; base_default: the base where nothing is said.
            partial_key: the family's own old name of the rotated share; empty for one that rotates whole heads.
            partial_default: the share where nothing is said.
            longrope_from: as `RopeFields` takes it.

        Raises:
            CheckpointError: a kind of scaling that litft does not have, or a value that is no number.

        Source: `RotaryEmbeddingConfigMixin` and `GPTNeoXConfig.convert_rope_params_to_dict` of transformers 5.
        """
        key = "rope_scaling" if self.value("rope_scaling") else "rope_parameters"
        given = self.value(key) or {}
        if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
            self.refuse(key, "litft expects one set of rotary parameters for all blocks of this family")
        inner = self.rope_part(key, given, longrope_from)
        base = inner.number("rope_theta", self.number(base_key, default=base_default))
        outer = self.number(partial_key, default=partial_default) if partial_key else 1.0
        share = inner.number("partial_rotary_factor", outer)
        self._agrees("rope_theta", base)
        self._agrees("partial_rotary_factor", share)
        if not partial_key and share != 1.0:
            self.refuse(key, "this family rotates whole heads")
        return {"rope_base": base, "rotary_percentage": share, "rope_scaling": inner.scaling(block_size)}

    def _agrees(self, field: str, value: float) -> None:
        """Refuses a second spelling that contradicts the first."""
        if self.number(field, default=value) != value:
            self.refuse(field, f"the other rotary fields say {value:g}")
