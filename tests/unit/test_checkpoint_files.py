"""Finding and checking checkpoint folders, atomic writing, and the safetensors writer against the official reader."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from litft.checkpoint import disk
from litft.checkpoint.disk import (
    atomic_path,
    forget_sha256,
    is_empty,
    keep_sha256,
    read_json,
    remove_folder,
    remove_unfinished,
    require_space,
    require_unchanged,
    sha256_file,
    weights_sha256,
)
from litft.checkpoint.files import (
    copy_side_files,
    load_model_config,
    require_converted,
    resolve_checkpoint_dir,
    save_model_config,
)
from litft.checkpoint.tensors import load_weights, read_safetensors_header, save_safetensors, tensor_specs
from litft.config.model import ModelConfig, RopeScaling
from litft.errors import CheckpointError

TENSORS = {
    "a": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "b": torch.randn(3, 2).T,
    "c": torch.tensor(7, dtype=torch.int64),
    "d": torch.empty(0, 4, dtype=torch.float16),
    "e": torch.tensor([True, False, True]),
}


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_converted(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(folder / "lit_model.safetensors", TENSORS.items(), tensor_specs(TENSORS))
    save_model_config(folder, ModelConfig.from_name("pythia-160m"))


def test_a_folder_is_found_as_typed_or_under_checkpoints(in_tmp: Path) -> None:
    (in_tmp / "checkpoints/org/name").mkdir(parents=True)
    (in_tmp / "out/final").mkdir(parents=True)
    assert resolve_checkpoint_dir(Path("org/name")) == Path("checkpoints/org/name")
    assert resolve_checkpoint_dir(Path("out/final")) == Path("out/final")
    assert resolve_checkpoint_dir(in_tmp / "out/final") == in_tmp / "out/final"


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("org/nmae", 'No checkpoint folder "org/nmae".*Did you mean "org/name"'),
        ("nme", 'Did you mean "name"'),
        ("out/finl", 'Did you mean "out/final"'),
        ("other/entirely", "litft download --repo_id other/entirely"),
        ("note.txt", "is a file"),
    ],
)
def test_a_wrong_folder_is_met_with_the_nearest_name(in_tmp: Path, typed: str, sentence: str) -> None:
    (in_tmp / "checkpoints/org/name").mkdir(parents=True)
    (in_tmp / "out/final").mkdir(parents=True)
    (in_tmp / "note.txt").touch()
    with pytest.raises(CheckpointError, match=sentence):
        resolve_checkpoint_dir(Path(typed))


def test_what_is_not_converted_is_told_the_command(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        require_converted(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"litft convert from_hf --checkpoint_dir {tmp_path}"):
        require_converted(tmp_path)
    (tmp_path / "lora.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"only lora\.safetensors.*litft merge"):
        require_converted(tmp_path)
    make_converted(tmp_path)
    require_converted(tmp_path)


def test_a_folder_of_lit_gpt_is_told_its_own_command(tmp_path: Path) -> None:
    (tmp_path / "lit_model.pth").touch()
    command = re.escape(f"run `litft convert from_litgpt --checkpoint_dir {tmp_path} --out_dir ...`")
    with pytest.raises(CheckpointError, match=command):
        require_converted(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=command):
        require_converted(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="litft convert from_hf"):
        require_converted(tmp_path)


def test_truncated_weights_are_noticed_from_the_header(tmp_path: Path) -> None:
    make_converted(tmp_path)
    path = tmp_path / "lit_model.safetensors"
    whole = path.read_bytes()
    for cut in (whole[:-1], whole[:20], whole[:3], b"", b"\xff" * 64, whole + b"x"):
        path.write_bytes(cut)
        with pytest.raises(CheckpointError, match="is damaged"):
            require_converted(tmp_path)


def test_model_config_comes_back_as_it_went(tmp_path: Path) -> None:
    scaling = RopeScaling(kind="llama3", factor=8.0)
    for config in (
        ModelConfig.from_name("Llama-3.1-8B"),
        ModelConfig.from_name("falcon-7b"),
        ModelConfig.from_dict({**ModelConfig.from_name("pythia-160m").to_dict(), "rope_scaling": vars(scaling)}),
    ):
        save_model_config(tmp_path, config)
        assert load_model_config(tmp_path) == config


@pytest.mark.parametrize(
    "text", ["a: [", "- 1", "name: x", "n_layers: 3", "name: x\nname: y", "!!python/object:os.x {}"]
)
def test_a_malformed_description_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "model_config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"model_config\.yaml"):
        load_model_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"), [("{,}", "not valid JSON"), ("[]", "holds a list"), (None, "Cannot read")]
)
def test_malformed_json_is_a_sentence(tmp_path: Path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=sentence):
        read_json(tmp_path / "config.json")


def test_the_official_reader_reads_what_we_write(tmp_path: Path) -> None:
    """In any order of the stream; non-contiguous, empty, scalar and bfloat16 tensors included."""
    path = tmp_path / "x.safetensors"
    save_safetensors(path, reversed(TENSORS.items()), tensor_specs(TENSORS), {"format": "pt", "note": "ü"})
    loaded = load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
        assert torch.equal(load_weights(path)[name], tensor)
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_we_read_the_header_of_the_official_writer(tmp_path: Path) -> None:
    contiguous = {name: tensor.contiguous() for name, tensor in TENSORS.items()}
    save_file(contiguous, tmp_path / "x.safetensors", {"format": "pt"})
    assert read_safetensors_header(tmp_path / "x.safetensors") == tensor_specs(TENSORS)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, TENSORS.items(), tensor_specs(TENSORS))
    before = path.read_bytes()

    def interrupted() -> Iterator[tuple[str, Tensor]]:
        yield "a", TENSORS["a"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_safetensors(path, interrupted(), tensor_specs(TENSORS))
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.safetensors"]


def test_atomic_path_leaves_nothing_behind_on_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_side_files_are_copied_and_weights_are_not(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    wanted = ["config.json", "generation_config.json", "merges.txt", "prompt_style.yaml", "tokenizer.model"]
    wanted += [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "special_tokens_map.json",
    ]
    for name in [*wanted, "model.safetensors", "lit_model.safetensors", "model_config.yaml", "README.md"]:
        (source / name).write_text(name)
    copied = copy_side_files(source, tmp_path / "new/target")
    assert sorted(path.name for path in copied) == sorted(wanted)
    assert (tmp_path / "new/target/tokenizer.model").read_text() == "tokenizer.model"


def test_too_little_space_is_refused(tmp_path: Path) -> None:
    require_space(tmp_path, 1)
    with pytest.raises(CheckpointError, match="GB are needed"):
        require_space(tmp_path, 10**18)


def test_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 10**6)
    assert sha256_file(tmp_path / "x") == hashlib.sha256(b"abc" * 10**6).hexdigest()


def test_the_digest_of_weights_is_kept_and_believed_while_the_file_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept = tmp_path / "x.safetensors", tmp_path / "x.safetensors.sha256"
    path.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert weights_sha256(path) == digest
    written, read = kept.read_text(), []
    monkeypatch.setattr(disk, "sha256_file", lambda path: read.append(path) or sha256_file(path))
    assert weights_sha256(path) == digest and not read
    os.utime(path, ns=(1, 1))  # a copy
    assert weights_sha256(path) == digest and len(read) == 1
    assert weights_sha256(path) == digest and len(read) == 1
    for damaged in (written[1:], "0" + written[1:], written[:-3], "", "é", "a b c d", f"{digest} 3 1\n"):
        kept.write_text(damaged)
        assert weights_sha256(path) == digest


def test_weights_that_are_no_longer_what_they_were_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"abc")
    stamp = path.stat().st_mtime_ns
    require_unchanged(path)
    assert not list(tmp_path.glob("*.sha256"))  # nobody kept it: nothing to compare, nothing is read
    keep_sha256(path)
    path.write_bytes(b"abd")
    os.utime(path, ns=(stamp, stamp))  # of the same size and time
    for use in (weights_sha256, require_unchanged):
        with pytest.raises(CheckpointError, match=r"has changed since .* remove x.safetensors.sha256 if"):
            use(path)
    forget_sha256(path)
    assert weights_sha256(path) == hashlib.sha256(b"abd").hexdigest()


def test_what_killed_processes_left_goes_and_what_runs_stays(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    dead, alive = "999999999", str(os.getppid())
    names = [f".a.{dead}.tmp", f".final.{dead}.former", f".step-00000001.{dead}.gone", ".step-00000002.partial"]
    for name in (*names, f".final.{os.getpid()}.former"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    kept = {".hidden", ".x.tmp", f".a.{alive}.tmp", "step-00000003.partial"}
    for name in (*kept, f"logs/.metrics.csv.{dead}.tmp"):
        (tmp_path / name).touch()
    assert not is_empty(tmp_path) and is_empty(tmp_path / "none") and not is_empty(tmp_path / "logs" / "..")
    remove_unfinished(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "logs"} and is_empty(tmp_path / "logs")


def test_a_folder_loses_its_name_before_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "x").touch()
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors=False: None)  # killed before the first file
    remove_folder(tmp_path / "step")
    assert [path.name for path in tmp_path.iterdir()] == [f".step.{os.getpid()}.gone"]


def test_a_digest_that_cannot_be_kept_is_given(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "x.sha256").mkdir()  # stands for a folder that may only be read, which root does not know
    assert weights_sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
    assert [path.name for path in tmp_path.glob(".*")] == []
