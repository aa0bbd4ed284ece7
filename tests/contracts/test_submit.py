"""`litft submit init`: what is handed in is whole, portable, pinned, and makes the same data again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Refused
from test_docs import parse, shell_lines

from litft.cli import main
from litft.config.io import load_yaml
from litft.submit.init import without_places
from litft.submit.pins import pinned

FINAL = "out/lora/csv/final"
RUN_KEYS = {"checkpoint_dir", "data_dir", "out_dir", "resume", "overwrite", "dry_run"}


@pytest.fixture
def submission(project: Path) -> Path:
    """A submission of the project's LoRA run, in a folder of its own."""
    assert main(["submit", "init", "--checkpoint_dir", FINAL, "--weights_repo", "team/tiny"]) == 0
    return project / "submission"


def instructions(path: Path) -> list[tuple[str, str]]:
    """Gives the instructions of a Dockerfile; continued lines are one."""
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    found = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in found]


def litft_commands(folder: Path) -> list[list[str]]:
    """Gives every command of ours in the files, as words after `litft`."""
    found: list[list[str]] = []
    for name in ("Dockerfile", "Dockerfile.train"):
        for word, rest in instructions(folder / name):
            words = json.loads(rest) if word == "CMD" else shlex.split(rest)
            found += [words] if word in ("CMD", "RUN") else []
    lines = [line for line in (folder / "train.sh").read_text().splitlines() if not line.startswith("#")]
    found += [shlex.split(line) for line in lines]
    found += shell_lines(folder / "README.md")
    return [words[words.index("litft") + 1 :] for words in found if "litft" in words]


def test_the_dockerfiles_stand_on_what_is_there(submission: Path) -> None:
    for name in ("Dockerfile", "Dockerfile.train"):
        steps = instructions(submission / name)
        image = next(rest for word, rest in steps if word == "FROM")
        assert re.fullmatch(r"python:3\.\d+\.\d+-slim-bookworm", image)
        sources = [rest.split()[0] for word, rest in steps if word == "COPY"]
        assert sources and all((submission / source).exists() for source in sources)
        assert {word for word, _ in steps} <= {"FROM", "RUN", "WORKDIR", "COPY", "EXPOSE", "CMD"}
    evaluation = instructions(submission / "Dockerfile")
    assert ("EXPOSE", "80") in evaluation and ("RUN", "litft download --repo_id team/tiny") in evaluation
    served = json.loads(evaluation[-1][1])
    assert served[:4] == ["litft", "serve", "--checkpoint_dir", "team/tiny"]
    assert served[served.index("--port") + 1] == "80" and served[served.index("--host") + 1] == "0.0.0.0"


def test_its_commands_are_ours(submission: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(submission)  # for --config run.yaml
    commands = [parse(words).words for words in litft_commands(submission)]
    assert set(commands) >= {("serve",), ("download",), ("prepare", "csv"), ("finetune", "lora"), ("merge",)}


def test_it_holds_no_weights_no_places_and_no_secrets(submission: Path, project: Path) -> None:
    files = [path for path in submission.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".gguf", ".pyc")]
    assert sum(path.stat().st_size for path in files) < 5e6
    own = [path for path in files if "package" not in path.relative_to(submission).parts]
    for path in own:
        text = path.read_text(encoding="utf-8")
        assert str(project) not in text and str(Path.home()) not in text and "hf_" not in text, path


def test_versions_are_pinned(submission: Path) -> None:
    lines = (submission / "requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.!]+", line) for line in lines)
    named = {line.partition("==")[0]: line.partition("==")[2] for line in lines}
    trained = json.loads(Path(FINAL, "provenance.json").read_text())["versions"]
    assert named["torch"] == trained["torch"].partition("+")[0]
    assert {"tokenizers", "jsonargparse", "fastapi", "uvicorn", "typing-extensions"} <= named.keys()
    assert "litft" not in named and "pytest" not in named
    assert pinned((), {"Lightning_Fabric": "1.2.3+cu9"})["lightning-fabric"] == "1.2.3"


def test_the_run_is_the_run_elsewhere(submission: Path) -> None:
    before, after = load_yaml(Path(FINAL, "run.yaml")), load_yaml(submission / "run.yaml")
    assert {key for key in before if before[key] != after[key]} <= RUN_KEYS
    assert (after["checkpoint_dir"], after["data_dir"], after["out_dir"]) == ("acme/tiny", "data/csv", "out/csv")
    assert load_yaml(submission / "manifest.yaml")["files"] == load_yaml(Path("data/csv/manifest.yaml"))["files"]


def test_the_script_makes_the_same_data(submission: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of train.sh up to the training; the base is copied where it would be fetched."""
    (submission / "raw").mkdir()
    shutil.copyfile(project / "rows.csv", submission / "raw" / "rows.csv")
    shutil.copytree(project / "checkpoints" / "acme" / "tiny", submission / "checkpoints" / "acme" / "tiny")
    monkeypatch.chdir(submission)
    done = []
    for line in (submission / "train.sh").read_text().splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["sha256sum"]:
            done.append(words[2])
            for digest, name in (row.split() for row in Path(words[2]).read_text().splitlines()):
                assert hashlib.sha256(Path(name).read_bytes()).hexdigest() == digest, name
        elif words[:2] == ["litft", "prepare"]:
            assert main(words[1:]) == 0
    assert done == ["base.sha256", "raw.sha256", "data.sha256"]


def test_the_package_works_alone(submission: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(submission / "package"), "PYTHONDONTWRITEBYTECODE": "1"}
    code = "import litft, litft.cli, litft.recipes; print(litft.__file__); litft.cli.main(['finetune', '--help'])"
    made = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=submission
    )
    assert made.stdout.startswith(str(submission / "package")) and "adapter_v2" in made.stdout
    assert (submission / "package" / "litft" / "recipes" / "lora.py").is_file()
    told = (submission / "package" / "pyproject.toml").read_text(encoding="utf-8")
    ours = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    [report_files] = [line for line in ours.splitlines() if line.startswith('"litft.report" = ')]
    assert report_files in told  # or a run in the container would write no report


def test_data_that_cannot_be_prepared_again_is_mounted(project: Path) -> None:
    manifest = load_yaml(Path("data/csv/manifest.yaml"))
    Path("data/csv/manifest.yaml").write_text(json.dumps({**manifest, "paraphrases": ["Please: {instruction}"]}))
    assert main(["submit", "init", "--checkpoint_dir", FINAL]) == 0
    script = Path("submission/train.sh").read_text()
    assert "litft prepare" not in script and "ln -sfn ../data-in data/csv" in script
    assert not Path("submission/raw.sha256").exists() and "sha256sum --check data.sha256" in script
    page = Path("submission/README.md").read_text()
    assert "`data-in/` must hold train.pt and test.pt" in page and "/weights:ro" in page
    assert '"--checkpoint_dir", "/weights"' in Path("submission/Dockerfile").read_text()


def test_flags_of_the_server_and_pins_are_kept(project: Path) -> None:
    words = ["--weights_repo", "team/tiny", "--weights_revision", "abc123", "--base_revision", "def456"]
    words += ["--wrap_prompts", "true", "--precision", "bf16-true", "--base_image", "python:3.11@sha256:12ab"]
    assert main(["submit", "init", "--checkpoint_dir", FINAL, *words]) == 0
    dockerfile, script = Path("submission/Dockerfile").read_text(), Path("submission/train.sh").read_text()
    assert '"--precision", "bf16-true", "--wrap_prompts", "true"]' in dockerfile
    assert "--repo_id team/tiny --revision abc123" in dockerfile and dockerfile.startswith("FROM python:3.11@sha256:12")
    assert "--repo_id acme/tiny --revision def456" in script


def test_a_submission_is_replaced_only_when_asked(submission: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (submission / "old.txt").write_text("old")
    assert main(["submit", "init", "--checkpoint_dir", FINAL]) == 2
    assert "is not empty" in capsys.readouterr().err and (submission / "old.txt").exists()
    assert main(["submit", "init", "--checkpoint_dir", FINAL, "--overwrite", "true"]) == 0
    assert not (submission / "old.txt").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--checkpoint_dir", "acme/tiny"], "has no run.yaml"),
        (["--checkpoint_dir", "out/adapter/csv/final"], "is a run of adapter, whose prompts are no weights"),
        (["--checkpoint_dir", FINAL, "--data_dir", "nowhere"], "There is no manifest.yaml in nowhere"),
        (["--checkpoint_dir", FINAL, "--weights_repo", "one"], 'weights_repo is "one"; it must be ORG/NAME'),
        (["--checkpoint_dir", FINAL, "--weights_revision", "a"], "--weights_revision goes with --weights_repo"),
        (["--checkpoint_dir", FINAL, "--base_image", "a b\nRUN c"], "base_image is"),
        (["--checkpoint_dir", FINAL, "--out_dir", "rows.csv/a"], "is a file; name a folder"),
    ],
)
def test_mistakes_write_nothing(refused: Refused, words: list[str], said: str) -> None:
    refused(["submit", "init", *words], said)


def test_a_base_without_a_name_and_changed_data_are_refused(project: Path, refused: Refused) -> None:
    path = Path(FINAL, "provenance.json")
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "base": "/models/mine"}))
    refused(["submit", "init", "--checkpoint_dir", FINAL], "say what it is on the hub by --base_repo ORG/NAME")
    with Path("data/csv/test.pt").open("ab") as file:
        file.write(b"more")
    words = ["submit", "init", "--checkpoint_dir", FINAL, "--base_repo", "acme/tiny"]
    refused(words, "data/csv/test.pt is not what the run was trained on")


def test_places_of_a_machine_are_taken_out() -> None:
    given = {"a": "/home/me/rows.json", "b": ["~/x/y", "C:\\data\\z.json", "data/kept", "/no_think", "a / b"], "c": 1}
    assert without_places(given) == {"a": "rows.json", "b": ["y", "z.json", "data/kept", "/no_think", "a / b"], "c": 1}
