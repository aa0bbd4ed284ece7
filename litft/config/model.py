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

# Well above the largest models that there are; a file that says more would fill the memory, or is a joke.
LARGEST = {
    "n_layer": 2**12,
    "n_head": 2**16,
    "n_embd": 2**20,
    "n_query_groups": 2**16,
    "head_size": 2**16,
    "intermediate_size": 2**24,
    "block_size": 2**30,
    "vocab_size": 2**24,
    "padded_vocab_size": 2**24,
}
LARGEST_NUMBER = 1e30  # of those that are no sizes; float32 ends at 3e38


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the length a model was first trained on.

    `linear` divides every frequency by `factor`. `llama3` divides the long wavelengths only, with a smooth passage
    between `original_block_size / high_freq_factor` and `original_block_size / low_freq_factor`. `yarn` passes from
    kept to divided frequencies between `beta_fast` and `beta_slow` turns over the original length. `longrope` divides
    each frequency by its own number: `short_factors` for a text of at most `original_block_size` tokens, else
    `long_factors`. `dynamic` raises the base with the length of a text that is longer than the original.

    Attributes:
        kind: which of these.
        factor: how much longer the text may be.
        original_block_size: the first length in tokens.
        magnitude: factor on cos and sin, so that a query times a key grows by its square (yarn, longrope).
        truncate: yarn rounds the ends of its passage outwards to whole frequencies.

    Source: Hugging Face `modeling_rope_utils`; papers arXiv 2309.00071 (yarn) and 2402.13753 (longrope).
    """

    kind: Literal["linear", "llama3", "yarn", "longrope", "dynamic"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_block_size: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    magnitude: float = 1.0

    def __post_init__(self) -> None:
        """Refuses numbers that no angle can be computed with.

        Raises:
            ConfigError: naming the field.
        """
        _refuse_unsound(self, "the rope scaling")
        for field in ("factor", "low_freq_factor", "high_freq_factor", "original_block_size"):
            if getattr(self, field) <= 0:
                raise ConfigError(f"{field} of the rope scaling is {getattr(self, field)}; it must be above 0.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and variants of one GPT.

    Heads, for n_head = 4 queries (Source: the figure of Lit-GPT's `config.py`, after the GQA paper, arXiv 2305.13245):

        MHA, n_query_groups = 4     GQA, n_query_groups = 2     MQA, n_query_groups = 1
         v  v  v  v                    v     v                         v
         k  k  k  k                    k     k                         k
         |  |  |  |                   / \\   / \\                   / / \\ \\
         q  q  q  q                  q   q q   q                 q  q  q  q

    Blocks, with n the norms (Source: `GPTNeoXLayer`, `FalconDecoderLayer`, `Gemma2DecoderLayer`, `Olmo2DecoderLayer`):

        sequential   x = x + attn(n1 x);               x = x + mlp(n2 x)
        parallel     x = x + attn(n1 x) + mlp(n2 x)
        shared_norm  x = x + attn(n1 x) + mlp(n1 x)
        sandwich     x = x + n_attn_out(attn(n1 x));   x = x + n_mlp_out(mlp(n2 x))
        post_norm    x = x + n_attn_out(attn x);       x = x + n_mlp_out(mlp x)

    Attributes:
        name: what to call it, as in the Hugging Face repository name.
        family: the `litft.families` file that maps its Hugging Face tensors.
        n_layer, n_head, n_embd: blocks, query heads, width of the residual stream.
        n_query_groups: key/value heads; divides n_head.
        head_size: width of one head; n_head * head_size need not be n_embd.
        intermediate_size: inner width of the MLP, or of one expert.
        block_size: the longest text in tokens the model was trained for.
        vocab_size: tokens the tokenizer knows, as far as config.json says; padded_vocab_size: rows of the embedding.
        positions: rotated queries and keys, a bias on the scores that falls with distance (`alibi`), or a learned
            vector added to each token (`learned`), whose table begins with position_offset rows that no token uses.
        rotary_percentage: share of each head that is rotated; rope_base and rope_scaling give the frequencies.
        rope_local_base: base of the blocks with a sliding window, where it is another; they are not scaled.
        alibi_bias_max: the slopes of alibi are powers of 2 down to 2^-alibi_bias_max.
        norm: kind of norm and norm_eps its epsilon.
        qk_norm: norm of queries and keys before rotation: one weight for all heads (`head`), a weight for each head
            (`each_head`), or one norm over all heads together (`all_heads`).
        mlp: `gated` (down(act(gate x) * up x)) or `plain` (down(act(up x))), with this activation.
        n_expert: experts of each MLP, 0 for one plain MLP; n_expert_per_token are chosen for a token.
        normalize_expert_weights: the weights of the chosen sum to 1.
        block: how a block is wired, as above.
        qkv_bias, proj_bias, mlp_bias, lm_head_bias: which linear layers have a bias.
        qkv_clip: queries, keys and values are clamped to [-qkv_clip, qkv_clip] before heads are split.
        attention_scale: factor on the scores; None for head_size^-0.5.
        attention_softcap, logit_softcap: scores and logits become cap * tanh(x / cap).
        embedding_scale: factor on the embedded tokens.
        tie_embeddings: the head is the embedding matrix.
        sliding_window: how many tokens back a token sees, itself included; None for all.
        full_attention_layers: the blocks that see all although there is a sliding window.
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
    positions: Literal["rotary", "alibi", "learned"] = "rotary"
    position_offset: int = 0
    rotary_percentage: float = 1.0
    rope_base: float = 10000.0
    rope_scaling: RopeScaling | None = None
    rope_local_base: float | None = None
    alibi_bias_max: float = 8.0
    norm: Literal[
        "rmsnorm", "rmsnorm_float32", "rmsnorm_plus_one", "layernorm", "layernorm_no_bias", "layernorm_plain"
    ] = "rmsnorm"
    norm_eps: float = 1e-5
    qk_norm: Literal["head", "each_head", "all_heads"] | None = None
    mlp: Literal["gated", "plain"] = "gated"
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    n_expert: int = 0
    n_expert_per_token: int = 0
    normalize_expert_weights: bool = True
    block: Literal["sequential", "parallel", "shared_norm", "sandwich", "post_norm"] = "sequential"
    qkv_bias: bool = False
    proj_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    qkv_clip: float | None = None
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    embedding_scale: float | None = None
    tie_embeddings: bool = False
    sliding_window: int | None = None
    full_attention_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuses sizes that contradict each other, or that no model has.

        Raises:
            ConfigError: a size is not positive or absurdly large, a number is not finite, or the heads do not divide.
        """
        for field, largest in LARGEST.items():
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} of {self.name} is {getattr(self, field)}; it must be at least 1.")
            if getattr(self, field) > largest:
                raise ConfigError(f"{field} of {self.name} is absurdly large; the most is {largest:,}.")
        _refuse_unsound(self, self.name)
        if not (self.rope_base > 0 and 0 <= self.rotary_percentage <= 1 and 0 <= self.n_expert <= LARGEST["n_head"]):
            raise ConfigError(
                f"{self.name} has rope_base {self.rope_base}, rotary_percentage {self.rotary_percentage} and n_expert "
                f"{self.n_expert}, of which one is none that a model can have."
            )
        if self.n_head % self.n_query_groups:
            raise ConfigError(
                f"{self.name} has n_head {self.n_head} and n_query_groups {self.n_query_groups}; "
                "the groups must divide the heads."
            )
        if self.rotary_size % 2:
            raise ConfigError(f"{self.name} rotates {self.rotary_size} numbers per head; the count must be even.")
        if self.n_expert and not 1 <= self.n_expert_per_token <= self.n_expert:
            raise ConfigError(
                f"{self.name} chooses {self.n_expert_per_token} of {self.n_expert} experts for a token; "
                "the number must lie between 1 and all of them."
            )
        self._check_rope_factors()

    def _check_rope_factors(self) -> None:
        """Refuses a number of longrope factors that is not that of the frequencies."""
        scaling = self.rope_scaling
        if scaling is None or scaling.kind != "longrope":
            return
        for factors in (scaling.short_factors, scaling.long_factors):
            if len(factors) != self.rotary_size // 2:
                raise ConfigError(
                    f"{self.name} has {len(factors)} longrope factors for {self.rotary_size // 2} rotary frequencies."
                )

    @property
    def rotary_size(self) -> int:
        """How many numbers of each head are rotated."""
        return 0 if self.positions != "rotary" else int(self.rotary_percentage * self.head_size)

    @property
    def qkv_sizes(self) -> tuple[int, int, int]:
        """Rows of q, k and v in the fused projection, in this order."""
        group = self.n_query_groups * self.head_size
        return self.n_head * self.head_size, group, group

    @property
    def block_norms(self) -> tuple[str, ...]:
        """Names of the norms in a block."""
        names = {
            "shared_norm": ("norm_1",),
            "sandwich": ("norm_1", "norm_attn_out", "norm_2", "norm_mlp_out"),
            "post_norm": ("norm_attn_out", "norm_mlp_out"),
        }
        return names.get(self.block, ("norm_1", "norm_2"))

    @property
    def norm_tensors(self) -> tuple[str, ...]:
        """What a norm over n_embd consists of."""
        return {"layernorm": ("weight", "bias"), "layernorm_plain": ()}.get(self.norm, ("weight",))

    def window_of(self, layer: int) -> int | None:
        """Gives how many tokens back a token sees in this block, itself included; None for all."""
        return None if layer in self.full_attention_layers else self.sliding_window

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
        return dataclasses.asdict(self, dict_factory=_with_lists)

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


def _with_lists(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Gives a dict with lists in place of tuples, which YAML does not know."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in pairs}


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
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    for key, value in values.items():
        if not _is_of_type(value, types[key]):
            raise ConfigError(f"{key} of a model is {value!r}, which is none of its values.")
    return values


def _is_of_type(value: Any, kind: Any) -> bool:
    """Says whether a value is of a type, or among those of a Literal; a whole number is a float too."""
    choices = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return value in choices
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of_type(item, choices[0]) for item in value)
    if choices:
        return any(_is_of_type(value, choice) for choice in choices)
    return type(value) is kind or (kind is float and type(value) is int)


def _refuse_unsound(values: ModelConfig | RopeScaling, name: str) -> None:
    """Refuses numbers that are not finite, or that arithmetic cannot hold.

    Raises:
        ConfigError: naming the field.
    """
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float, complex)) and not abs(number) <= LARGEST_NUMBER:
                raise ConfigError(f"{field.name} of {name} is no number that can be computed with.")
            if isinstance(number, complex):
                raise ConfigError(f"{field.name} of {name} is the root of a number below 0.")


@cache
def named_models() -> dict[str, ModelConfig]:
    """Reads `named_models.csv`, one row a published model, empty cells mean the default: the models by repository."""
    text = (resources.files("litft.config") / "named_models.csv").read_text(encoding="utf-8")
    return {row["repo_id"]: _config_from_row(row) for row in csv.DictReader(text.splitlines())}


@cache
def _named_configs() -> dict[str, ModelConfig]:
    """Gives the same models by any of their names."""
    configs: dict[str, ModelConfig] = {}
    for repo_id, config in named_models().items():
        configs |= dict.fromkeys((config.name, repo_id, repo_id.rpartition("/")[2]), config)
    return configs


def _config_from_row(row: dict[str, str]) -> ModelConfig:
    """Turns the cells of one row into a config; each cell is a string or JSON."""
    text = {"name", "family", "positions", "norm", "qk_norm", "mlp", "activation", "block"}
    values = {key: cell if key in text else json.loads(cell) for key, cell in row.items() if cell and key != "repo_id"}
    return ModelConfig.from_dict(values)
