"""Folders of Lit-GPT and litgpt for tests: tiny models, written by an inverse map that knows nothing of ours."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from tiny_text import byte_tokenizer, write_json
from torch import Tensor

from litft.config.convert import FromLitGPTConfig
from litft.config.io import dump_yaml
from litft.config.model import ModelConfig, RopeScaling
from litft.methods.from_litgpt import from_litgpt
from litft.methods.load import load_finetuned
from litft.model.gpt import GPT

CPU = torch.device("cpu")
IDS = torch.randint(0, 300, (2, 9), generator=torch.Generator().manual_seed(0))
SIZES: dict[str, Any] = {"n_layer": 2, "n_embd": 32, "n_head": 4, "block_size": 64, "vocab_size": 300}

LLAMA = ModelConfig(
    name="tiny-llama", family="llama", n_query_groups=2, head_size=8, intermediate_size=24, padded_vocab_size=320,
    norm_eps=1e-6, rope_scaling=RopeScaling(kind="linear", factor=4.0), **SIZES,
)  # fmt: skip
PYTHIA = dataclasses.replace(
    LLAMA, name="tiny-pythia", family="pythia", n_query_groups=4, norm="layernorm", norm_eps=1e-5, mlp="plain",
    activation="gelu", block="parallel", qkv_bias=True, proj_bias=True, mlp_bias=True, rotary_percentage=0.25,
    intermediate_size=128, rope_scaling=None,
)  # fmt: skip
FALCON = dataclasses.replace(
    PYTHIA, name="tiny-falcon", family="falcon", n_query_groups=1, block="shared_norm", qkv_bias=False,
    proj_bias=False, mlp_bias=False, rotary_percentage=1.0, tie_embeddings=True,
)  # fmt: skip
FALCON_40B = dataclasses.replace(FALCON, n_query_groups=2, block="parallel", tie_embeddings=False)
MODELS = {"llama": LLAMA, "pythia": PYTHIA, "falcon": FALCON, "falcon-40b": FALCON_40B}

# What litgpt's `Config` of the same models would be saved as; absent fields have its defaults.
COMMON = {**SIZES, "padded_vocab_size": 320, "padding_multiple": 64, "norm_qk": False, "n_expert": 0}
LIT_CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        **COMMON, "n_query_groups": 2, "intermediate_size": 24, "norm_eps": 1e-6, "rotary_percentage": 1.0,
        "parallel_residual": False, "bias": False, "norm_class_name": "RMSNorm", "mlp_class_name": "LLaMAMLP",
        "rope_condense_ratio": 4,
    },
    "pythia": COMMON,
    "falcon": {**COMMON, "n_query_groups": 1, "bias": False, "rotary_percentage": 1.0, "shared_attention_norm": True},
    "falcon-40b": {**COMMON, "n_query_groups": 2, "bias": False, "rotary_percentage": 1.0},
}  # fmt: skip
OLD_NAMES = {
    "norm_class_name": "_norm_class", "mlp_class_name": "_mlp_class", "rope_condense_ratio": "condense_ratio",
}  # fmt: skip


def random_state(model: ModelConfig) -> dict[str, Tensor]:
    """Gives random weights of a model, the head of a tied one included."""
    gpt = GPT(model)
    gpt.init_weights(seed=0)
    state = {name: tensor.detach() for name, tensor in gpt.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()} | (
        {"lm_head.weight": state["lm_head.weight"], "transformer.wte.weight": state["lm_head.weight"]}
        if model.tie_embeddings
        else {}
    )


def source_rows(model: ModelConfig, old: bool) -> list[int]:
    """Gives, for each row of Lit-GPT's fused projection, which row of [q; k; v] it is."""
    size, groups, per_group = model.head_size, model.n_query_groups, model.n_head // model.n_query_groups
    heads = list(range(model.n_head + 2 * groups))
    if old:  # each group: its queries, its key, its value
        heads = []
        for group in range(groups):
            heads += [group * per_group + query for query in range(per_group)]
            heads += [model.n_head + group, model.n_head + groups + group]
    return [head * size + row for head in heads for row in range(size)]


def lit_name(name: str, model: ModelConfig, old: bool) -> str:
    """Gives Lit-GPT's name of a tensor of ours."""
    changes = {".attn.qkv.": ".attn.attn."} if old else {}
    changes |= {".mlp.down.": ".mlp.proj.", ".mlp.gate.": ".mlp.fc_1."}
    changes |= {".mlp.up.": ".mlp.fc_2." if model.mlp == "gated" else ".mlp.fc."}
    for ours, theirs in changes.items():
        name = name.replace(ours, theirs)
    return name


def lit_state(state: dict[str, Tensor], model: ModelConfig, old: bool) -> dict[str, Tensor]:
    """Gives the same weights as Lit-GPT holds them."""
    rows = source_rows(model, old)
    return {
        lit_name(name, model, old): (tensor[rows] if ".attn.qkv." in name else tensor) for name, tensor in state.items()
    }


def write_lit_folder(
    folder: Path, kind: str, state: dict[str, Tensor], *, file: str = "lit_model.pth", protocol: int = 2, **changes: Any
) -> Path:
    """Writes a folder as litgpt does: a .pth file, model_config.yaml, tokenizer; `changes` are fields of the config."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / file, pickle_protocol=protocol)
    values = {"name": f"tiny-{kind.partition('-')[0]}", "hf_config": {}, **LIT_CONFIGS[kind], **changes}
    (folder / "model_config.yaml").write_text(dump_yaml(values))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    return folder


def convert(folder: Path, out_dir: Path, **flags: Any) -> Path:
    return from_litgpt(FromLitGPTConfig(checkpoint_dir=folder, out_dir=out_dir, **flags))


def logits(checkpoint_dir: Path) -> Tensor:
    model = load_finetuned(checkpoint_dir, "32-true", CPU)
    with torch.no_grad():
        return model.head(model(IDS))
