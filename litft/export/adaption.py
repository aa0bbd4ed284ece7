"""LLaMA-Adapter in PEFT's form (ADAPTION_PROMPT), where PEFT computes exactly what litft computes, and nowhere else.

PEFT has one gate a layer where litft, as Lit-GPT, has one a head; and it knows two of the families.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.disk import read_json
from litft.checkpoint.files import load_model_config
from litft.config.model import ModelConfig
from litft.errors import CheckpointError
from litft.methods.adapter import Adapter, AdapterAttention
from litft.methods.base import trainable_state, weights_path
from litft.model.load import assign_weights, build_empty

# Source: `TRANSFORMERS_MODEL_CONFIG` in tuners/adaption_prompt/config.py of peft 0.21; its gpt2 skips the output layer.
MODEL_TYPES = ("llama", "mistral")


def adaption_prompt(checkpoint_dir: Path, base_dir: Path, method: Adapter) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Gives adapter_config.json and the tensors of an adapter run.

    Args:
        checkpoint_dir: the run's final folder.
        base_dir: its base.
        method: its settings.

    Raises:
        CheckpointError: PEFT has nothing that computes the same.

    Source: `AdaptedAttention` of peft: the prompt through k and v without rotation, a softmax of its own, the gate,
    then the output layer.
    """
    config = load_model_config(base_dir)
    refuse_what_peft_lacks(method, config, read_json(base_dir / "config.json"), checkpoint_dir)
    layers = _load(checkpoint_dir, config, method)
    if not any(layer.adapter_gate.any() for layer in layers.values()):
        raise CheckpointError(f"The adapters of {checkpoint_dir} change nothing: every gate is zero; train first.")
    tensors: dict[str, Tensor] = {}
    for index, layer in layers.items():
        gates = layer.adapter_gate.detach()
        if (gates != gates[0]).any():
            raise CheckpointError(
                f"The gates of block {index} in {checkpoint_dir} differ from head to head ({gates.min():.2g} to "
                f"{gates.max():.2g}) and PEFT's adaption prompt has one a layer, so it would compute something else; "
                "use the run as it is with `litft generate`."
            )
        name = f"base_model.model.model.layers.{index}.self_attn"
        tensors[f"{name}.adaption_prompt"] = layer.adapter_prompt.detach()[None]
        tensors[f"{name}.adaption_gate"] = gates[:1].clone()
    adapted = {
        "peft_type": "ADAPTION_PROMPT",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "target_modules": "self_attn",
        "adapter_len": method.config.prompt_length,
        "adapter_layers": len(layers),  # counted from the top
    }
    return adapted, tensors


def refuse_what_peft_lacks(method: Adapter, config: ModelConfig, hf_config: dict[str, Any], source: Path) -> None:
    """Refuses a method or an architecture whose adapters PEFT cannot compute.

    Raises:
        CheckpointError: saying what PEFT lacks.
    """
    if method.name != "adapter":
        raise CheckpointError(
            f"{source} is a run of {method.name}, which scales and shifts every linear layer; PEFT has nothing like "
            "it, use the run as it is with `litft generate`."
        )
    if hf_config.get("model_type") not in MODEL_TYPES:
        raise CheckpointError(
            f"{source} is a run of adapter on a model of type {hf_config.get('model_type')}; PEFT knows LLaMA-Adapter "
            f"for {' and '.join(MODEL_TYPES)} only, use the run as it is with `litft generate`."
        )
    if config.proj_bias or config.n_head * config.head_size != config.n_embd:
        raise CheckpointError(
            f"PEFT's adaption prompt computes something else on {config.name}, whose output layer has a bias or whose "
            "heads are not as wide as the model; use the run as it is with `litft generate`."
        )


def _load(checkpoint_dir: Path, config: ModelConfig, method: Adapter) -> dict[int, AdapterAttention]:
    """Gives the adapted attention of each block; the base takes no memory."""
    model = build_empty(config)
    method.apply(model)
    names = set(trainable_state(model, method))
    assign_weights(model, weights_path(checkpoint_dir, method), names, torch.float32, torch.device("cpu"))
    return {layer.layer: layer for layer in model.modules() if isinstance(layer, AdapterAttention)}
