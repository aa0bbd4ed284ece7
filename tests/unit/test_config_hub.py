"""Every config of config_hub parses as its method's own, names a model that exists, and says true things of it."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
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
from litft.data.sources import SOURCES
from litft.families import FAMILIES
from litft.submit.approved import judge_base

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "config_hub" / "finetune").rglob("*.yaml"))
NEURIPS = [ROOT / "config_hub" / "neurips" / f"{name}.yaml" for name in ("4090", "a100")]
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
KINDS: dict[str, type[RunConfig]] = {"full": FullRun, "lora": LoRARun, "qlora": LoRARun, "adapter": AdapterRun}
CLOSE = 0.02  # of a forecast, between versions of torch


def load_builder() -> Any:
    """Gives `config_hub/maker/build_config_hub.py` as a module."""
    sys.path.insert(0, str(ROOT / "config_hub" / "maker"))
    try:
        return importlib.import_module("build_config_hub")
    finally:
        sys.path.remove(str(ROOT / "config_hub" / "maker"))


BUILDER = load_builder()


def parse(path: Path) -> Any:
    """Gives the run that a file describes."""
    return parse_config(KINDS.get(path.stem, LoRARun), ["--config", str(path)], "litft", "")


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


def test_the_files_are_those_that_the_script_writes() -> None:
    """And every family has some, but for one of 128 experts a block, whose plan takes too long."""
    written = BUILDER.hub_files()
    assert {path: path.read_text(encoding="utf-8") for path in written} == written
    assert set(FILES) - set(written) == set((ROOT / "config_hub" / "finetune" / "debug").glob("*.yaml"))
    assert {ModelConfig.from_name(base.name).family for base in BUILDER.BASES} == set(FAMILIES) - {"qwen3_moe"}
    assert (ROOT / "config_hub" / "README.md").read_text(encoding="utf-8") == BUILDER.table_page()
    assert BUILDER.table(BUILDER.IN_README) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_number_of_the_tables_is_that_of_the_plan() -> None:
    base = next(base for base in BUILDER.BASES if base.folder == "pythia-160m")
    known = BUILDER.numbers()["pythia-160m", "lora", "", 1]
    assert BUILDER.forecast(base, "lora", "", 1) == pytest.approx(known, rel=CLOSE)


def test_a_card_is_told_to_hold_only_what_fits() -> None:
    """By the numbers themselves, not by the script's choice of rows."""
    known = BUILDER.numbers()
    for base in BUILDER.BASES:
        for kind in KINDS:
            for card in BUILDER.CARDS:
                if found := BUILDER.fit(base, kind, card):
                    assert known[base.folder, kind, found.flags, 1] <= found.n_bytes <= BUILDER.USED * card * 1e9
                else:
                    sizes = [n for key, n in known.items() if key[:2] == (base.folder, kind) and key[3] == 1]
                    assert min(sizes) > BUILDER.USED * card * 1e9


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
    assert finetune.words == ("finetune", "lora" if path.stem == "qlora" else path.stem)
    assert run == config
    for other, second in rest:
        assert other.words == ("finetune", "adapter_v2")
        assert second.out_dir != config.out_dir


@pytest.mark.parametrize("path", NEURIPS, ids=lambda path: path.stem)
def test_an_entry_to_the_challenge_is_what_won_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = parse(path)
    assert judge_base(model_name(config))[0] == "pass"
    assert (config.lora.r, config.lora.alpha, config.train.neftune_alpha, config.optim.clip_norm) == (128, 256, 5, 0.3)
    assert config.train.max_time
    assert config.optim.schedule == "cosine"
    words = [command.words for command, _ in commands(path)]
    assert words == [("download",), ("prepare", "mix"), ("finetune", "lora"), ("submit", "init")]
    mixed, submitted = commands(path)[1][1], commands(path)[3][1]
    assert mixed.destination_path == config.data_dir
    assert submitted.checkpoint_dir == config.out_dir / "final"


def test_the_data_of_an_entry_is_prepared_before_it_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    path = ROOT / "config_hub" / "neurips" / "mix.yaml"
    found = commands(path)
    mix = found.pop()[1]
    prepared = {f"data/{command.words[1]}" for command, _ in found if command.words[0] == "prepare"}
    assert prepared == set(mix.data_dirs)
    bases = {str(given.checkpoint_dir) for command, given in found if command.words[0] == "prepare"}
    assert bases == {model_name(parse(NEURIPS[0]))} == {model_name(parse(NEURIPS[1]))}
    assert {SOURCES[name.removeprefix("data/")].origin for name in mix.data_dirs} == {"human"}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_setting_says_why(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    settings = [line for line in lines if re.fullmatch(r"\s*\w+: .+", line) and not line.startswith("#")]
    places = ("checkpoint_dir:", "data_dir:", "out_dir:")
    assert [line for line in settings if "  # " not in line and not line.startswith(places)] == []
