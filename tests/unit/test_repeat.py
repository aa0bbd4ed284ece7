"""`litft repeat`: a run that is run again comes to the same, bit for bit; one that would be another run is refused."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checked_world import make_checked_world, make_run, write_recipe

from litft.check.compared import table_lines
from litft.check.repeat import command, results
from litft.check.verify import read_provenance
from litft.cli import find_command, main
from litft.config.io import dump_yaml, load_yaml
from litft.config.parse import config_to_dict, parse_config
from litft.config.run import LoRARun
from litft.config.train import EvalConfig, TrainConfig
from litft.errors import FaultsFoundError

SHORT: dict[str, Any] = {
    "train": TrainConfig(global_batch_size=4, max_steps=3, save_interval=2),
    "eval": EvalConfig(interval=3, prompts=1, max_new_tokens=4),
}


def train(recipe: Any, out_dir: str, **settings: Any) -> None:
    recipe.main(make_run("lora", Path(), out_dir=Path(out_dir), **{**SHORT, **settings}), lambda message: None)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, the same one again, and one of another seed; a test works in a copy, from within it."""
    folder, before = tmp_path_factory.mktemp("made"), Path.cwd()
    os.chdir(folder)
    try:
        make_checked_world(Path())
        recipe = importlib.import_module("litft.recipes.lora")
        for name, settings in (("run", {}), ("same", {}), ("other", {"seed": 7})):
            train(recipe, name, **settings)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return Path()


def differing(run: str, again: str) -> list[str]:
    return [row.what for row in results(Path(run), Path(again)) if row.differs]


def test_the_same_run_has_the_same_results(here: Path) -> None:
    assert differing("run", "same") == []
    names = [row.what for row in results(Path("run"), Path("same"))]
    assert {"final/lora.safetensors", "metrics.csv: loss", "metrics.csv: grad_norm", "samples.jsonl"} <= set(names)
    assert not [name for name in names if "seconds" in name or "memory" in name or "per_second" in name]


def test_another_seed_has_others(here: Path) -> None:
    found = differing("run", "other")
    assert {"final/lora.safetensors", "metrics.csv: loss", "row_losses.csv"} <= set(found)
    assert "metrics.csv: step" not in found


def test_a_result_that_is_not_there_differs(here: Path) -> None:
    Path("same/final/lora.safetensors").unlink()
    assert differing("run", "same") == ["final/lora.safetensors"]


def test_a_difference_is_the_last_word(here: Path) -> None:
    with pytest.raises(FaultsFoundError, match=r"final/lora\.safetensors"):
        list(table_lines(results(Path("run"), Path("other"))))


def test_a_recipe_of_ones_own_is_run_as_a_file(here: Path) -> None:
    write_recipe(Path(), "mean")
    retell("run", recipe={"file": "mean.py", "sha256": "0", "imports": {}})
    told = read_provenance(Path("run"))
    assert command(Path("run"), told, Path("again"))[1:3] == ["mean.py", "--config"]
    Path("mean.py").rename("moved.py")
    assert command(Path("run"), told, Path("again"), recipe=Path("moved.py"))[1] == "moved.py"


def test_the_command_comes_to_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeat", "run"]) == 0
    said = capsys.readouterr()
    assert "final/lora.safetensors" in said.out and " 0 not, 0 could not be compared" in said.out
    assert "litft finetune lora --config run/run.yaml --out_dir run-again" in said.err


def test_the_words_are_those_of_the_run(here: Path) -> None:
    settings = load_yaml(Path("run/run.yaml"))
    Path("run/run.yaml").write_text(dump_yaml({**settings, "resume": "auto", "logger": ["csv", "tensorboard"]}))
    words = command(Path("run"), read_provenance(Path("run")), Path("again"))
    assert words[:3] == [sys.executable, "-m", "litft"]
    found, rest = find_command(words[3:])
    assert found.words == ("finetune", "lora")
    again = parse_config(LoRARun, rest, "", "")
    assert again.out_dir == Path("again") and again.resume is False and again.logger == ("csv",)
    changed = {"out_dir", "resume", "overwrite", "logger"}
    assert {name: value for name, value in config_to_dict(again).items() if name not in changed} == {
        name: value for name, value in settings.items() if name not in changed
    }


def retell(run: str, **values: Any) -> None:
    path = Path(run, "final", "provenance.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def append(path: str) -> None:
    with Path(path).open("ab") as file:
        file.write(b"\n")


def ended_by_the_clock() -> None:
    path = Path("run/summary.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "stopped_by": "max_time"}))


def on_two_machines() -> None:
    Path("run/run.yaml").write_text(dump_yaml({**load_yaml(Path("run/run.yaml")), "num_nodes": 2}))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda: append("talk/train.pt"), "train.pt changed since run, so it would be another run"),
        (lambda: append("model/lit_model.safetensors"), "base changed since run"),
        (lambda: retell("run", tokenizer_hash="0"), "tokenizer changed since run"),
        (
            lambda: retell("run", recipe={"file": "litft.recipes.lora", "sha256": "0", "imports": {}}),
            "recipe litft.recipes.lora changed since run",
        ),
        (lambda: retell("run", recipe={"file": "mine.py", "sha256": "0", "imports": {}}), "mine.py, is not here"),
        (lambda: Path("run/summary.json").unlink(), "run has not ended"),
        (lambda: Path("run/run.yaml").unlink(), "run is no run"),
        (ended_by_the_clock, "was ended by max_time"),
        (on_two_machines, "ran on 2 machines"),
    ],
)
def test_what_would_be_another_run_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], change: Callable[[], object], sentence: str
) -> None:
    change()
    assert main(["repeat", "run"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1 and not Path("run-again").exists()


def test_a_run_is_not_repeated_over_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeat", "run", "--out_dir", "run"]) == 2
    assert "is the run itself" in capsys.readouterr().err
