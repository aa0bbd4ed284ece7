"""`train.export_interval`: folders that transformers loads, from a run that does not notice; then the same text."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file
from tiny_engine import ids_of
from tiny_run import make_config, make_world, methods, open_run, with_step_limit
from tiny_text import SHARED, write_json
from torch import Tensor

from litft import LLM
from litft.checkpoint.convert import from_hf
from litft.checkpoint.disk import write_json as write_config
from litft.config.answer import MergeConfig
from litft.config.convert import FromHfConfig, ToHfConfig
from litft.config.export import ExportPeftConfig
from litft.config.optim import OptimConfig
from litft.config.prepare import PrepareConfig
from litft.config.run import LoRAConfig, RunConfig
from litft.config.train import EvalConfig, TrainConfig
from litft.data.prepare import prepare
from litft.errors import CheckpointError, ConfigError
from litft.export.hf import to_hf
from litft.export.merge import merge
from litft.export.peft import export_peft
from litft.methods.base import trainable_state
from litft.methods.lora import LoRA
from litft.methods.new_tokens import WithNewTokens
from litft.text.new_tokens import NewTokens
from litft.train.export import hf_source
from litft.train.finish import finish
from litft.train.loop import fit
from litft.train.state import Run
from litft.train.step_folders import step_folders

HF_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "float32",
}
MODEL = "stories260K-hf"


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float(), targets, reduction="none")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    make_world(tmp_path)
    write_json(tmp_path / "model" / "config.json", HF_CONFIG)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return tmp_path


def columns(out_dir: Path) -> list[tuple[str, ...]]:
    """What metrics.csv says but for times and memory."""
    with (out_dir / "logs" / "metrics.csv").open() as file:
        return [tuple(v for k, v in row.items() if not re.search("second|memory", k)) for row in csv.DictReader(file)]


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_with_exports_is_the_run_without(world: Path, method: str, precision: str) -> None:
    runs: dict[str, Run] = {}
    for name, interval in (("with", 5), ("without", None)):
        out_dir, options = world / name, {"precision": precision, "train__save_interval": 4}
        run = open_run(
            make_config(world, out_dir=out_dir, train__export_interval=interval, **options), methods()[method]
        )
        finish(run, fit(run, token_loss))
        runs[name] = run
    states = [trainable_state(run.gpt, run.method) for run in runs.values()]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert columns(world / "with") == columns(world / "without")
    assert [folder.name for folder in step_folders(world / "with")] == ["step-00000004", "step-00000008"]
    exported = sorted(path.name for path in (world / "with").glob("hf-*"))
    assert exported == ["hf-step-00000005", "hf-step-00000010"]
    assert not list((world / "without").glob("hf-*")) and not list((world / "with").glob(".*"))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_folder_is_the_model_of_that_step(world: Path, method: str) -> None:
    """The one of the last step is what `litft export hf` makes of the result, and transformers loads an earlier one."""
    run = open_run(make_config(world, train__export_interval=0.5), methods()[method])
    assert run.plan.export_every == 6
    finish(run, fit(run, token_loss))
    folder = world / "out" / "hf-step-00000012"
    to_hf(ToHfConfig(checkpoint_dir=world / "out" / "final", out_dir=world / "hf", certificate="full"))
    last, wanted = (load_file(path / "model.safetensors") for path in (folder, world / "hf"))
    assert last.keys() == wanted.keys() and all(torch.equal(last[name], wanted[name]) for name in last)
    report = json.loads((folder / "export_report.json").read_text())
    assert (report["kind"], report["step"], report["certificate"]["tensors_equal"]) == ("hf", 12, len(last))
    assert {path.name for path in folder.iterdir()} == {path.name for path in (world / "hf").iterdir()}
    earlier = world / "out" / "hf-step-00000006"
    model = transformers.AutoModelForCausalLM.from_pretrained(earlier)
    assert not torch.equal(model.lm_head.weight, wanted["lm_head.weight"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(earlier)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False, add_generation_prompt=True)
    assert text.endswith("### Instruction:\na\n\n### Response:")


def test_all_weights_of_a_full_run_come_from_memory_with_new_tokens_too(world: Path) -> None:
    run = open_run(make_config(world), methods()["full"])
    method = WithNewTokens(methods()["full"], NewTokens(first_id=320, texts=("<a>",), pieces=((1, 2),)))
    method.apply(run.gpt)
    source = hf_source(dataclasses.replace(run, method=method), trainable_state(run.gpt, method))
    assert source.specs["transformer.wte.weight"].shape == source.specs["lm_head.weight"].shape == (321, 16)
    for name, parameter in run.gpt.named_parameters():
        assert torch.equal(source.read[name](), parameter), name


def test_of_a_run_that_time_ends_a_fraction_is_one_of_its_time(world: Path) -> None:
    run = open_run(make_config(world, train__export_interval=0.5, train__max_time="0.001s"), methods()["lora"])
    progress = fit(run, token_loss)
    assert progress.step == 1 and (world / "out" / "hf-step-00000001").is_dir()


def test_what_cannot_be_exported_is_refused_before_the_run(world: Path) -> None:
    for method in ("adapter", "adapter_v2"):
        with pytest.raises(ConfigError, match=f"what {method} trains is no part of a Hugging Face model"):
            open_run(make_config(world, train__export_interval=2), methods()[method])
    write_config(world / "model" / "config.json", {**HF_CONFIG, "rms_norm_eps": 0.5})
    with pytest.raises(CheckpointError, match="norm_eps is"):
        open_run(make_config(world, train__export_interval=2), methods()["lora"])
    (world / "model" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"Cannot read .*config\.json"):
        open_run(make_config(world, train__export_interval=2), methods()["lora"])
    assert not (world / "out").exists()


def test_an_export_that_fails_does_not_end_the_run(world: Path) -> None:
    """As on a full disk; here config.json is gone when it is to be copied."""
    run = open_run(make_config(world, train__export_interval=5), methods()["lora"])
    said: list[str] = []
    object.__setattr__(run.inputs, "report", said.append)
    (world / "model" / "config.json").unlink()
    progress = fit(run, token_loss)
    assert progress.step == 12
    warnings = [line for line in said if line.startswith("Warning: no Hugging Face folder of step")]
    assert len(warnings) == 2 and "config.json" in warnings[0]
    assert not list((world / "out").glob("*hf-*"))


def test_the_interval_may_change_when_a_run_goes_on(world: Path) -> None:
    fit(with_step_limit(open_run(make_config(world, train__save_interval=2), methods()["lora"]), 3), token_loss)
    run = open_run(
        make_config(world, train__save_interval=2, train__export_interval=6, resume="auto"), methods()["lora"]
    )
    fit(run, token_loss)
    assert [path.name for path in sorted((world / "out").glob("hf-*"))] == ["hf-step-00000006", "hf-step-00000012"]


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_an_interval_that_is_none(value: float) -> None:
    with pytest.raises(ConfigError, match=r"train\.export_interval is"):
        TrainConfig(export_interval=value)


PROMPTS = ("Once upon a time", "One day, a little girl named Lily", "The dog was")


@pytest.mark.skipif(not (SHARED / "models" / MODEL).is_dir(), reason="needs the real model beside the checkout")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft 0.21 with transformers 5.23
def test_a_finetuned_story_teller_tells_the_same_everywhere(tmp_path: Path) -> None:
    """LoRA on real rows, then greedy text of 100 tokens: litft, peft on the base, and transformers on the merge."""
    peft: Any = pytest.importorskip("peft")
    base = shutil.copytree(SHARED / "models" / MODEL, tmp_path / MODEL, copy_function=shutil.copyfile)
    from_hf(FromHfConfig(checkpoint_dir=base))
    rows = json.loads(next((SHARED / "alpaca").glob("*.json")).read_text(encoding="utf-8"))[:60]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    config = PrepareConfig(
        checkpoint_dir=base, data_file=tmp_path / "rows.json", destination_path=tmp_path / "data", max_seq_length=512
    )
    prepare("alpaca", config)
    settings = RunConfig(
        checkpoint_dir=base,
        data_dir=tmp_path / "data",
        out_dir=tmp_path / "out",
        precision="32-true",
        train=TrainConfig(global_batch_size=8, micro_batch_size=4, max_steps=6),
        optim=OptimConfig(learning_rate=3e-3),
        eval=EvalConfig(prompts=0),
    )
    run = open_run(settings, LoRA(LoRAConfig(r=4, alpha=8, targets=("q", "v", "proj", "mlp"))))
    finish(run, fit(run, token_loss))
    final = tmp_path / "out" / "final"
    merge(MergeConfig(checkpoint_dir=final))
    to_hf(ToHfConfig(checkpoint_dir=tmp_path / "out" / "merged", out_dir=tmp_path / "hf", certificate="full"))
    export_peft(ExportPeftConfig(checkpoint_dir=final, out_dir=tmp_path / "peft", certificate="full"))
    llm, plain = LLM.load(final), LLM.load(base)
    load = transformers.AutoModelForCausalLM.from_pretrained
    others = [load(tmp_path / "hf"), peft.PeftModel.from_pretrained(load(base), tmp_path / "peft")]
    for prompt in PROMPTS:
        ids = llm.tokenizer.encode(prompt)
        wanted = ids_of(llm.model, ids, 100)
        assert len(wanted) == 100 and wanted != ids_of(plain.model, ids, 100)
        for model in others:
            tokens = model.eval().generate(
                input_ids=torch.tensor([ids]), max_new_tokens=100, do_sample=False, eos_token_id=-1
            )
            assert tokens[0, len(ids) :].tolist() == wanted
