"""Runs on a quantised base: counts, resume, what moves, and how the result is asked, merged and exported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_run import CPU, CUTS_ALL, make_config, make_world, methods, open_run, with_step_limit
from torch import Tensor

from litft import LLM
from litft.checkpoint.tensors import load_weights
from litft.cli import main
from litft.config.answer import MergeConfig
from litft.config.io import load_yaml
from litft.export.merge import merge
from litft.methods.base import trainable_state
from litft.methods.load import load_method
from litft.methods.merged import load_changes
from litft.model.load import load_model
from litft.model.quantize import LAYERS, QuantizedLinear
from litft.train.export import hf_source
from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.state import Run

ADAPTERS = [name for name in methods() if name != "full"]
IDS = [[5, 9, 30, 11, 7, 40]]


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return make_world(tmp_path)


def packed(run: Run) -> dict[str, Tensor]:
    """The quantised weights of a run, copied."""
    layers = {path: m for path, m in run.gpt.named_modules() if isinstance(m, QuantizedLinear)}
    return {path: layer.weight.detach().clone() for path, layer in layers.items()}


@pytest.mark.parametrize("method", ADAPTERS)
def test_counts_are_those_of_the_plain_run_and_only_adapters_move(world: Path, method: str) -> None:
    plain = open_run(make_config(world, out_dir=world / "plain"), methods()[method]).inputs
    run = open_run(make_config(world, quantize="bnb.nf4-dq"), methods()[method])
    assert run.inputs.parameters == plain.parameters
    assert run.inputs.trainable_parameters == plain.trainable_parameters
    before = packed(run)
    started = {name: tensor.clone() for name, tensor in trainable_state(run.gpt, run.method).items()}
    assert len(before) == 2 * 5
    fit(with_step_limit(run, 2), token_loss)
    assert all(torch.equal(before[path], tensor) for path, tensor in packed(run).items())
    for name, tensor in trainable_state(run.gpt, run.method).items():
        assert tensor.dtype == torch.float32
        assert not torch.equal(started[name], tensor), name


@pytest.mark.parametrize(
    ("method", "form", "precision"),
    [("lora", "bnb.nf4", "32-true"), ("adapter", "bnb.int8", "bf16-mixed"), ("adapter_v2", "bnb.nf4-dq", "bf16-true")],
)
def test_four_steps_and_four_resumed_are_eight_bit_for_bit(world: Path, method: str, form: str, precision: str) -> None:
    def start(name: str, resume: str | None = None) -> Run:
        settings = {"precision": precision, "quantize": form, "train__save_interval": 4, "eval__interval": 3}
        return open_run(make_config(world, out_dir=world / name, resume=resume, **settings), methods()[method])

    straight = start("straight")
    whole = fit(with_step_limit(straight, 8), token_loss)
    fit(with_step_limit(start("cut"), 6), token_loss)  # killed two steps after the checkpoint
    resumed = start("cut", resume="auto")
    assert resumed.inputs.resume_from == world / "cut" / "step-00000004"
    again = fit(with_step_limit(resumed, 8), token_loss)
    for name, tensor in trainable_state(straight.gpt, straight.method).items():
        assert torch.equal(tensor, resumed.gpt.get_parameter(name)), name
    assert whole.val_loss == again.val_loss and whole.final_loss == again.final_loss


def test_a_run_is_asked_in_the_form_it_is_told_and_merged_from_the_16_bit_base(world: Path) -> None:
    run = open_run(make_config(world, quantize="bnb.nf4"), methods()["lora"])
    finish(run, fit(with_step_limit(run, 3), token_loss))
    final = world / "out" / "final"
    assert load_yaml(final / "method.yaml")["quantize"] == "bnb.nf4"
    with torch.no_grad():
        trained = run.gpt.eval().head(run.gpt(torch.tensor(IDS)))
    as_trained, plain = LLM.load(final, quantize="bnb.nf4").logits(IDS), LLM.load(final).logits(IDS)
    torch.testing.assert_close(as_trained, trained, atol=1e-6, rtol=1e-6)
    assert (plain - trained).abs().max() > 1e-3  # the default is the base as it lies on disk
    said: list[str] = []
    merged = merge(MergeConfig(checkpoint_dir=final), said.append)
    assert any("trained on a base in bnb.nf4" in sentence for sentence in said)
    torch.testing.assert_close(LLM.load(merged).logits(IDS), plain, atol=1e-5, rtol=1e-5)
    base_dir, method = load_method(final)
    base, written = (load_weights(folder / "lit_model.safetensors") for folder in (base_dir, merged))
    for name, layer in load_changes(final, run.inputs.model_config, method).layers.items():
        assert torch.equal(written[name], base[name] + layer.delta()), name


def test_an_export_during_the_run_is_the_16_bit_base_with_the_adapters(world: Path) -> None:
    run = open_run(make_config(world, quantize="bnb.nf4"), methods()["lora"])
    fit(with_step_limit(run, 2), token_loss)
    base = load_weights(world / "model" / "lit_model.safetensors")
    path = "transformer.h.1.mlp.up.weight"
    found = hf_source(run, trainable_state(run.gpt, run.method)).read[path]()
    layer = run.gpt.get_submodule("transformer.h.1.mlp.up")
    assert torch.equal(found, base[path] + layer.delta())


@pytest.mark.parametrize("form", LAYERS)
def test_any_checkpoint_is_answered_from_in_any_form(world: Path, form: str) -> None:
    plain, narrow = LLM.load(world / "model").logits(IDS), LLM.load(world / "model", quantize=form).logits(IDS)
    assert 0 < (narrow - plain).norm() / plain.norm() < (0.05 if form == "bnb.int8" else 0.5)


def test_the_command_line_trains_and_asks_and_says_how_the_run_was_trained(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        "--checkpoint_dir",
        str(world / "model"),
        "--data_dir",
        str(world / "data"),
        "--out_dir",
        str(world / "o"),
    ]
    short = ["--max_steps", "1", "--global_batch_size", "4", "--eval.max_new_tokens", "1", "--precision", "32-true"]
    assert main(["finetune", "lora", *folders, *short, "--quantize", "bnb.nf4"]) == 0
    assert "its blocks in bnb.nf4" in capsys.readouterr().err
    asked = ["generate", "--checkpoint_dir", str(world / "o" / "final"), "--prompt", "a", "--max_new_tokens", "2"]
    assert main(asked) == 0
    assert "--quantize bnb.nf4 answers with that one" in capsys.readouterr().err
    assert main([*asked, "--quantize", "bnb.nf4"]) == 0
    assert "This run was trained on" not in capsys.readouterr().err
    assert main(["finetune", "full", *folders, "--quantize", "bnb.nf4"]) == 2
    assert "full trains every weight" in capsys.readouterr().err


@pytest.mark.skipif(not CUTS_ALL, reason="FSDP2 of this torch cuts no whole numbers")
def test_a_quantised_model_is_sharded_over_two_processes(world: Path, tmp_path: Path) -> None:
    script = Path(__file__).parent / "sharded_quantized.py"
    words = [sys.executable, str(script), str(world / "model"), str(tmp_path / "meeting")]
    with subprocess.Popen([*words, "0"]) as first, subprocess.Popen([*words, "1"]) as second:
        assert (first.wait(120), second.wait(120)) == (0, 0)


def test_bf16_mixed_computes_quantised_layers_in_bfloat16(world: Path) -> None:
    model = load_model(world / "model", "bf16-mixed", CPU, "bnb.nf4")
    layer = model.get_submodule("transformer.h.0.attn.proj")
    x = torch.randn(1, 3, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), layer(x.bfloat16()))
