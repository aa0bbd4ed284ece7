"""Finished runs without a training: a base of any family, and a final folder whose adapters are drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from parity_models import FAMILIES
from tiny_text import byte_tokenizer, write_json

from litft.checkpoint.convert import from_hf
from litft.checkpoint.disk import sha256_file
from litft.checkpoint.files import copy_side_files, save_model_config
from litft.checkpoint.tensors import save_safetensors, tensor_specs
from litft.config.convert import FromHfConfig
from litft.config.io import dump_yaml
from litft.methods.base import Method, trainable_state, weights_path
from litft.model.load import load_model
from litft.text.prompts import PromptStyle
from litft.text.style_files import save_prompt_style
from litft.text.styles import ALPACA

CPU = torch.device("cpu")
EVERY_TARGET = ("q", "k", "v", "proj", "mlp", "head")


def write_base(folder: Path, family: str, variation: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Writes a random model as transformers does, and converts it; biases and norms are moved from their start."""
    kind, arguments = FAMILIES[family][variation]
    torch.manual_seed(0)
    config = getattr(transformers, kind)(**{**arguments, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter += 0.1 * torch.randn_like(parameter) if parameter.ndim == 1 else 0
            parameter *= 1 if parameter.ndim == 1 or "embed" in name else 3
    model.to(dtype).save_pretrained(folder)
    from_hf(FromHfConfig(checkpoint_dir=folder))
    return folder


def add_tokenizer(folder: Path) -> Path:
    """Puts the byte tokenizer into a folder."""
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", names)
    return folder


def write_final(
    folder: Path, base: Path, method: Method, style: PromptStyle | None = ALPACA, scale: float = 0.1
) -> Path:
    """Writes what a run of an adapter method leaves in `final/`, every trained number moved by chance."""
    model = load_model(base, "32-true", CPU)
    method.apply(model)
    state = trainable_state(model, method)
    torch.manual_seed(1)
    for tensor in state.values():
        tensor += scale * torch.randn_like(tensor)
    copy_side_files(base, folder)
    save_model_config(folder, model.config)
    if style is not None:
        save_prompt_style(folder, style)
    save_safetensors(weights_path(folder, method), state.items(), tensor_specs(state))
    record = {
        "method": method.name,
        "base": str(base),
        "base_from_here": str(base),
        "base_sha256": sha256_file(base / "lit_model.safetensors"),
        "settings": method.settings(),
    }
    (folder / "method.yaml").write_text(dump_yaml(record))
    return folder
