"""The architecture of one model, in Lit-GPT's words. Knows no torch and no Hugging Face names.

Every number of the network stands here; `families` fills it from a checkpoint's `config.json`, `model` builds from it.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import typing
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from litft.errors import ConfigError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the length a model was first trained on.

    `linear` divides every frequency by `factor`; `llama3` divides the long wavelengths only, with a smooth passage
    between `original_block_size / high_freq_factor` and `original_block_size / low_freq_factor`.

    Source: Hugging Face `modeling_rope_utils`, `_compute_linear_scaling_rope_parameters` and
    `_compute_llama3_parameters`.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_block_size: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and variants of one GPT.

    Heads, for n_head = 4 queries (Source: the figure of Lit-GPT's `config.py`, after the GQA paper, arXiv 2305.13245):

        MHA, n_query_groups = 4     GQA, n_query_groups = 2     MQA, n_query_groups = 1
         v  v  v  v                    v     v                         v
         k  k  k  k                    k     k                         k
         |  |  |  |                   / \\   / \\                   / / \\ \\
         q  q  q  q                  q   q q   q                 q  q  q  q

    Attributes:
        name: what to call it, as in the Hugging Face repository name.
        family: the `litft.families` file that maps its Hugging Face tensors.
        n_layer, n_head, n_embd: blocks, query heads, width of the residual stream.
        n_query_groups: key/value heads; divides n_head.
        head_size: width of one head; n_head * head_size need not be n_embd.
        intermediate_size: inner width of the MLP.
        block_size: the longest text in tokens the model was trained for.
        vocab_size: tokens the tokenizer knows, as far as config.json says; padded_vocab_size: rows of the embedding.
        rotary_percentage: share of each head that is rotated; rope_base and rope_scaling give the frequencies.
        norm: kind of norm and norm_eps its epsilon.
        mlp: `gated` (down(act(gate x) * up x)) or `plain` (down(act(up x))), with this activation.
        parallel_residual: x + attn(n1 x) + mlp(n2 x) rather than one after the other; shared_attention_norm: n2 is n1.
        qkv_bias, proj_bias, mlp_bias: which linear layers have a bias.
        tie_embeddings: the head is the embedding matrix.
        sliding_window: how many tokens back a token sees, itself included; None for all.
    """

    name: str
    family: str
    n_layer: int
    n_head: int
    n_embd: int
    n_query_groups: int
    head_size: int
    intermediate_size: int
    block_size: int
    vocab_size: int
    padded_vocab_size: int
    rotary_percentage: float = 1.0
    rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_eps: float = 1e-5
    mlp: Literal["gated", "plain"] = "gated"
    activation: Literal["silu", "gelu", "gelu_tanh"] = "silu"
    parallel_residual: bool = False
    shared_attention_norm: bool = False
    qkv_bias: bool = False
    proj_bias: bool = False
    mlp_bias: bool = False
    tie_embeddings: bool = False
    sliding_window: int | None = None

    def __post_init__(self) -> None:
        """Refuses sizes that contradict each other.

        Raises:
            ConfigError: a size is not positive, or the heads do not divide.
        """
        for field in ("n_layer", "n_head", "n_embd", "n_query_groups", "head_size", "intermediate_size", "block_size"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} of {self.name} is {getattr(self, field)}; it must be at least 1.")
        if self.n_head % self.n_query_groups:
            raise ConfigError(
                f"{self.name} has n_head {self.n_head} and n_query_groups {self.n_query_groups}; "
                "the groups must divide the heads."
            )
        if self.rotary_size % 2:
            raise ConfigError(f"{self.name} rotates {self.rotary_size} numbers per head; the count must be even.")

    @property
    def rotary_size(self) -> int:
        """How many numbers of each head are rotated."""
        return int(self.rotary_percentage * self.head_size)

    @property
    def qkv_sizes(self) -> tuple[int, int, int]:
        """Rows of q, k and v in the fused projection, in this order."""
        group = self.n_query_groups * self.head_size
        return self.n_head * self.head_size, group, group

    @classmethod
    def from_name(cls, name: str) -> ModelConfig:
        """Gives a published model's architecture without its files, for plans and tests.

        Args:
            name: the repository name with or without its organisation, such as `Llama-2-7b-hf`.

        Raises:
            ConfigError: no model of that name is in the table.
        """
        table = _named_configs()
        found = table.get(name) or table.get(name.rpartition("/")[2])
        if found is None:
            raise ConfigError(f'No named model "{name}".{did_you_mean(name, table)}')
        return found

    def to_dict(self) -> dict[str, Any]:
        """Gives plain types, ready for YAML; `from_dict` reads them back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Builds from plain types.

        Raises:
            ConfigError: a key is unknown, missing or not of its type.
        """
        scaling = values.get("rope_scaling")
        if isinstance(scaling, dict):
            values = {**values, "rope_scaling": RopeScaling(**_checked(RopeScaling, scaling))}
        return cls(**_checked(cls, values))


def _checked(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Gives the fields of a dataclass, all there and of their types.

    Raises:
        ConfigError: naming the field that is unknown, missing or not of its type.
    """
    types, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    for key in values:
        if key not in types:
            raise ConfigError(f'Unknown field "{key}" of a model.{did_you_mean(str(key), types)}')
    missing = [field.name for field in fields if field.default is dataclasses.MISSING and field.name not in values]
    if missing:
        raise ConfigError(f"The model's description lacks {', '.join(missing)}.")
    for key, value in values.items():
        if not _is_of_type(value, types[key]):
            raise ConfigError(f"{key} of a model is {value!r}, which is none of its values.")
    return values


def _is_of_type(value: Any, kind: Any) -> bool:
    """Says whether a value is of a type, or among those of a Literal; a whole number is a float too."""
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return value in choices
    if choices:
        return any(_is_of_type(value, choice) for choice in choices)
    return type(value) is kind or (kind is float and type(value) is int)


@cache
def _named_configs() -> dict[str, ModelConfig]:
    """Reads `named_models.csv`: one row a published model, empty cells mean the default; found by any of its names."""
    text = (resources.files("litft.config") / "named_models.csv").read_text(encoding="utf-8")
    configs: dict[str, ModelConfig] = {}
    for row in csv.DictReader(text.splitlines()):
        names = (row["name"], row["repo_id"], row["repo_id"].rpartition("/")[2])
        configs |= dict.fromkeys(names, _config_from_row(row))
    return configs


def _config_from_row(row: dict[str, str]) -> ModelConfig:
    """Turns the cells of one row into a config; each cell is a string or JSON."""
    text = {"name", "family", "norm", "mlp", "activation"}
    values = {key: cell if key in text else json.loads(cell) for key, cell in row.items() if cell and key != "repo_id"}
    return ModelConfig.from_dict(values)
