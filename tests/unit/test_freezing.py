"""What a full run freezes: which parameters, what they cost, and what of them is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from litft.recipes.full import main
from tiny_run import make_config, make_world, open_run, with_step_limit
from torch import Tensor

from litft.checkpoint.tensors import load_weights
from litft.config.model import ModelConfig
from litft.config.parse import parse_config
from litft.config.run import FullRun, LoRARun
from litft.config.train import FullTrainConfig
from litft.errors import ConfigError
from litft.methods.base import Full, freeze
from litft.methods.new_tokens import WithNewTokens
from litft.model.load import build_empty
from litft.text.new_tokens import NewTokens
from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.state import Run

LOWER = {"n_freeze": 1, "freeze_embed": True}
HELD = ("transformer.wte.", "transformer.h.0.")


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


def full(**freezing: Any) -> Full:
    return Full(FullTrainConfig(**freezing))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def counts(model: torch.nn.Module) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def test_llama_2_7b_with_24_blocks_and_the_embedding_frozen_trains_1750_million() -> None:
    model = build_empty(ModelConfig.from_name("Llama-2-7b-hf"))
    method = full(n_freeze=24, freeze_embed=True)
    method.apply(model)
    freeze(model, method)
    assert [round(count / 1e6, 2) for count in counts(model)] == [6738.42, 1750.14]


@pytest.mark.parametrize(
    ("freezing", "held"),
    [
        ({}, ()),
        ({"n_freeze": 1}, ("transformer.h.0.",)),
        ({"n_freeze": 2}, ("transformer.h.",)),
        ({"freeze_embed": True}, ("transformer.wte.",)),
        ({"freeze_head": True}, ("lm_head.",)),
        (LOWER, HELD),
    ],
)
def test_what_is_frozen_stays_and_all_else_moves(world: Path, freezing: dict[str, Any], held: tuple[str, ...]) -> None:
    run = open_run(make_config(world), full(**freezing))
    before = {name: parameter.detach().clone() for name, parameter in run.gpt.named_parameters()}
    fit(with_step_limit(run, 1), token_loss)
    for name, parameter in run.gpt.named_parameters():
        assert torch.equal(before[name], parameter) == name.startswith(held), name
    assert run.inputs.trainable_parameters == sum(p.numel() for n, p in before.items() if not n.startswith(held))


def test_frozen_blocks_below_all_that_is_trained_keep_no_activations(world: Path) -> None:
    """Every tensor kept for the backward pass is noted with the part of the model that kept it."""

    def kept(method: Full, name: str) -> set[str]:
        run = open_run(make_config(world, out_dir=world / name), method)
        parts = {"embedding": "transformer.wte", "block 0": "transformer.h.0", "block 1": "transformer.h.1"}
        keeps: Counter[str] = Counter()
        inside = [""]
        for part, path in parts.items():
            module = run.gpt.get_submodule(path)
            module.register_forward_pre_hook(lambda *_, part=part: inside.__setitem__(0, part))
            module.register_forward_hook(lambda *_: inside.__setitem__(0, ""))

        def note(tensor: Tensor) -> Tensor:
            keeps[inside[0]] += 1
            return tensor

        ids, _ = run.inputs.train.row(0)
        run.gpt.train()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            run.gpt(ids[None].long())
        return set(keeps) - {""}

    assert kept(full(), "all") == {"embedding", "block 0", "block 1"}
    assert kept(full(**LOWER), "upper") == {"block 1"}
    assert "block 0" in kept(full(n_freeze=1), "embedded")  # the gradient of the embedding goes through it


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_final_is_a_whole_model_and_step_checkpoints_hold_what_is_trained(world: Path, precision: str) -> None:
    def open_at(name: str, resume: str | bool = False) -> Run:
        config = make_config(world, out_dir=world / name, resume=resume, train__save_interval=3, precision=precision)
        return open_run(config, full(**LOWER))

    straight = open_at("straight")
    progress = fit(straight, token_loss)
    fit(with_step_limit(open_at("cut"), 4), token_loss)
    step = load_weights(world / "cut" / "step-00000003" / "trainable.safetensors")
    assert step.keys() == {name for name in straight.parts.parts if not name.startswith(HELD)}
    resumed = open_at("cut", resume="auto")
    fit(resumed, token_loss)
    finish(straight, progress)
    final = load_weights(world / "straight" / "final" / "lit_model.safetensors")
    base = load_weights(world / "model" / "lit_model.safetensors")
    assert final.keys() == base.keys()
    for name, tensor in final.items():
        assert torch.equal(tensor, base[name].to(tensor.dtype)) == name.startswith(HELD), name
        assert torch.equal(tensor, resumed.gpt.get_parameter(name)), name
    assert not (world / "straight" / "final" / "method.yaml").exists()


def test_a_hugging_face_folder_written_on_the_way_is_whole_too(world: Path) -> None:
    run = open_run(make_config(world), full(**LOWER))
    state = run.parts.whole_state(run.method)
    assert state.keys() == dict(run.gpt.named_parameters()).keys()


def test_more_blocks_than_there_are_cannot_be_frozen(world: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.n_freeze is 3, but .* has 2 blocks"):
        open_run(make_config(world), full(n_freeze=3))
    with pytest.raises(ConfigError, match=r"train\.n_freeze is -1"):
        full(n_freeze=-1)


def test_a_head_that_is_the_embedding_is_frozen_with_it_or_not_at_all(tmp_path: Path) -> None:
    world = make_world(tmp_path, tie_embeddings=True)
    for freezing in ({"freeze_embed": True}, {"freeze_head": True}):
        with pytest.raises(ConfigError, match="is its embedding; set both or none"):
            open_run(make_config(world), full(**freezing))
    run = open_run(make_config(world), full(freeze_embed=True, freeze_head=True))
    assert not run.gpt.lm_head.weight.requires_grad


@pytest.mark.parametrize("frozen", ["freeze_embed", "freeze_head"])
def test_new_tokens_need_a_trained_embedding_and_head(world: Path, frozen: str) -> None:
    model = open_run(make_config(world), full()).gpt
    new = NewTokens(first_id=320, texts=("<a>",), pieces=((1, 2),))
    with pytest.raises(ConfigError, match="new tokens"):
        WithNewTokens(full(**{frozen: True}), new).apply(model)


def test_the_flags_reach_the_recipe(world: Path) -> None:
    folders = ["--checkpoint_dir", str(world / "model"), "--data_dir", str(world / "data")]
    words = ["--n_freeze", "1", "--freeze_embed", "true", "--dry_run", "true", "--precision", "32-true"]
    config = parse_config(FullRun, [*folders, *words], "litft finetune full", "")
    summary = main(config, lambda message: None)
    assert 0 < summary["trainable_parameters"] < summary["parameters"]
    with pytest.raises(ConfigError, match="Unknown flag --n_freeze"):
        parse_config(LoRARun, [*folders, *words], "litft finetune lora", "")
