"""The recipes as functions, what they give back, and the notebook that shows them."""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_run import make_world

import litft
from litft import LLM, Result, finetune
from litft.cli import main
from litft.config.commands import COMMANDS
from litft.config.io import load_yaml
from litft.config.run import AdapterConfig, AdapterRun, FullRun, LoRAConfig, LoRARun
from litft.config.train import TrainConfig
from litft.errors import ConfigError

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "tutorials" / "quickstart.ipynb"
SHORT: dict[str, Any] = {"precision": "32-true", "max_steps": 3, "global_batch_size": 8, "micro_batch_size": 8}
KINDS = {"full": FullRun, "lora": LoRARun, "adapter": AdapterRun, "adapter_v2": AdapterRun}
quiet: Callable[[str], None] = lambda text: None  # noqa: E731


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def result(world: Path) -> Result:
    settings = {**SHORT, "train": TrainConfig(max_steps=3, global_batch_size=8, micro_batch_size=8)}
    for name in ("max_steps", "global_batch_size", "micro_batch_size"):
        del settings[name]
    return finetune.lora(
        world / "model",
        str(world / "data"),
        out_dir=world / "out",
        lora={"r": 2, "targets": ("q", "v")},
        eval={"interval": 1, "max_new_tokens": 3},
        report=quiet,
        **settings,
    )


def test_a_recipe_is_a_function(result: Result, world: Path) -> None:
    assert result.out_dir == world / "out" and result.summary["steps"] == 3
    settings = load_yaml(result.out_dir / "run.yaml")
    assert settings["lora"]["r"] == 2 and settings["lora"]["targets"] == ["q", "v"]
    assert settings["train"]["max_steps"] == 3 and settings["precision"] == "32-true"
    llm = result.load()
    assert isinstance(llm, LLM) and isinstance(llm.generate("a", max_new_tokens=2), str)


def test_what_a_run_came_to(result: Result) -> None:
    opened = Result(str(result.out_dir))
    assert opened.summary == json.loads((result.out_dir / "summary.json").read_text())
    losses = [line["loss"] for line in opened.metrics if line["loss"] is not None]
    with (result.out_dir / "logs" / "metrics.csv").open() as file:
        assert losses == [float(line["loss"]) for line in csv.DictReader(file) if line["loss"]]
    assert len(losses) == 3 and [line["step"] for line in opened.metrics if line["val_loss"]] == [0, 1, 2, 3]
    assert [sample["step"] for sample in opened.samples] == [0, 1, 2, 3]
    assert "val_loss" in repr(opened)


def test_a_notebook_shows_numbers_curve_and_answers(result: Result, tmp_path: Path) -> None:
    shown = result._repr_html_()
    assert f"{result.summary['val_loss']:.4g}" in shown
    lines = dict(re.findall(r"<polyline points='([^']*)'[^>]*/><text[^>]*>(\w+)</text>", shown))
    assert {name: len(points.split()) for points, name in lines.items()} == {"loss": 3, "val_loss": 4}
    shutil.copytree(result.out_dir, tmp_path / "other", ignore=shutil.ignore_patterns("final"))
    sample = {"step": 1, "row": 0, "prompt": "<script>", "answer": "a", "expected": "b"}
    (tmp_path / "other" / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    assert "&lt;script&gt;" in Result(tmp_path / "other")._repr_html_()
    assert "<script" not in Result(tmp_path / "other")._repr_html_()


def test_a_run_that_has_not_begun_is_empty(tmp_path: Path) -> None:
    empty = Result(tmp_path)
    assert (empty.summary, empty.metrics, empty.samples) == ({}, [], [])
    assert str(tmp_path) in empty._repr_html_()


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"max_stepz": 3}, r'key "max_stepz" in finetune\.lora\(\)\. Did you mean "max_steps"'),
    ({"train": {"max_stepz": 3}}, r'"train\.max_stepz".*Did you mean "train\.max_steps"'),
    ({"max_steps": "few"}, r'max_steps in finetune\.lora\(\) is "few"; it must be a whole number'),
    ({"max_steps": object()}, "must be a whole number"),
    ({"max_steps": 3, "train": {"max_steps": 3}}, "sets train.max_steps twice"),
    ({"train.max_steps": 0}, "train.max_steps is 0"),
    ({"sweep.lora.r": [1, 2]}, "for the command line"),
    ({"logger": ["tensorbord"]}, "tensorboard"),
]


@pytest.mark.parametrize(("settings", "sentence"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_is_one_sentence(settings: dict[str, Any], sentence: str, world: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        finetune.lora(world / "model", world / "data", out_dir=world / "never", report=quiet, **settings)
    assert not (world / "never").exists()


def test_a_notebook_starts_no_processes(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(ConfigError, match=r"devices x num_nodes is 2.*litft finetune lora in a terminal"):
        finetune.lora(world / "model", world / "data", devices=2, report=quiet)


def test_each_recipe_has_its_function_with_its_sections() -> None:
    recipes = {command.words[1] for command in COMMANDS if command.words[0] == "finetune"}
    assert recipes == set(finetune.__all__) == KINDS.keys()
    for name, kind in KINDS.items():
        signature = inspect.signature(getattr(finetune, name))
        hints = typing.get_type_hints(kind)
        sections = {field for field, value in hints.items() if hasattr(value, "__dataclass_fields__")}
        assert sections <= signature.parameters.keys()
        for section in sections:
            assert hints[section].__name__ in str(signature.parameters[section].annotation)
        assert list(signature.parameters)[:2] == ["checkpoint_dir", "data_dir"]
    assert LoRAConfig and AdapterConfig


def test_importing_it_is_light() -> None:
    text = "import sys, litft\nfrom litft import finetune\nassert litft.finetune is finetune\n"
    text += "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'numpy', 'jsonargparse'}))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


USER_SCRIPT = """
from pathlib import Path
from litft import LLM, Result, finetune
from litft.config.run import LoRAConfig

result = finetune.lora("model", Path("data"), lora=LoRAConfig(r=4), train={"max_steps": 3}, seed=1)
losses = [line["val_loss"] for line in result.metrics]
folder: Path = result.final
llm: LLM = result.load()
reveal_type(result)
reveal_type(llm.generate("a"))
finetune.lora("model")
finetune.lora("model", "data", lora=3)
result.finel
"""

# Only what a script touches is read, for time's sake.
SETTINGS = """
[mypy]
follow_imports = skip
[mypy-litft,litft.api,litft.finetune,litft.result,litft.config.*]
follow_imports = normal
"""


def test_an_editor_knows_the_types(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(USER_SCRIPT)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    words = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "script.py"]
    where = {**os.environ, "MYPYPATH": str(ROOT)}  # mypy follows no editable installation
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, env=where)
    said = [line for line in done.stdout.splitlines() if line.startswith("script.py")]
    kinds = [re.sub(r"^script.py:\d+: ", "", line) for line in said]
    assert len(kinds) == 5, done.stdout
    assert kinds[0].endswith('"litft.result.Result"') and kinds[1].endswith(('"str"', '"builtins.str"'))
    assert 'Missing positional argument "data_dir"' in kinds[2] and 'has incompatible type "int"' in kinds[3]
    assert '"Result" has no attribute "finel"' in kinds[4]


def test_types_are_shipped() -> None:
    assert re.search(r'^litft = \["py\.typed"', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert (Path(litft.__file__).parent / "py.typed").exists()


def cells() -> list[str]:
    """Gives the notebook's cells of code."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and not re.search(r"/(root|home|work|Users)/", NOTEBOOK.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)  # stripped
    return ["".join(cell["source"]) for cell in code]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"shell": shell}
    for cell in cells():
        lines = cell.replace("\\\n", " ").splitlines()
        lines = [re.sub(r"^!(.*)$", lambda found: f"shell({found[1]!r})", line) for line in lines]
        exec(compile("\n".join(lines), str(NOTEBOOK), "exec"), names)  # noqa: S102 - the notebook's own cell
    result = names["result"]
    assert isinstance(result, Result) and "<polyline" in result._repr_html_()
    assert result.summary["val_loss"] < result.summary["first_val_loss"]
    assert names["answer"] == "parrots"


def shell(line: str) -> None:
    """Does what `!litft ...` does in a notebook, in this process."""
    program, *words = shlex.split(line)
    assert program == "litft" and main(words) == 0
