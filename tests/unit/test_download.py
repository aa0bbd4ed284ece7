"""Downloads from a hub of our own on 127.0.0.1, in processes of their own, as the client reads HF_ENDPOINT once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from litft.checkpoint.download import wanted_files
from litft.config.download import DownloadConfig
from litft.errors import ConfigError

ROOT = Path(__file__).parents[2]
TOKEN = "hf_quitesecret"
CONFIG = {
    "model_type": "llama",
    "vocab_size": 8,
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "tie_word_embeddings": True,
}
SHARDED = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
DRIVER = """
import json, sys
from pathlib import Path
from litft.checkpoint.download import download
from litft.config.download import DownloadConfig
from litft.errors import LitftError
answers = []
for call in json.loads(sys.argv[1]):
    said = []
    try:
        folder = download(DownloadConfig(**call), said.append)
        answers.append({"said": said, "files": sorted(path.name for path in folder.iterdir() if path.is_file())})
    except LitftError as error:
        answers.append({"error": str(error)})
print(json.dumps(answers))
"""


def make_repository(folder: Path) -> None:
    """Writes a tiny Llama with everything a real repository holds beside it."""
    folder.mkdir()
    shapes = {
        "model.embed_tokens.weight": (8, 4),
        "model.norm.weight": (4,),
        "model.layers.0.input_layernorm.weight": (4,),
        "model.layers.0.post_attention_layernorm.weight": (4,),
        **{f"model.layers.0.self_attn.{part}_proj.weight": (4, 4) for part in "qkvo"},
        **{f"model.layers.0.mlp.{part}_proj.weight": (6, 4) for part in ("gate", "up")},
        "model.layers.0.mlp.down_proj.weight": (4, 6),
    }
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md", "training_args.bin"):
        (folder / name).write_text("{}")
    for name in ("consolidated.00.pth", "model.gguf", "tf_model.h5", "original/consolidated.00.pth", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Gives the address of a hub that wants a token."""
    base = tmp_path_factory.mktemp("hub")
    make_repository(base / "tiny")
    make_repository(base / "bin")
    (base / "bin/model.safetensors").unlink()
    (base / "quantized").mkdir()
    (base / "quantized/model.gguf").write_text("x")
    command = [sys.executable, str(ROOT / "tests/hub_server.py"), "--token", TOKEN, "--gated", "org/gated"]
    repositories = {"tiny": "tiny", "bin": "bin", "gated": "tiny", "quantized": "quantized"}
    for name, folder in repositories.items():
        command += ["--model", f"org/{name}={base / folder}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


def run(endpoint: str, calls: list[dict[str, Any]], cwd: Path, **environment: str) -> list[dict[str, Any]]:
    """Runs downloads, one after the other, in a fresh process and gives what became of each."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cwd / "hf_home"),
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    command = [sys.executable, "-c", DRIVER, json.dumps(calls)]
    done = subprocess.run(
        command, cwd=cwd, env={**clean, **settings}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def test_downloads_and_their_sentences(hub: str, tmp_path: Path) -> None:
    """Wanted files only, one kind of weights, converted; nothing done twice; each mistake has its sentence."""
    allowed = {"access_token": TOKEN}
    answers = run(
        hub,
        [
            {"repo_id": "org/tiny", **allowed},
            {"repo_id": "org/tiny", **allowed},
            {"repo_id": "org/bin", "convert": False, "revision": "main", **allowed},
            {"repo_id": "org/gated", "tokenizer_only": True, **allowed},
            {"repo_id": "org/gated"},
            {"repo_id": "org/tiny"},
            {"repo_id": "org/nothing", **allowed},
            {"repo_id": "org/tiny", "revision": "v9", **allowed},
            {"repo_id": "org/quantized", **allowed},
            {"repo_id": "org/tiny", "access_token": "wrong"},
        ],
        tmp_path,
    )
    tokenizer = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    weights = ["lit_model.safetensors", "lit_model.safetensors.sha256", "model.safetensors"]
    converted = sorted([*tokenizer, *weights, "model_config.yaml"])
    assert answers[0]["files"] == answers[1]["files"] == converted
    assert "Fetched org/tiny (5 files" in answers[0]["said"][0] and "Converted" in answers[0]["said"][-1]
    assert "converted already" in answers[1]["said"][1]
    assert answers[2]["files"] == sorted([*tokenizer, "pytorch_model.bin"])
    assert answers[3]["files"] == tokenizer
    sentences = [
        "is gated",
        "or it is private",
        "no model org/nothing",
        'no revision "v9"',
        "holds no weights",
        "private",
    ]
    for answer, sentence in zip(answers[4:], sentences, strict=True):
        assert sentence in answer["error"]
        assert "\n" not in answer["error"]
    assert not (tmp_path / "checkpoints/org/nothing").exists()
    assert not any(TOKEN.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_what_is_there_is_used_offline(hub: str, tmp_path: Path) -> None:
    calls = [{"repo_id": "org/tiny", "convert": False}, {"repo_id": "org/bin", "convert": False}]
    run(hub, calls[:1], tmp_path, HF_TOKEN=TOKEN)
    there, absent = run(hub, calls, tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set: using the files in" in there["said"][0]
    assert "HF_HUB_OFFLINE is set and checkpoints/org/bin does not hold the model" in absent["error"]
    there, absent = run("http://127.0.0.1:9", calls, tmp_path, HF_TOKEN=TOKEN)
    assert "http://127.0.0.1:9 cannot be reached: using the files in" in there["said"][0]
    assert "Could not fetch org/bin at http://127.0.0.1:9" in absent["error"]


def test_the_hub_of_the_tests_resumes(hub: str) -> None:
    request = urllib.request.Request(f"{hub}/org/tiny/resolve/main/config.json")
    request.add_header("Authorization", f"Bearer {TOKEN}")
    request.add_header("Range", "bytes=5-")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
        assert reply.status == 206
        assert reply.read() == json.dumps(CONFIG).encode()[5:]


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["model.safetensors", "model-00001-of-00001.safetensors"], ["model.safetensors"]),
        (["model.fp16.safetensors", "pytorch_model.bin", "sub/model.safetensors"], ["pytorch_model.bin"]),
        ([*SHARDED, "a.py", "pytorch_model.bin", "sub/vocab.json", "vocab.json"], [*SHARDED, "vocab.json"]),
    ],
)
def test_one_kind_of_weights_is_chosen(files: list[str], wanted: list[str]) -> None:
    assert sorted(wanted_files(dict.fromkeys(files, 1), DownloadConfig(repo_id="org/name"))) == wanted


@pytest.mark.parametrize(
    "repo_id", ["../../etc", "name", "org/..", "org/a..b", "/org/name", "a/b/c", "", "-x/y", "o/a--b"]
)
def test_what_is_no_repository_name_is_refused(repo_id: str) -> None:
    with pytest.raises(ConfigError, match="it must be ORG/NAME"):
        DownloadConfig(repo_id=repo_id)


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(DownloadConfig(repo_id="org/name", access_token=TOKEN))
