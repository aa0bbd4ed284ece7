"""Reading of `rope_scaling` and `rope_parameters` of a Hugging Face config.json. Knows no single family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from litft.config.model import LARGEST_NUMBER, RopeScaling

if TYPE_CHECKING:
    from litft.families.fields import HfFields

_KINDS = "default, linear, llama3, yarn, longrope and dynamic"


class RopeFields:
    """One set of rotary parameters; a wrong one is refused in the name of the field they stand in."""

    def __init__(self, values: Mapping[str, Any], fields: HfFields, key: str, longrope_from: int | None = None) -> None:
        """Keeps the parameters.

        Args:
            values: as they stand in config.json.
            fields: those beside them; key: the one they stand in.
            longrope_from: of a family that knows longrope alone: the first length in tokens, where no field says it.
        """
        self.values = values
        self.fields = fields
        self.key = key
        self.longrope_from = longrope_from
        self.asked: set[str] = set()

    def value(self, name: str) -> Any:
        """Gives a parameter as it stands, or None."""
        self.asked.add(name)
        return self.values.get(name)

    def ignored(self) -> list[str]:
        """Gives the parameters that nobody asked for."""
        return sorted(set(self.values) - self.asked)

    def number(self, name: str, default: float | None = None) -> float:
        """Gives a number; without a default it must be there.

        Raises:
            CheckpointError: it is missing or no number.
        """
        value = self.value(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_NUMBER:
            self.fields.refuse(self.key, f"its {name} must be a number")
        return float(value)

    def scaling(self, block_size: int) -> RopeScaling | None:
        """Gives how frequencies are stretched, or None.

        Args:
            block_size: the longest text in tokens.

        Raises:
            CheckpointError: an unknown kind, or a number is missing.

        Source: `modeling_rope_utils` of transformers 5.
        """
        first_name = self.value("type")
        kind = self.value("rope_type") or first_name
        if kind in (None, "default"):
            if kind is None and "factor" in self.values:
                self.fields.refuse(self.key, "it does not say which kind of scaling the factor belongs to")
            return None
        if self.longrope_from is not None and kind in ("su", "yarn"):
            kind = "longrope"  # its first names. Source: `Phi3Config`
        readers = {
            "linear": self._linear,
            "llama3": self._llama3,
            "yarn": self._yarn,
            "longrope": self._longrope,
            "dynamic": self._dynamic,
        }
        if not isinstance(kind, str) or kind not in readers:
            self.fields.refuse(self.key, f'litft knows the rope types {_KINDS}, not "{kind}"')
        if self.longrope_from is not None and kind != "longrope":
            self.fields.refuse(self.key, "this family is stretched by longrope alone")
        return readers[kind](block_size)

    def _linear(self, block_size: int) -> RopeScaling:
        """Every frequency divided."""
        return RopeScaling(kind="linear", factor=self.number("factor"))

    def _dynamic(self, block_size: int) -> RopeScaling:
        """A base that grows with the text; its length starts from `max_position_embeddings`."""
        return RopeScaling(kind="dynamic", factor=self.number("factor"), original_block_size=block_size)

    def _llama3(self, block_size: int) -> RopeScaling:
        """Long waves divided."""
        return RopeScaling(
            kind="llama3",
            factor=self.number("factor"),
            low_freq_factor=self.number("low_freq_factor"),
            high_freq_factor=self.number("high_freq_factor"),
            original_block_size=self._original_block_size(block_size),
        )

    def _yarn(self, block_size: int) -> RopeScaling:
        """Slow frequencies divided; scores grow with the factor."""
        original = self._original_block_size(block_size)
        factor = self.number("factor", block_size / original)
        mscale, mscale_all = self.number("mscale", 0.0), self.number("mscale_all_dim", 0.0)
        magnitude = _yarn_magnitude(factor, 1.0)
        if mscale and mscale_all:
            magnitude = _yarn_magnitude(factor, mscale) / _yarn_magnitude(factor, mscale_all)
        return RopeScaling(
            kind="yarn",
            factor=factor,
            original_block_size=original,
            beta_fast=self.number("beta_fast", 32.0) or 32.0,
            beta_slow=self.number("beta_slow", 1.0) or 1.0,
            truncate=bool(self.value("truncate")) if "truncate" in self.values else True,
            magnitude=self.number("attention_factor", magnitude),
        )

    def _longrope(self, block_size: int) -> RopeScaling:
        """Each frequency divided by its own number."""
        original = self._original_block_size(block_size)
        factor = self.number("factor", block_size / original)
        magnitude = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        return RopeScaling(
            kind="longrope",
            factor=factor,
            original_block_size=original,
            short_factors=self._numbers("short_factor"),
            long_factors=self._numbers("long_factor"),
            magnitude=self.number("attention_factor", magnitude),
        )

    def _numbers(self, name: str) -> tuple[float, ...]:
        """Gives a list of numbers."""
        values = self.value(name)
        if not isinstance(values, list) or not all(
            isinstance(value, int | float) and abs(value) <= LARGEST_NUMBER for value in values
        ):
            self.fields.refuse(self.key, f"its {name} must be a list of numbers")
        return tuple(float(value) for value in values)

    def _original_block_size(self, block_size: int) -> int:
        """Gives the length in tokens at which the stretching starts; the field outside wins."""
        inside = int(self.number("original_max_position_embeddings", block_size))
        silent = inside if self.longrope_from is None else self.longrope_from
        return self.fields.integer("original_max_position_embeddings", default=silent)


def _yarn_magnitude(factor: float, weight: float) -> float:
    """Gives the paper's growth of cos and sin. Source: `get_mscale` of transformers, arXiv 2309.00071."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
