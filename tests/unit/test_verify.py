"""`litft verify` and what runs write down of themselves: each thing that changes is named, and nothing else is."""

from __future__ import annotations

import getpass
import importlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checked_world import make_checked_world, make_run, write_recipe

from litft.cli import main
from litft.config.answer import MergeConfig
from litft.config.io import dump_yaml, load_yaml
from litft.config.train import EvalConfig, TrainConfig
from litft.export.merge import merge
from litft.train import code
from litft.train.code import own_code, recipe_code, sha256_of_code

SHORT: dict[str, Any] = {
    "train": TrainConfig(global_batch_size=4, max_steps=4, save_interval=2),
    "eval": EvalConfig(interval=4, prompts=1, max_new_tokens=4),
}


def silent(message: str) -> None:
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with a run by litft's own recipe, merged; a test works in a copy, from within it."""
    folder = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_checked_world(Path())
        recipe = importlib.import_module("litft.recipes.lora")
        recipe.main(make_run("lora", Path(), out_dir=Path("run"), **SHORT), silent)
        merge(MergeConfig(checkpoint_dir=Path("run/final")))
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path()


def verify(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    """Gives the exit code, the lines that are not equal, and what was said."""
    ended = main(["verify", *words])
    said = capsys.readouterr()
    lines = [line for line in said.out.splitlines()[1:-1] if not line.rstrip().endswith(" yes")]
    return ended, lines, said.out + said.err


def edit(path: str) -> None:
    """Changes one byte of a file."""
    content = bytearray(Path(path).read_bytes())
    content[-1] ^= 1
    Path(path).write_bytes(content)


def told(run: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(Path(run, "final", "provenance.json").read_text())
    return values


def retell(run: str, **values: Any) -> None:
    Path(run, "final", "provenance.json").write_text(json.dumps({**told(run), **values}))


def test_a_run_is_what_it_was(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended, lines, said = verify(capsys, "run")
    assert (ended, lines) == (0, []), said
    for what in ("step-00000002/optimizer", "final/lora", "base", "train.pt", "tokenizer", "recipe litft.recipes.lora"):
        assert f"\n{what}" in said, what
    assert "\nmerged/lit_model.safetensors" in said and "\ntorch " in said and " 0 not, 0 could not" in said


def settings_of_another_run() -> None:
    Path("run/run.yaml").write_text(dump_yaml({**load_yaml(Path("run/run.yaml")), "seed": 7}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: edit("run/step-00000002/trainable.safetensors"), "step-00000002/trainable.safetensors"),
        (lambda: edit("run/step-00000002/state.yaml"), "step-00000002/state.yaml"),
        (lambda: edit("run/final/lora.safetensors"), "final/lora.safetensors"),
        (lambda: Path("run/final/lora.safetensors").unlink(), "final/lora.safetensors"),
        (lambda: edit("run/merged/lit_model.safetensors"), "merged/lit_model.safetensors"),
        (lambda: edit("model/lit_model.safetensors"), "base"),
        (lambda: edit("talk/train.pt"), "train.pt"),
        (lambda: edit("talk/test.pt"), "test.pt"),
        (lambda: retell("run", tokenizer_hash="0" * 64), "tokenizer"),
        (lambda: retell("run", recipe={**told("run")["recipe"], "sha256": "0" * 64}), "recipe litft.recipes.lora"),
        (lambda: retell("run", litft={**told("run")["litft"], "version": "0.0.1"}), "litft"),
        (lambda: retell("run", litft={**told("run")["litft"], "sha256": "0" * 64}), "litft's code"),
        (lambda: retell("run", versions={**told("run")["versions"], "torch": "1.0"}), "torch"),
        (settings_of_another_run, "run.yaml"),
    ],
)
def test_what_changed_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], change: Callable[[], object], named: str
) -> None:
    change()
    ended, lines, said = verify(capsys, "run")
    assert ended == 1 and len(lines) == 1 and lines[0].startswith(f"{named} ") and " NO" in lines[0], said
    assert f"differ: {named}." in said


def test_what_cannot_be_looked_at_is_no_fault(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move("model", "elsewhere")
    ended, lines, said = verify(capsys, "run")
    assert ended == 0 and [line.split()[0] for line in lines] == ["base", "tokenizer"] and "not found in model" in said
    assert verify(capsys, "run", "--base", "elsewhere")[:2] == (0, [])


def test_a_result_that_was_moved_away_knows_its_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.move("run/final", "kept")
    assert verify(capsys, "kept")[:2] == (0, [])
    edit("kept/prompt_style.yaml")
    assert verify(capsys, "kept")[0] == 1


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("talk", "train.pt"),
        ("talk", "manifest.yaml"),
        ("run/merged", "tokenizer.json"),
        ("run/step-00000002", "rng.safetensors"),
        ("model", "lit_model.safetensors"),
    ],
)
def test_other_folders_know_their_files(here: Path, capsys: pytest.CaptureFixture[str], folder: str, file: str) -> None:
    assert verify(capsys, folder)[:2] == (0, [])
    edit(f"{folder}/{file}")
    ended, lines, said = verify(capsys, folder)
    assert ended == 1 and lines[0].startswith(file), said


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname"])
def test_no_file_of_another_folder_is_read(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    Path("run/secret").write_text("")
    retell("run", files={name: "0" * 64})
    ended, lines, _ = verify(capsys, "run/final")
    assert ended == 1 and lines[0].startswith(name) and "it was not read" in lines[0]


def test_runs_of_older_versions_say_less(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {name: told("run")[name] for name in ("base", "data", "tokenizer_hash", "sha256", "versions")}
    Path("run/final/provenance.json").write_text(json.dumps(kept))
    ended, lines, said = verify(capsys, "run")
    assert ended == 0 and {line.split()[0] for line in lines} == {"final/*", "recipe", "litft", "litft's", "run.yaml"}
    assert "older version" in said


def test_a_run_that_broke_off_is_known_by_its_start(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("run/final")
    ended, lines, _ = verify(capsys, "run")
    assert ended == 0 and len(lines) == 1 and "the run has not ended" in lines[0]
    edit("talk/train.pt")
    assert verify(capsys, "run")[0] == 1


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_of_which_nothing_is_known_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    Path("empty").mkdir()
    ended, _, said = verify(capsys, folder)
    assert ended == 2 and folder in said and said.count("\n") == 1


def test_a_run_writes_down_what_made_it(made: Path) -> None:
    values = told(str(made / "run"))
    assert values["sha256"].keys() == {"base", "train.pt", "test.pt"}
    assert values["recipe"]["file"] == "litft.recipes.lora" and values["litft"] == own_code()
    assert values["seed"] == 1337 and values["data_seed"] == 42 and values["config"]["lora"]["r"] == 2
    assert values["numerics"] == {
        "precision": "32-true",
        "quantize": "none",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "attention": "grouped",
        "compiled": False,
        "deterministic": False,
        "float32_products": "highest",
        "processes": 1,
    }
    start = json.loads((made / "run" / "start.json").read_text())["provenance"]
    assert start == {name: value for name, value in values.items() if name != "files"}


@pytest.mark.parametrize("other", [True, False])
def test_a_run_that_goes_on_with_another_recipe_says_so(here: Path, other: bool) -> None:
    shutil.rmtree("run/final")
    Path("run/summary.json").unlink()
    start = json.loads(Path("run/start.json").read_text())
    if other:
        start["provenance"]["recipe"]["sha256"] = "0" * 64
        Path("run/start.json").write_text(json.dumps(start))
    said: list[str] = []
    recipe = importlib.import_module("litft.recipes.lora")
    recipe.main(make_run("lora", Path(), out_dir=Path("run"), resume="auto", **SHORT), said.append)
    assert told("run")["changed_since_start"] == (["recipe"] if other else [])
    assert any("Warning: the run goes on with another recipe than it began with" in each for each in said) is other


def test_no_machine_or_person_is_told(made: Path) -> None:
    text = (made / "run" / "final" / "provenance.json").read_text()
    for private in (str(made), str(Path.cwd()), str(Path.home()), sys.prefix, socket.gethostname(), getpass.getuser()):
        assert private not in text, private


def test_a_recipe_of_ones_own_is_known_with_what_it_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path, "mean")
    (tmp_path / "losses_of_mine.py").write_text("weight = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("losses_of_mine")
    first = recipe_code(recipe)
    assert first["file"] == "mean.py" and list(first["imports"]) == ["losses_of_mine.py"]
    (tmp_path / "losses_of_mine.py").write_text("weight = 3\n")
    assert recipe_code(recipe)["imports"] != first["imports"]
    recipe.write_text(recipe.read_text() + "\n")
    assert recipe_code(recipe)["sha256"] != first["sha256"]
    monkeypatch.chdir("/")
    assert recipe_code(recipe)["file"] == str(recipe.relative_to("/"))
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert recipe_code(recipe)["file"] == "mean.py"  # no folder of the machine
    assert recipe_code(tmp_path / "none.py")["file"] is None


def test_code_is_the_same_from_a_checkout_and_installed(tmp_path: Path) -> None:
    for folder in ("litft/train", "finetune", "site/litft/train", "site/litft/recipes"):
        (tmp_path / folder).mkdir(parents=True)
    for package in ("litft", "site/litft"):
        (tmp_path / package / "train" / "loop.py").write_text("loop")
    for recipes in ("finetune", "site/litft/recipes"):
        (tmp_path / recipes / "lora.py").write_text("lora")
    checkout = sha256_of_code(tmp_path / "litft", tmp_path / "finetune")
    assert checkout == sha256_of_code(tmp_path / "site" / "litft", tmp_path / "site" / "litft" / "recipes")
    (tmp_path / "finetune" / "lora.py").write_text("other")
    assert checkout != sha256_of_code(tmp_path / "litft", tmp_path / "finetune")


def test_a_checkout_tells_its_commit(tmp_path: Path) -> None:
    (tmp_path / "finetune").mkdir()
    assert code._checkout(tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "finetune" / "lora.py").write_text("one\n")
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = code._checkout(tmp_path)
    assert len(clean["commit"]) == 40 and clean["diff_sha256"] is None
    (tmp_path / "finetune" / "lora.py").write_text("two\n")
    changed = code._checkout(tmp_path)
    assert changed["commit"] == clean["commit"] and len(changed["diff_sha256"]) == 64
