"""Typed reading of a Hugging Face config.json: old and new spellings, class defaults, refusal of the unknown.

Knows no single family, no torch and no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NoReturn

from litft.config.model import RopeScaling
from litft.errors import CheckpointError

Activation = Literal["silu", "gelu", "gelu_tanh"]

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
}

# Fields of relatives of our families that change the result, and the values at which they do not.
_INERT: dict[str, tuple[object, ...]] = {
    "quantization_config": (None,),
    "compression_config": (None,),
    "per_layer_config": (None,),
    "num_local_experts": (None, 0),
    "num_experts": (None, 0),
    "n_routed_experts": (None, 0),
    "clip_qkv": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "qk_layernorm": (None, False),
    "use_qk_norm": (None, False),
    "alibi": (None, False),
    "no_rope_layers": (None, []),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "embedding_multiplier": (None, 1.0),
    "residual_multiplier": (None, 1.0),
    "attention_multiplier": (None, 1.0),
}


class HfFields:
    """The fields of one config.json. A field that is absent or null takes the default it is asked with."""

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        """Keeps the fields and refuses those that no family here can honour.

        Args:
            values: the parsed config.json.
            name: the model's name, for messages.

        Raises:
            CheckpointError: a field has a value that would change the result and is not supported.
        """
        self.values = values
        self.name = name
        for field, harmless in _INERT.items():
            self.only(field, *harmless)
        if len(set(map(str, values.get("layer_types") or []))) > 1:
            self.refuse("layer_types", "litft builds every block of a model alike")

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
        if field in self.values and self.values[field] not in harmless:
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
        for key in keys:
            value = self.values.get(key)
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
        for key in keys:
            value = self.values.get(key)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    self.refuse(key, "a number belongs there")
                return float(value)
        return default

    def flag(self, key: str, default: bool) -> bool:
        """Gives a field that is true or false.

        Raises:
            CheckpointError: the value is neither.
        """
        value = self.values.get(key)
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
        value = self.values.get(key)
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

    def rope(
        self, block_size: int, base_key: str = "rope_theta", partial_key: str = "", partial_default: float = 1.0
    ) -> dict[str, Any]:
        """Gives `rope_base`, `rope_scaling` and `rotary_percentage` for a `ModelConfig`.

        Reads `rope_scaling` beside `rope_theta` (before transformers 5) and `rope_parameters`, which holds them all.

        Args:
            block_size: the longest text in tokens, where the scaling does not name the length it starts from.
            base_key: the family's own old name of the base.
            partial_key: the family's own old name of the rotated share; empty for one that rotates whole heads.
            partial_default: the share where nothing is said.

        Raises:
            CheckpointError: a kind of scaling that litft does not have, or a value that is no number.

        Source: `RotaryEmbeddingConfigMixin` and `GPTNeoXConfig.convert_rope_params_to_dict` of transformers 5.
        """
        key = "rope_scaling" if self.values.get("rope_scaling") else "rope_parameters"
        given = self.values.get(key) or {}
        if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
            self.refuse(key, "litft expects one set of rotary parameters for all blocks")
        inner = _Parameters(given, self, key)
        base = inner.number("rope_theta", self.number(base_key, default=10000.0))
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


class _Parameters:
    """The fields of `rope_scaling` or `rope_parameters`."""

    def __init__(self, values: Mapping[str, Any], fields: HfFields, key: str) -> None:
        self.values = values
        self.fields = fields
        self.key = key

    def number(self, name: str, default: float | None = None) -> float:
        """Gives a number from inside the field; without a default it must be there."""
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fields.refuse(self.key, f"its {name} must be a number")
        return float(value)

    def scaling(self, block_size: int) -> RopeScaling | None:
        """Gives how frequencies are stretched, or None."""
        kind = self.values.get("rope_type", self.values.get("type"))
        if kind in (None, "default"):
            if kind is None and "factor" in self.values:
                self.fields.refuse(self.key, "it does not say which kind of scaling the factor belongs to")
            return None
        if kind == "linear":
            return RopeScaling(kind="linear", factor=self.number("factor"))
        if kind == "llama3":
            return RopeScaling(
                kind="llama3",
                factor=self.number("factor"),
                low_freq_factor=self.number("low_freq_factor"),
                high_freq_factor=self.number("high_freq_factor"),
                original_block_size=self._original_block_size(block_size),
            )
        self.fields.refuse(self.key, f'litft knows the rope types default, linear and llama3, not "{kind}"')

    def _original_block_size(self, block_size: int) -> int:
        """Gives the length in tokens at which the stretching starts."""
        inside = int(self.number("original_max_position_embeddings", block_size))
        return self.fields.integer("original_max_position_embeddings", default=inside)
