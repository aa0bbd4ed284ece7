"""Keys and tokens stand nowhere: not in what is printed, not in what is written, not in the words of a process.

The files of each logger are searched in test_loggers.py, downloads that succeed in test_download.py, and what an
endpoint may repeat in test_curate_endpoint.py. Here all else works side by side, and fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import huggingface_hub.constants
import pytest
from chat_server import ChatServer
from conftest import FINETUNE, SHORT, STEPS
from hub_server import HubServer
from serving import serving

from litft.checkpoint.download import download
from litft.cli import main
from litft.config.commands import COMMANDS
from litft.config.download import DownloadConfig
from litft.config.leaves import list_leaves
from litft.errors import CheckpointError
from litft.terminal.bars import say
from litft.terminal.shown import without_secrets

NAMES = (
    "HF_TOKEN",
    "OPENAI_API_KEY",
    "WANDB_API_KEY",
    "MLFLOW_TRACKING_PASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "SERVER_KEY",
)
SECRETS = {name: f"quince-{number}-medlar" for number, name in enumerate(NAMES)}
PASSWORD = "loquat-in-an-address"


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets them as a user's shell does."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def assert_nowhere(folder: Path, *told: str) -> None:
    """Searches what was told and every file; and that there was something to search."""
    for secret in (*SECRETS.values(), PASSWORD):
        assert not [text for text in told if secret in text], secret
        assert not [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
        assert not [word for word in sys.argv if secret in word]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="Linux shows a process its own words")
@pytest.mark.parametrize("words", [["--access_token", "hf_medlar"], ["--access_token=hf_medlar"]])
def test_a_token_that_was_typed_does_not_stand_in_the_title_of_the_process(words: list[str]) -> None:
    code = """
import sys
from litft.config.download import DownloadConfig
from litft.config.parse import parse_config
config = parse_config(DownloadConfig, sys.argv[1:], "litft download", "")
print(config.access_token, open("/proc/self/cmdline").read())
"""
    process = [sys.executable, "-c", code, "--repo_id", "acme/tiny", *words, "--convert"]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # the code beside this file
    token, _, title = subprocess.run(process, capture_output=True, text=True, check=True, env=here).stdout.partition(
        " "
    )
    assert token == "hf_medlar"
    assert "acme/tiny" in title and "*********" in title and "medlar" not in title


@pytest.mark.usefixtures("secrets")
def test_no_command_writes_or_prints_a_key(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run, its report, a judge that is content and one that refuses the key, an address that nobody answers at."""
    assert main(["finetune", "lora", *FINETUNE, *SHORT, *STEPS, "--out_dir", "out/again"]) == 0
    rows = [{"prompt": "a", "answer": text} for text in ("b", "c")]
    for name, row in zip(("a.jsonl", "b.jsonl"), rows, strict=True):
        Path(name).write_text(json.dumps(row) + "\n")
    replies = iter(["5", "5", "[[A]]", "[[A]]"])
    judging = ["judge", "--a", "a.jsonl", "--b", "b.jsonl", "--model", "m", "--api_key_env", "OPENAI_API_KEY"]
    rating = ["curate", "judge", "data/csv", "--model", "m", "--api_key_env", "OPENAI_API_KEY"]
    rating += ["--checkpoint_dir", "acme/tiny", "--retries", "0"]
    with ChatServer(lambda prompt: next(replies, "[[A]]")) as server:
        main([*rating, "--endpoint", server.url, "--destination_path", "data/rated"])
        main([*judging, "--judge", server.url, "--out_dir", "judged"])
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {SECRETS['OPENAI_API_KEY']}"}
    said = {"error": {"message": f"{SECRETS['OPENAI_API_KEY']} is no key of ours"}}
    with ChatServer(lambda prompt: (401, {}, said)) as server:
        assert main([*judging, "--judge", server.url, "--out_dir", "refused"]) == 2
        assert main([*rating, "--endpoint", server.url, "--destination_path", "data/refused"]) == 2
    assert main([*rating, "--endpoint", "http://127.0.0.1:9", "--destination_path", "data/none"]) == 2
    assert main([*rating, "--endpoint", f"http://me:{PASSWORD}@127.0.0.1:9", "--destination_path", "data/none"]) == 2
    assert main([*judging, "--judge", f"http://127.0.0.1:9/v1?key={PASSWORD}", "--out_dir", "none"]) == 2
    told = capsys.readouterr()
    assert "is not accepted" in told.err and "a user name, a password" in told.err
    assert_nowhere(project, *told)


@pytest.mark.usefixtures("secrets")
def test_a_server_keeps_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = SECRETS["SERVER_KEY"]
    body = {"model": "quince", "prompt": "a", "max_tokens": 1}
    with serving(key=key) as running:
        for sent in (key, key + "x", ""):
            reply = running.post("/v1/completions", body, headers={"Authorization": f"Bearer {sent}"})
            assert reply.status == (200 if sent == key else 401)
            assert key not in reply.content.decode()
        told = list(running.said)
    assert_nowhere(tmp_path, *told, *capsys.readouterr())


@pytest.mark.usefixtures("secrets")
def test_a_download_keeps_its_token_and_the_password_of_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token, told = SECRETS["HF_TOKEN"], list[str]()
    (tmp_path / "repository").mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with HubServer({"org/tiny": tmp_path / "repository"}, token=token) as hub:
        for address, given in (
            (hub.url, token[:-1]),
            (hub.url.replace("//", f"//me:{PASSWORD}@"), "wrong"),
            (f"http://me:{PASSWORD}@127.0.0.1:9/new", token),
        ):
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
            config = DownloadConfig(repo_id="org/tiny", access_token=given, checkpoint_dir=tmp_path, convert=False)
            try:
                download(config, told.append)
            except CheckpointError as error:
                told.append(str(error))
            told.append(repr(config))
    assert "There is no model org/tiny" in told[0] and "There is no model org/tiny at http://***@127" in told[2]
    assert [line for line in told if "Could not fetch org/tiny at http://***@127.0.0.1:9/new" in line], told
    assert_nowhere(tmp_path, *told, *capsys.readouterr())


def test_no_flag_takes_a_key_but_by_the_name_of_its_variable() -> None:
    """What stands behind a flag stands in the list of processes, and in the shell's history."""
    found = {
        (" ".join(command.words), name)
        for command in COMMANDS
        for name, leaf in list_leaves(
            getattr(import_module(command.config.partition(":")[0]), command.config.partition(":")[2])
        )
        if not leaf.secret and any(word in name for word in ("key", "secret", "password", "access_token"))
    }
    assert {name for _, name in found} <= {"api_key_env"}, found


def test_a_token_of_a_wrong_kind_is_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(f"repo_id: org/name\naccess_token: [{PASSWORD}]\n")
    assert main(["download", "--config", str(tmp_path / "a.yaml")]) == 2
    assert PASSWORD not in (said := capsys.readouterr().err) and "access_token in" in said and '"***"' in said


def test_a_token_is_not_printed_with_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "--repo_id", "org/name", "--access_token", PASSWORD, "--print_config"]) == 0
    told = capsys.readouterr()
    assert "repo_id: org/name" in told.out and PASSWORD not in told.out + told.err


@pytest.mark.usefixtures("secrets")
def test_what_is_said_passes_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    """The last door: whatever a library says, and whoever repeats it."""
    for secret in SECRETS.values():
        say(f"it failed: {secret} is wrong")
    say(f"https://me:{PASSWORD}@example.com/ is away")
    assert_nowhere(Path("."), told := capsys.readouterr().err)
    assert told.count("***") == len(SECRETS) + 1 and "https://***@example.com/ is away" in told
    assert without_secrets("mail me@example.com at 10:00 // now") == "mail me@example.com at 10:00 // now"
