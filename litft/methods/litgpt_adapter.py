"""LLaMA-Adapter v1 and v2 of Lit-GPT and litgpt as litft's. Knows no folders.

Source: `adapter.py` and `adapter_v2.py` of Lit-GPT (2023) and of litgpt 0.2 to 0.5.13.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from litft.checkpoint.layout import to_ours
from litft.checkpoint.litgpt import check_claimed, is_interleaved, lit_rule
from litft.checkpoint.tensors import tensor_specs
from litft.checkpoint.weights import HfWeights
from litft.config.convert import LitGPTVersion
from litft.config.model import ModelConfig
from litft.config.run import AdapterConfig
from litft.errors import CheckpointError
from litft.families.base import Regroup, Rename
from litft.methods.adapter import Adapter, AdapterV2
from litft.methods.base import trainable_state
from litft.model.load import build_empty

_PROMPT = re.compile(r"transformer\.h\.(\d+)\.attn\.adapter_wte\.weight")
_TRAINED_NORMS = ("norm_1.", "norm_2.", "ln_f.")  # Source: `adapter_filter` of `adapter_v2.py`
_NAMES = {"adapter_prompt": "adapter_wte.weight", "adapter_gate": "gating_factor"}


def adapter_state(
    weights: HfWeights, model: ModelConfig, version: LitGPTVersion, base: Mapping[str, Tensor]
) -> tuple[Adapter, dict[str, Tensor]]:
    """Gives litft's method and tensors that do the same, in float32.

    Args:
        weights: of the adapter file.
        model: the base.
        version: the release that trained it.
        base: the base's tensors, for norms that litft's v2 trains and litgpt's does not.

    Raises:
        CheckpointError: the file does not fit the base, or litft has no adapter that does the same.
    """
    path = weights.files[0]
    method = _method(weights, model)
    _refuse_other_prompts(version, model, path)
    empty = build_empty(model)
    method.apply(empty)
    shapes = {name: tuple(tensor.shape) for name, tensor in trainable_state(empty, method).items()}
    interleaved = is_interleaved(weights.specs)
    rules = {name: _rule(name, model, interleaved) for name in shapes if _is_in_file(name)}
    # A gate was (1, heads, 1, 1) in 2023 and is (1, 1, heads, 1) since; the numbers are the same.
    tensors = {name: _flat_gate(name, read()) for name, read in weights.read.items()}
    check_claimed(tensor_specs(tensors), {rule.theirs: shapes[name] for name, rule in rules.items()}, path)
    read = {name: tensor.clone for name, tensor in tensors.items()}
    state = {name: tensor for rule in rules.values() for name, tensor in to_ours(rule, read)}
    state |= {name: base[name] for name in shapes if name not in state}
    return method, {name: state[name].float() for name in shapes}


def _method(weights: HfWeights, model: ModelConfig) -> Adapter:
    """Gives the method, with its settings read off the prompts."""
    path = weights.files[0]
    prompts = {int(match[1]): spec for name, spec in weights.specs.items() if (match := _PROMPT.fullmatch(name))}
    if not prompts or sorted(prompts) != list(range(min(prompts), model.n_layer)):
        raise CheckpointError(
            f"{path} has prompts in the blocks {sorted(prompts)}; litft needs them in all from one on, "
            f"and {model.name} has {model.n_layer} blocks."
        )
    config = AdapterConfig(prompt_length=prompts[min(prompts)].shape[0], start_layer=min(prompts))
    is_second = any(name.endswith(".adapter_scale") for name in weights.specs)
    return AdapterV2(config) if is_second else Adapter(config)


def _refuse_other_prompts(version: LitGPTVersion, model: ModelConfig, path: Path) -> None:
    """Refuses an adapter whose prompts are attended to in another way than litft's."""
    if model.qk_norm is not None or model.attention_softcap is not None:
        raise CheckpointError(
            f"{path} cannot be taken over: litgpt attends to its prompts without the norms and soft caps "
            f"of {model.name}."
        )
    if version == "litgpt-0.5.5" and model.n_query_groups > 1:
        raise CheckpointError(
            f"{path} cannot be taken over: since 0.5.5 litgpt reads the keys and values of its prompts from the rows "
            f"where they lay before, which are others in a model of {model.n_query_groups} query groups, and litft "
            "reads the right ones (add --version litgpt-0.2 if an older litgpt trained it)."
        )


def _is_in_file(name: str) -> bool:
    """Says whether litgpt trains, and so saves, this parameter of ours."""
    return ".adapter_" in name or any(norm in name for norm in _TRAINED_NORMS)


def _rule(name: str, model: ModelConfig, interleaved: bool) -> Rename | Regroup:
    """Gives the rule that makes one of our parameters."""
    module, _, kind = name.rpartition(".")
    if kind in _NAMES:
        return Rename(name, f"{module}.{_NAMES[kind]}")
    return lit_rule(name, model, interleaved)


def _flat_gate(name: str, tensor: Tensor) -> Tensor:
    """Gives a gate as one number a head, any other tensor as it is."""
    return tensor.reshape(-1) if name.endswith(".gating_factor") else tensor
