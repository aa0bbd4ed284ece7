"""`litft list` and `litft copy-recipe`."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import make_world

from litft.cli import main
from litft.config.contents import CopyRecipeConfig, ListConfig, ListModelsConfig
from litft.config.model import named_models
from litft.contents.listing import list_methods, list_models, list_styles, parameters
from litft.contents.recipes import copy_recipe
from litft.data.sources import SOURCES
from litft.errors import ConfigError
from litft.model.load import build_empty
from litft.text.styles import STYLES

ROOT = Path(__file__).parents[2]
# One of each way to count: experts, a shared table, learned places, ALiBi, an MLP without a gate, grouped queries.
COUNTED = (
    "mistralai/Mixtral-8x7B-v0.1",
    "Qwen/Qwen2.5-0.5B",
    "facebook/opt-125m",
    "mosaicml/mpt-7b",
    "tiiuae/falcon-180B",
    "mistralai/Mistral-7B-v0.1",
)


def models(**told: object) -> list[list[str]]:
    """Gives the cells of the rows, without their head."""
    return [line.split() for line in list_models(ListModelsConfig(**told), lambda text: None)][1:]  # type: ignore[arg-type]


@pytest.mark.parametrize("repo_id", COUNTED)
def test_a_size_is_that_of_the_model_but_for_norms_and_biases(repo_id: str) -> None:
    config = named_models()[repo_id]
    with torch.device("meta"):
        real = sum(parameter.numel() for parameter in build_empty(config).parameters())
    assert parameters(config) == pytest.approx(real, rel=2e-3) and parameters(config) <= real


def test_every_named_model_has_its_row_and_filters_leave_what_they_say() -> None:
    assert sorted(row[0] for row in models()) == sorted(named_models())
    found = models(match="MISTRAL", max_size=8)
    assert found and all("mistral" in " ".join(row).lower() and float(row[2]) <= 8 for row in found)
    assert {row[0] for row in found} < {row[0] for row in models(match="mistral")}
    assert all(row[1] == "qwen3" and float(row[2]) >= 8 for row in models(family="qwen3", min_size=8))
    with pytest.raises(ConfigError, match=r'family is "qwen"; the families are .* Did you mean "qwen'):
        models(family="qwen")
    with pytest.raises(ConfigError, match=r"No row fits what was asked for \(match zzz\)"):
        models(match="zzz")


def test_styles_and_methods_have_their_rows() -> None:
    styles = list(list_styles(ListConfig(), print))[1:]
    assert [line.split()[0] for line in styles] == sorted(STYLES)
    (line,) = (line for line in styles if line.startswith("phi-2 "))
    assert line.endswith("Instruct: {instruction}\\nOutput:\n")
    methods = {line.split()[0] for line in list(list_methods(ListConfig(), print))[1:]}
    assert methods == {path.stem for path in (ROOT / "finetune").glob("[a-z]*.py")}


@pytest.mark.parametrize("what", ["models", "styles", "methods"])
def test_a_list_fits_its_columns(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4 and all(len(line) <= 100 for line in lines)


def test_datasets_are_those_of_prepare_and_can_be_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "datasets"]) == main(["prepare", "--list"]) == 0
    both = capsys.readouterr().out.splitlines()
    assert both[: len(both) // 2] == both[len(both) // 2 :]
    assert main(["list", "datasets", "--match", "CC BY-SA"]) == 0
    found = [line for line in capsys.readouterr().out.splitlines() if line[0] != " "][1:]
    assert 0 < len(found) < len(SOURCES) and all("CC BY-SA" in line for line in found)
    assert main(["list", "datasets", "--match", "zzz"]) == 2
    assert "No dataset has zzz" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["full", "lora", "adapter", "adapter_v2"])
def test_a_copy_is_the_recipe(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    assert main(["copy-recipe", method, str(path)]) == 0
    assert path.read_bytes() == (ROOT / "finetune" / f"{method}.py").read_bytes()
    assert f"Next: python {path} --help" in capsys.readouterr().err
    path.write_text("changed", encoding="utf-8")
    assert main(["copy-recipe", method, str(path)]) == 2
    assert f"{path} exists already" in capsys.readouterr().err and path.read_text(encoding="utf-8") == "changed"


def test_a_copy_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "no" / "mine.py", "is no folder"), (tmp_path / "mine.txt", "name a Python file")):
        with pytest.raises(ConfigError, match=said):
            copy_recipe("lora", CopyRecipeConfig(path=path), print)


def test_a_changed_copy_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my_lora.py"
    assert main(["copy-recipe", "lora", "my_lora.py"]) == 0
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("return cross_entropy(logits, targets)", "return 0 * cross_entropy(logits, targets)"))
    words = ["--checkpoint_dir", "model", "--data_dir", "data", "--precision", "32-true", "--max_steps", "1"]
    for dry in ([], ["--dry_run", "--out_dir", "planned"]):
        monkeypatch.setattr(sys, "argv", [str(path), *words, *dry])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(path), run_name="__main__")
        assert stop.value.code == 0
        said = capsys.readouterr().err
        assert ("held-out 0.0000 -> 0.0000" in said) == (not dry) and ("of tensors at the peak" in said) == bool(dry)
    assert (tmp_path / "out" / "lora" / "data" / "final").is_dir() and not (tmp_path / "planned").exists()
    shutil.rmtree(tmp_path / "out")


def test_a_shipped_file_is_found_from_any_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "lora", "--config", "config_hub/neurips/4090.yaml", "--print_config"]) == 0
    assert "checkpoint_dir: checkpoints/mistralai" in capsys.readouterr().out
    assert main(["finetune", "lora", "--config", "config_hub/neurips/409.yaml"]) == 2
    assert 'Did you mean "config_hub/neurips/4090.yaml"?' in capsys.readouterr().err


def test_configs_are_listed_by_the_name_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "configs", "--match", "llama-2-7b/qlora"]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("config_hub/finetune/llama-2-7b/qlora.yaml  QLoRA on Llama 2 7B")


def test_a_copy_without_the_demo_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "litft.demo", None)  # as in the package of a submission
    monkeypatch.delitem(sys.modules, "litft.demo.run", raising=False)
    assert main(["demo"]) == 2
    assert "This copy of litft is without litft.demo" in capsys.readouterr().err
