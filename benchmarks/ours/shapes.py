"""The models of `benchmarks/finetune.py`, and random weights for one: FOLDER.

Run as a script it fills a folder that holds a config.json with litft's files, and prints how many weights do matrix
products.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def llama(width: int, layers: int, heads: int, inner: int, **others: Any) -> dict[str, Any]:
    """Gives a config.json of Llama's kind. Source: config.json of meta-llama/Llama-2-7b-hf."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-05,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        **others,
    }


def pythia(width: int, layers: int, heads: int) -> dict[str, Any]:
    """Gives a config.json of Pythia's kind. Source: config.json of EleutherAI/pythia-160m."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": 50304,
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-05,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "hidden_act": "gelu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def llama3() -> dict[str, Any]:
    """Gives the config.json of Llama 3.1 8B. Source: config.json of meta-llama/Llama-3.1-8B."""
    stretch = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3"}
    stretch |= {"original_max_position_embeddings": 8192}
    sizes = {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}
    ids = {"bos_token_id": 128000, "eos_token_id": 128001}
    return llama(4096, 32, 32, 14336, rope_theta=500000.0, rope_scaling=stretch, **sizes, **ids)


@dataclass(frozen=True)
class Workload:
    """A model, and the ways in which it is finetuned."""

    hf_config: dict[str, Any]
    methods: tuple[str, ...]


ON_CPU = {
    "llama-134m": Workload(llama(768, 12, 12, 2048), ("lora",)),
    "pythia-160m": Workload(pythia(768, 12, 12), ("lora",)),
    "pythia-70m": Workload(pythia(512, 6, 8), ("full",)),
}
ON_GPU = {
    "llama2-7b": Workload(
        llama(4096, 32, 32, 11008, max_position_embeddings=4096),
        ("lora", "lora, checkpointing", "qlora, checkpointing"),
    ),
    "llama3.1-8b": Workload(
        llama3(), ("lora", "lora, checkpointing", "qlora, checkpointing", "full, checkpointing, 8-bit AdamW")
    ),
}


def make_weights(folder: Path) -> int:
    """Fills a folder that describes a model with random weights.

    Returns:
        How many of them do matrix products: all but the input embedding.
    """
    import torch

    from litft.checkpoint.convert import read_model_config
    from litft.checkpoint.files import WEIGHTS_NAME, save_model_config
    from litft.checkpoint.tensors import save_safetensors, tensor_specs
    from litft.model.load import build_random

    config = read_model_config(folder)
    model = build_random(config, "bf16-true", torch.device("cpu"), seed=0)
    weights = {name: model.get_parameter(name).detach() for name in model.weight_names()}
    save_safetensors(folder / WEIGHTS_NAME, weights.items(), tensor_specs(weights))
    save_model_config(folder, config)
    return sum(tensor.numel() for tensor in weights.values()) - weights["transformer.wte.weight"].numel()


if __name__ == "__main__":
    print(json.dumps({"parameters": make_weights(Path(sys.argv[1]))}))
