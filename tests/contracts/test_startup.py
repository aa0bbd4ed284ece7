"""Help and mistakes are instant: descriptions import no torch, and every row of the table of commands is sound."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from litft.cli import find_command, main
from litft.config.commands import COMMANDS, GROUPS, Command, dataset_names
from litft.config.parse import parse_config

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
DOORS = [path for path in SCRIPTS if path.stem != "build_demo_model"]  # which makes a part of the project
RECIPES = sorted(path for path in (ROOT / "finetune").glob("*.py") if path.name != "__init__.py")
TORCH = ("torch", "lightning_fabric", "lightning", "safetensors", "tokenizers", "sentencepiece", "huggingface_hub")

# Runs in a fresh process: blocks packages, runs `litft WORDS` or a file, and says what was imported.
PROBE = """
import json, runpy, sys
blocked, file, *words = json.loads(sys.argv[1])
for name in blocked:
    sys.modules[name] = None  # importing it raises ImportError
code = 0
try:
    if file:
        sys.argv = [file, *words]
        runpy.run_path(file, run_name="__main__")
    else:
        from litft.cli import main
        code = main(words)
except SystemExit as stop:
    code = stop.code or 0
names = sorted({name.partition(".")[0] for name, module in sys.modules.items() if module is not None})
print(json.dumps([code, names]), file=sys.stderr)
"""


def probe(words: list[str], blocked: tuple[str, ...] = (), file: Path | None = None) -> tuple[int, set[str], str, str]:
    """Gives exit code, packages imported, and what stood on stdout and stderr."""
    told = json.dumps([blocked, str(file) if file else "", *words])
    done = subprocess.run([sys.executable, "-c", PROBE, told], capture_output=True, text=True, check=False)
    *said, last = done.stderr.splitlines()
    code, names = json.loads(last)
    return code, set(names), done.stdout, "\n".join(said)


@pytest.mark.parametrize("words", [["--help"], [], ["--version"], ["finetun"]], ids=" ".join)
def test_the_first_help_imports_next_to_nothing(words: list[str]) -> None:
    code, names, _, _ = probe(words)
    assert code == (2 if words == ["finetun"] else 0)
    assert not names & {*TORCH, "numpy", "jsonargparse", "yaml", "rich"}


@pytest.mark.parametrize(
    "words",
    [["finetune", "lora", "--help"], ["prepare", "--help"], ["list", "models"], ["completion", "bash"]],
    ids=" ".join,
)
def test_what_only_tells_imports_no_parser(words: list[str]) -> None:
    code, names, out, _ = probe(words)
    assert code == 0 and out
    assert not names & {*TORCH, "numpy", "rich", "tqdm"}
    assert words[-1] != "--help" or "jsonargparse" not in names


# What answers, exports and prepares; that it compiles nothing and steps nothing saves half of its start.
UNTRAINED = (
    "answer.prompt",
    "answer.chat",
    "serve.run",
    "evaluate.command",
    "export.merge",
    "export.hf",
    "data.shards",
)


def test_what_does_not_train_imports_neither_fabric_nor_a_compiler() -> None:
    text = "import sys\n" + "".join(f"import litft.{name}\n" for name in UNTRAINED)
    text += "print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    names = set(done.stdout.split())
    assert "torch" in names and "litft.serve.run" in names
    assert not names & {"torch._dynamo", "torch._inductor", "sympy", "lightning_fabric", "transformers", "rich"}


NEEDED = ["--checkpoint_dir", "x", "--data_dir", "y"]


@pytest.mark.parametrize(
    ("words", "content"),
    [
        (["finetune", "lora", "--help"], "--lora.r"),
        (["finetune", "lora", *NEEDED, "--print_config"], "max_seq_length: null"),
        (["finetune", "lora", *NEEDED, "--lora.rank", "4"], "--lora.rank"),
        (["generate", "--checkpoint_dir", "x"], "--instruction"),
        (["prepare", "csv", "--help"], "--columns"),
        (["download", "--help"], "--repo_id"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_help_and_mistakes_need_no_torch(words: list[str], content: str) -> None:
    code, _, out, err = probe(words, blocked=TORCH)
    is_mistake = content in ("--lora.rank", "--instruction")
    assert code == (2 if is_mistake else 0), err
    assert content in (err if is_mistake else out)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_help_of_a_recipe_needs_no_torch(recipe: Path) -> None:
    code, _, out, err = probe(["--help"], TORCH, recipe)
    assert code == 0, err
    assert out.startswith(f"usage: python {recipe}")
    assert probe(["--bogus", "1"], TORCH, recipe)[0] == 2


def test_descriptions_import_with_torch_blocked() -> None:
    folders = [ROOT / "litft" / name for name in ("config", "families")]
    files = sorted(path for folder in folders for path in folder.glob("*.py"))
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    assert len(modules) > 10
    text = f"import sys\nfor name in {TORCH}: sys.modules[name] = None\n"
    text += "".join(f"import {name}\n" for name in [*modules, "litft.errors"])
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words))
def test_a_row_of_the_table(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.words, "--help"]) == 0
    shown = capsys.readouterr()
    assert command.example in shown.out and shown.err == ""
    for path in (command.config, command.target):
        module, _, name = path.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words))
def test_an_example_of_the_table_is_one(command: Command) -> None:
    program, *words = shlex.split(command.example)
    found, rest = find_command(words)
    module, _, name = command.config.partition(":")
    assert (program, found) == ("litft", command)
    parse_config(getattr(importlib.import_module(module), name), rest, "litft", "")


def test_commands_stand_in_the_first_help_by_what_they_are_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {command.words[0] for command in COMMANDS} == {word for words in GROUPS.values() for word in words}
    assert [line[:-1] for line in lines if line.endswith(":") and line[0] != " "] == list(GROUPS)
    rows = [line for line in lines if line.startswith("  ")]
    column = rows[0].index("the whole way")
    assert all(len(line) <= 80 and line[column - 2 : column] == "  " and line[column] != " " for line in rows)
    for command in COMMANDS:
        assert any(" ".join(row.split()).startswith(command.words[0]) for row in rows), command
    assert sum(row.startswith("  prepare ") for row in rows) == 4  # DATASET, --list, mix, join


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words))
def test_each_help_fits_its_columns(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["help", *command.words]) == 0
    usage, _, *lines = capsys.readouterr().out.splitlines()
    assert usage.startswith(f"usage: litft {' '.join(command.words)}") and usage.endswith("[--flag value ...]")
    own = lines[lines.index("flags:") :]
    assert all(len(line) <= 100 or " " not in line.strip() for line in own)
    texts = [line for line in own if line.startswith(" " * 32)]
    assert all(line[32] != " " for line in texts)


def test_the_usage_names_what_must_be_given_and_flags_stand_in_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "lora", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: litft finetune lora --checkpoint_dir DIR --data_dir DIR [--flag value ...]\n")
    sections = ["flags:", "train: length and batches", "optim: optimizer and schedule", "eval: validation", "lora: "]
    places = [out.index(f"\n{heading}") for heading in sections]
    assert places == sorted(places)
    assert places[-1] < out.index("--lora.r N ") and "rank of each adapter (default: 8)" in out
    assert places[1] < out.index("--train.pack auto|packed|padded|shared_prefix") < places[2]
    assert "--precision bf16-true|bf16-mixed|32-true" in out and "(default: 0.9,0.95)" in out


def test_scripts_are_short() -> None:
    assert len(DOORS) > 8
    for script in DOORS:
        assert len(script.read_text(encoding="utf-8").splitlines()) <= 15, script.name


@pytest.mark.parametrize("script", DOORS, ids=lambda path: path.stem)
def test_a_script_is_a_door_to_a_command(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: litft ")


@pytest.mark.parametrize("name", ["download", "prepare_csv"])
def test_a_script_runs_as_a_process(name: str) -> None:
    words = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0 and "example: litft" in done.stdout and done.stderr == ""


def test_each_dataset_and_conversion_has_its_script() -> None:
    names = {path.stem for path in SCRIPTS}
    datasets = {f"prepare_{name}" for name in dataset_names()}
    assert datasets <= names
    assert {"download", "convert_hf_checkpoint", "convert_lit_checkpoint", "merge_lora"} <= names
