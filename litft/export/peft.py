"""`litft export peft`: what a run trained, as an adapter folder that PEFT and vLLM load, with its proof.

An adapter's rows move as the weight's rows move, so the family's own rules say which of PEFT's modules it becomes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from litft.checkpoint.disk import atomic_folder, read_json, require_free, write_json
from litft.checkpoint.files import (
    CHECKPOINTS_DIR,
    WEIGHTS_NAME,
    copy_side_files,
    load_model_config,
    resolve_checkpoint_dir,
)
from litft.checkpoint.hf_folder import REPORT_FILE, check_description, tokenizer_of, write_chat_template
from litft.checkpoint.layout import to_theirs
from litft.checkpoint.tensors import load_weights, save_safetensors, tensor_specs
from litft.config.export import ExportPeftConfig
from litft.config.model import ModelConfig
from litft.config.run import LoRAConfig
from litft.errors import CheckpointError
from litft.export.adaption import adaption_prompt
from litft.export.certificate import write_report
from litft.export.hf import ADVICE, sentence
from litft.export.peft_proof import certify_peft, has_hf_weights
from litft.export.source import report_quantized
from litft.families import FAMILIES, tensor_rules
from litft.families.base import Copied
from litft.families.shapes import state_shapes
from litft.methods.adapter import Adapter
from litft.methods.base import Method
from litft.methods.dora import DoRALinear
from litft.methods.load import check_base, load_method
from litft.methods.lora import LoRA
from litft.methods.lora_linear import LoRALinear
from litft.methods.merged import load_changes, require_nonzero
from litft.methods.new_tokens import WithNewTokens
from litft.text.style_files import STYLE_FILE, saved_style

Report = Callable[[str], None]
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."

# Modules that transformers calls otherwise in memory, where PEFT finds them, than on disk.
# Source: `GPTNeoXForCausalLM` in conversion_mapping.py of transformers 5; transformers 4 has embed_out in memory too.
IN_MEMORY = {"embed_out": "lm_head"}


@dataclass(frozen=True)
class PeftAdapter:
    """What an adapter folder holds.

    Attributes:
        config: adapter_config.json, but for the base's name.
        tensors: adapter_model.safetensors.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]


def export_peft(config: ExportPeftConfig, report: Report = lambda message: None) -> Path:
    """Writes an adapter folder.

    Args:
        config: from where to where, and what the base is called.
        report: is told, in a sentence each, what was written and how it was proved.

    Returns:
        The folder written.

    Raises:
        CheckpointError: it is no run that PEFT has the like of, a part is damaged, the base is another one, the
            adapters change nothing, or what was written is not computed as litft computes it.
        ConfigError: out_dir is not empty, or holds what is read.
    """
    checkpoint_dir, out_dir = resolve_checkpoint_dir(config.checkpoint_dir), config.out_dir
    base_dir, method = load_method(checkpoint_dir)
    check_base(checkpoint_dir)
    model = load_model_config(base_dir)
    check_description(base_dir, model)
    _require_plain_base(base_dir, model)
    adapter = _adapter_of(checkpoint_dir, base_dir, method)
    require_free(out_dir, config.overwrite, REPORT_FILE, ADVICE, (checkpoint_dir, base_dir))
    name = config.base_model_name_or_path or base_name(base_dir)
    with atomic_folder(out_dir) as folder:
        write_adapter(folder, adapter, name, checkpoint_dir)
        proof = certify_peft(checkpoint_dir, base_dir, adapter.tensors, folder, config.certificate)
        write_report(folder, "peft", {"checkpoint_dir": str(checkpoint_dir), "base": str(base_dir)}, proof)
    report(f"Wrote {len(adapter.tensors)} tensors for PEFT to {out_dir}; its base is {name}.\n{sentence(proof)}")
    report_quantized(checkpoint_dir, report)
    if not has_hf_weights(base_dir):
        report(
            f"That base is litft's own: litft export hf --checkpoint_dir {base_dir} --out_dir ... writes it for PEFT."
        )
    return out_dir


def _adapter_of(checkpoint_dir: Path, base_dir: Path, method: Method) -> PeftAdapter:
    """Gives what a run trained in PEFT's form."""
    if isinstance(method, WithNewTokens):
        raise CheckpointError(
            f"{checkpoint_dir} has new tokens, whose rows an adapter folder for PEFT would not carry; use "
            "`litft merge` or `litft export hf`."
        )
    if isinstance(method, Adapter):
        return PeftAdapter(*adaption_prompt(checkpoint_dir, base_dir, method))
    assert isinstance(method, LoRA)
    model = load_model_config(base_dir)
    changes = load_changes(checkpoint_dir, model, method)
    require_nonzero(changes, checkpoint_dir)
    return lora_adapter(model, method, changes.layers, load_weights(base_dir / WEIGHTS_NAME))


def write_adapter(folder: Path, adapter: PeftAdapter, base: str, side_dir: Path) -> None:
    """Fills a folder with an adapter and the tokenizer that goes with it.

    Args:
        folder: exists and is empty.
        adapter: what is written.
        base: what the folder calls its base.
        side_dir: holds the tokenizer, and the prompt style if there is one.
    """
    save_safetensors(folder / WEIGHTS_FILE, adapter.tensors.items(), tensor_specs(adapter.tensors))
    write_json(folder / CONFIG_FILE, {"base_model_name_or_path": base, **adapter.config})
    copy_side_files(side_dir, folder)
    for name in ("config.json", "generation_config.json", STYLE_FILE):  # of a model, which this is not
        (folder / name).unlink(missing_ok=True)
    tokenizer = tokenizer_of(side_dir)
    if tokenizer is not None and (side_dir / STYLE_FILE).is_file():
        write_chat_template(folder, tokenizer, saved_style(side_dir))


def lora_adapter(
    model: ModelConfig, method: LoRA, layers: Mapping[str, LoRALinear], base: Mapping[str, Tensor]
) -> PeftAdapter:
    """Gives the adapters of a LoRA run in PEFT's form.

    Args:
        model: the architecture.
        method: its settings.
        layers: the adapters by the name of the weight that they change.
        base: the weights of the base.

    Raises:
        CheckpointError: a target has no module of its own in transformers.
    """
    if model.n_expert and any(".experts." in name for name in layers):
        raise CheckpointError(
            f"lora.targets has mlp, but {model.name} is a mixture of experts, which transformers holds as one fused "
            "tensor that PEFT's LoRA cannot be laid beside; use `litft merge` or `litft export hf`."
        )
    pairs = peft_pairs(model, layers)
    ranks = {module: len(a) for module, (a, _) in pairs.items()}
    alpha, rank = partial(_alpha, method.config), max(ranks.values())
    suffixes = suffixes_of(list(pairs), their_modules(model))
    others = {suffixes[module]: count for module, count in sorted(ranks.items()) if count != rank}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha(rank),
        "lora_dropout": method.config.dropout,
        "target_modules": sorted(set(suffixes.values())),
        "rank_pattern": others,
        "alpha_pattern": {suffix: alpha(count) for suffix, count in others.items()},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": method.config.scaling == "rank_stabilised",
        "use_dora": method.config.dora,
    }
    tensors = {}
    for module, (a, b) in pairs.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = a.contiguous()
        tensors[f"{PREFIX}{module}.lora_B.weight"] = b.contiguous()
    if method.config.dora:
        magnitudes = peft_magnitudes(model, layers, base)
        tensors |= {f"{PREFIX}{module}.lora_magnitude_vector": magnitudes[module] for module in pairs}
    return PeftAdapter(config, tensors)


def peft_pairs(model: ModelConfig, layers: Mapping[str, LoRALinear]) -> dict[str, tuple[Tensor, Tensor]]:
    """Gives A (K, in) and B (out, K) of each module of transformers that is adapted.

    A module that holds P of our slices, each with an A of its own, gets them stacked: K = P R, and B has each slice's
    columns only in the rows that came from it.
    """
    shapes = state_shapes(model)
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for rule in _copied(model):
        adapted = [(name, part) for name in rule.our_names if name in layers for part in layers[name].parts()]
        if adapted:
            pairs |= _pairs_of_rule(rule, adapted, {name: shapes[name][0] for name in rule.our_names})
    return pairs


def peft_magnitudes(
    model: ModelConfig, layers: Mapping[str, LoRALinear], base: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Gives DoRA's magnitude (out,) of each module of transformers; where a row has no adapter, the norm that it has.

    Args:
        model, layers, base: as `lora_adapter` takes them.
    """
    found: dict[str, Tensor] = {}
    for rule in _copied(model):
        if any(name in layers for name in rule.our_names):
            sizes = {name: _row_sizes(base[name], layers.get(name)) for name in rule.our_names}
            found |= {module_name(theirs): rows.contiguous() for theirs, rows in to_theirs(rule, _readers(sizes))}
    return found


def _row_sizes(weight: Tensor, layer: LoRALinear | None) -> Tensor:
    """Gives the norm of each row of a weight, or what it was trained to be: (out,) float32."""
    sizes: Tensor = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32)
    if isinstance(layer, DoRALinear):
        for (start, stop), trained in layer.magnitudes():
            sizes[start:stop] = trained.detach()
    return sizes


Part = tuple[tuple[int, int], Tensor, Tensor]


def _pairs_of_rule(
    rule: Copied, adapted: Sequence[tuple[str, Part]], rows: Mapping[str, int]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Turns the slices that one rule moves: every B stands in a column block of its own while its rows move."""
    rank = len(adapted[0][1][1])
    blocks = {name: torch.zeros(count, len(adapted), rank) for name, count in rows.items()}
    touched = {name: torch.zeros(count, len(adapted), dtype=torch.bool) for name, count in rows.items()}
    for index, (name, ((start, stop), _, b)) in enumerate(adapted):
        blocks[name][start:stop, index] = b.detach()
        touched[name][start:stop, index] = True
    moved = dict(to_theirs(rule, _readers(blocks)))
    pairs = {}
    for theirs, where in to_theirs(rule, _readers(touched)):
        kept = where.any(dim=0).nonzero()[:, 0].tolist()
        if kept:
            a = torch.cat([adapted[index][1][1].detach() for index in kept])
            pairs[module_name(theirs)] = a, moved[theirs][:, kept].flatten(1)
    return pairs


def _readers(tensors: Mapping[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    """Gives tensors as the rules read them."""
    return {name: partial(tensors.__getitem__, name) for name in tensors}


def _copied(model: ModelConfig) -> list[Copied]:
    """Gives the rules that move weights."""
    return [rule for rule in tensor_rules(model) if isinstance(rule, Copied)]


def module_name(theirs: str) -> str:
    """Gives the module, as transformers names it in memory, that owns a tensor of a Hugging Face file."""
    module = theirs.rpartition(".")[0]
    return IN_MEMORY.get(module, module)


def their_modules(model: ModelConfig) -> list[str]:
    """Gives every module of transformers that has a weight."""
    shapes = state_shapes(model)
    return [
        module_name(name) for rule in _copied(model) for name in rule.their_shapes(shapes) if name.endswith(".weight")
    ]


def suffixes_of(adapted: Sequence[str], modules: Sequence[str]) -> dict[str, str]:
    """Gives, for each adapted module, the shortest end of its name that no module left alone shares.

    PEFT's target_modules adapts every module whose name ends so.
    """
    alone = set(modules) - set(adapted)
    found = {}
    for module in adapted:
        parts = module.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        found[module] = next(
            end for end in ends if not any(other == end or other.endswith(f".{end}") for other in alone)
        )
    return found


def base_name(base_dir: Path) -> str:
    """Gives what to call a base: ORG/NAME of one under checkpoints/, else its folder."""
    root = CHECKPOINTS_DIR.resolve()
    if base_dir.resolve().is_relative_to(root):
        return base_dir.resolve().relative_to(root).as_posix()
    return str(base_dir)


def _require_plain_base(base_dir: Path, model: ModelConfig) -> None:
    """Refuses a base of which litft uses only a part: its modules have other names in the whole."""
    hf_config = read_json(base_dir / "config.json")
    if FAMILIES[model.family].config_out(hf_config) != hf_config:
        raise CheckpointError(
            f"{base_dir} describes a model of which litft trains the text half only; PEFT would name its modules "
            "otherwise. Use `litft export hf`, which writes that half with the adapters merged."
        )


def _alpha(config: LoRAConfig, rank: int) -> float:
    """Gives the alpha by which an adapter of this rank is scaled as one of the run's rank: a whole number as an int, as
    PEFT's own files have it.
    """
    share = rank / config.r
    value = config.alpha * (share if config.scaling == "standard" else math.sqrt(share))
    return int(value) if value == int(value) else value
