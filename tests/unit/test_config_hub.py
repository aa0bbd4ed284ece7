"""Every config of config_hub parses as its method's own, names a model that exists, and says true things of it."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from litft.cli import find_command
from litft.config.commands import Command
from litft.config.download import DownloadConfig
from litft.config.model import ModelConfig
from litft.config.parse import parse_config
from litft.config.prepare import PrepareConfig
from litft.config.run import AdapterRun, FullRun, LoRARun, RunConfig
from litft.methods.adapter import Adapter
from litft.methods.base import Full, Method, freeze
from litft.methods.lora import LoRA
from litft.model.load import DTYPES, build_empty

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "config_hub" / "finetune").rglob("*.yaml"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
MODELS = ("pythia-160m", "tiny-llama-1.1b", "llama-2-7b", "llama-3.1-8b", "mistral-7b", "falcon-7b", "debug")
KINDS: dict[str, type[RunConfig]] = {"full": FullRun, "lora": LoRARun, "adapter": AdapterRun}
MOMENT_BYTES = 2 * 4  # AdamW's two moments of one parameter, float32 at every precision


def parse(path: Path) -> Any:
    """Gives the run that a file describes."""
    return parse_config(KINDS[path.stem], ["--config", str(path)], "litft", "")


def header(path: Path) -> list[str]:
    """Gives the comment lines at the top, without their marks."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line[1:].strip() for line in lines[: lines.index("")]]


def commands(path: Path) -> list[tuple[Command, Any]]:
    """Gives each command of the header with the config that the command line would build from it."""
    found = []
    for line in header(path):
        if line.startswith("litft "):
            command, rest = find_command(shlex.split(line)[1:])
            module, _, kind = command.config.partition(":")
            found.append((command, parse_config(getattr(importlib.import_module(module), kind), rest, "litft", "")))
    return found


def model_name(config: RunConfig) -> str:
    """Gives ORG/NAME of the base."""
    return str(config.checkpoint_dir.relative_to("checkpoints"))


def test_every_model_has_every_method() -> None:
    wanted = {f"config_hub/finetune/{model}/{method}.yaml" for model in MODELS for method in KINDS}
    assert wanted == set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_config_parses_and_its_rows_fit_its_model(path: Path) -> None:
    config = parse(path)
    model = ModelConfig.from_name(model_name(config))
    assert config.train.max_seq_length <= model.block_size
    assert config.out_dir == Path("out") / path.stem / path.parent.name
    if isinstance(config, AdapterRun):
        assert config.adapter.start_layer < model.n_layer


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_headers_commands_lead_to_this_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = parse(path)
    (fetch, fetched), (prepare, prepared), (finetune, run), *rest = commands(path)
    assert fetch.words == ("download",)
    assert isinstance(fetched, DownloadConfig)
    assert fetched.convert
    assert fetched.target_dir == config.checkpoint_dir
    assert prepare.words == ("prepare", config.data_dir.name)
    assert isinstance(prepared, PrepareConfig)
    assert str(prepared.checkpoint_dir) == model_name(config)
    assert config.train.max_seq_length <= prepared.max_seq_length
    assert finetune.words == ("finetune", path.stem)
    assert run == config
    for other, second in rest:
        assert other.words == ("finetune", "adapter_v2")
        assert second.out_dir != config.out_dir


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_headers_numbers_are_those_of_the_model(path: Path) -> None:
    config, text = parse(path), "\n".join(header(path))
    model = build_empty(ModelConfig.from_name(model_name(config)))
    count = sum(parameter.numel() for parameter in model.parameters())
    size = DTYPES[config.precision].itemsize
    dtype = {2: "bf16", 4: "float32"}[size]
    assert f"weights alone: {in_bytes(count * size)} in {dtype} ({count:,} parameters)" in text
    assert "memory: not measured" in text
    if path.stem == "full":
        each = 2 * size + MOMENT_BYTES  # weight, gradient, moments
        assert f"training: {in_bytes(count * each)} before activations, {each} bytes a parameter" in text
        return
    method = build_method(config)
    method.apply(model)
    freeze(model, method)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert f"trained: {trained:,} parameters, in float32" in text


def build_method(config: RunConfig) -> Method:
    """Gives the method that a run describes."""
    if isinstance(config, LoRARun):
        return LoRA(config.lora)
    return Adapter(config.adapter) if isinstance(config, AdapterRun) else Full()


def in_bytes(count: int) -> str:
    """Writes bytes as the headers do."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_setting_says_why(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    settings = [line for line in lines if re.fullmatch(r"\s*\w+: .+", line) and not line.startswith("#")]
    places = ("checkpoint_dir:", "data_dir:", "out_dir:")
    assert [line for line in settings if "  # " not in line and not line.startswith(places)] == []
