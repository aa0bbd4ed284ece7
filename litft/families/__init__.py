"""The table of model families. The family of a checkpoint is chosen by its config.json, never by a folder's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litft.config.model import ModelConfig
from litft.errors import CheckpointError, ConfigError, did_you_mean
from litft.families.base import Family, Rule, rules_per_block
from litft.families.falcon import FALCON
from litft.families.fields import HfFields
from litft.families.gemma import GEMMA
from litft.families.gemma2 import GEMMA2
from litft.families.gemma3 import GEMMA3
from litft.families.llama import LLAMA
from litft.families.mistral import MISTRAL
from litft.families.mixtral import MIXTRAL
from litft.families.mpt import MPT
from litft.families.olmo import OLMO
from litft.families.olmo2 import OLMO2
from litft.families.opt import OPT
from litft.families.phi import PHI
from litft.families.phi3 import PHI3
from litft.families.pythia import PYTHIA
from litft.families.qwen2 import QWEN2
from litft.families.qwen3 import QWEN3
from litft.families.qwen3_moe import QWEN3_MOE
from litft.families.stablelm import STABLELM

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        FALCON,
        GEMMA,
        GEMMA2,
        GEMMA3,
        LLAMA,
        MISTRAL,
        MIXTRAL,
        MPT,
        OLMO,
        OLMO2,
        OPT,
        PHI,
        PHI3,
        PYTHIA,
        QWEN2,
        QWEN3,
        QWEN3_MOE,
        STABLELM,
    )
}


def family_of(hf_config: Mapping[str, Any], name: str = "the model") -> Family:
    """Gives the family of a checkpoint.

    Args:
        hf_config: the parsed config.json.
        name: the model's name, for the message.

    Raises:
        CheckpointError: `model_type` is missing or belongs to no family here.
    """
    model_type = hf_config.get("model_type")
    model_type = str(model_type) if model_type else None  # a list would be no key
    by_type = {kind: family for family in FAMILIES.values() for kind in family.model_types}
    if model_type not in by_type:
        known = ", ".join(by_type)
        says = f'model_type "{model_type}"' if model_type else "no model_type"
        hint = did_you_mean(str(model_type), by_type)
        raise CheckpointError(f"config.json of {name} says {says}; litft knows the model types {known}.{hint}")
    return by_type[model_type]


def model_config_from_hf(hf_config: Mapping[str, Any], name: str) -> ModelConfig:
    """Gives the architecture that a config.json describes.

    Args:
        hf_config: the parsed config.json, as any version of transformers wrote it.
        name: what to call the model.

    Raises:
        CheckpointError: an unknown family, a field that litft cannot honour, or sizes that contradict each other.
    """
    return _read(hf_config, name)[0]


def unknown_fields(hf_config: Mapping[str, Any], name: str) -> list[str]:
    """Gives the fields of a config.json that litft knows nothing about, as `outer.inner` where they stand inside one.

    Args:
        hf_config: the parsed config.json.
        name: what to call the model.

    Raises:
        CheckpointError: as `model_config_from_hf`.
    """
    return _read(hf_config, name)[1].ignored()


def _read(hf_config: Mapping[str, Any], name: str) -> tuple[ModelConfig, HfFields]:
    """Gives the architecture, and the fields with what was asked of them."""
    family = family_of(hf_config, name)
    fields = HfFields(family.config_out(hf_config), name)
    try:
        config = family.config_from_hf(fields)
        fields.check_rest()
        return config, fields
    except ConfigError as error:
        raise CheckpointError(f"config.json of {name} cannot be used: {error}") from error
    except (ArithmeticError, ValueError) as error:  # a size of 0 or of a thousand digits
        raise CheckpointError(
            f"config.json of {name} has numbers that cannot be computed with ({error}); download it again."
        ) from error


def tensor_rules(config: ModelConfig) -> list[Rule]:
    """Gives the map of every tensor of one model, each block written out.

    Raises:
        CheckpointError: the model's family is not in the table.
    """
    family = FAMILIES.get(config.family)
    if family is None:
        known = ", ".join(FAMILIES)
        raise CheckpointError(f'{config.name} is of family "{config.family}"; litft knows {known}.')
    return rules_per_block(family.rules(config), config.n_layer)
