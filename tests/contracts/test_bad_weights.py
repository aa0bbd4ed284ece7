"""Weights that are damaged, or made to do harm, end in one sentence: nothing is written, nothing in them runs.

Every test goes through `litft convert from_hf`, on real files that are spoilt in one way.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Refused, tree
from safetensors.torch import load_file

from litft.cli import main

RAW = Path("checkpoints/acme/raw")
FROM_HF = ["convert", "from_hf", "--checkpoint_dir", "acme/raw"]
NORM = "model.norm.weight"
GATE = "model.layers.0.mlp.gate_proj.weight"
Entry = dict[str, Any]


def read_parts(path: Path) -> tuple[dict[str, Entry], bytes]:
    """Gives the header of a safetensors file and the bytes of its tensors."""
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    return json.loads(whole[8:end]), whole[end:]


def write_parts(path: Path, header: dict[str, Entry] | str, data: bytes) -> None:
    """Writes such a file, whatever the header says; a text stands for itself."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def last_entry(header: dict[str, Entry]) -> str:
    """Gives the name of the tensor that ends the file."""
    return max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])


# --- headers ---


HEADERS: list[tuple[Entry, list[str]]] = [
    ({"dtype": "F4"}, ["the dtype F4", "litft reads F64, F32, F16, BF16"]),
    ({"dtype": "F8_E8M0"}, ["the dtype F8_E8M0"]),
    ({"dtype": None}, ["the dtype None"]),
    ({"dtype": []}, ["damaged"]),
    ({"dtype": "F16"}, ["damaged", "has 6,144 bytes and needs 3,072"]),
    ({"dtype": "I32"}, ["is int32", "litft reads float64, float32"]),
    ({"shape": [48, 31]}, ["damaged", "[48, 31]", "has 6,144 bytes and needs 5,952"]),
    ({"shape": [32, 48]}, ["has shape [32, 48]", "asks for [48, 32]"]),
    ({"shape": [-48, -32]}, ["damaged", "[-48, -32]"]),
    ({"shape": [48.0, 32]}, ["damaged", "[48.0, 32]"]),
    ({"shape": [True, 1536]}, ["damaged"]),
    ({"shape": "48"}, ["damaged"]),
    ({"data_offsets": [-6144, 0]}, ["damaged", "data_offsets [-6144, 0]"]),
    ({"data_offsets": [6144, 0]}, ["damaged", "data_offsets [6144, 0]"]),
    ({"data_offsets": [10**30, 10**30 + 6144]}, ["damaged", "unused before it"]),
    ({"data_offsets": [0, 6144, 7]}, ["damaged"]),
    ({"data_offsets": [0.0, 6144.0]}, ["damaged"]),
]


@pytest.mark.parametrize(("change", "contents"), HEADERS, ids=lambda value: str(value)[:30])
def test_a_header_that_does_not_fit(refused: Refused, change: Entry, contents: list[str]) -> None:
    header, data = read_parts(RAW / "model.safetensors")
    header[GATE].update(change)
    write_parts(RAW / "model.safetensors", header, data)
    refused(FROM_HF, "acme/raw", *contents)


def test_tensors_that_overlap_or_leave_gaps(refused: Refused) -> None:
    """Bytes that are read twice, or that no tensor names, can hide something else in a file."""
    path = RAW / "model.safetensors"
    header, data = read_parts(path)
    last = last_entry(header)
    begin, end = header[last]["data_offsets"]
    header[last]["data_offsets"] = [begin + 4, end + 4]
    write_parts(path, header, data + b"hide")
    refused(FROM_HF, str(path), last, "leaves 4 bytes unused before it")
    header[last]["data_offsets"] = [begin - 4, end - 4]
    write_parts(path, header, data[:-4])
    refused(FROM_HF, str(path), "overlaps the one before it")
    header[last]["data_offsets"] = [begin, end]
    write_parts(path, header, data + b"hide")
    refused(FROM_HF, str(path), "damaged", f"it has {end + 4:,} bytes of tensors and its header promises {end:,}")
    write_parts(path, header, data)
    assert main(FROM_HF) == 0


def test_a_name_that_stands_twice(refused: Refused) -> None:
    """JSON readers keep the last of two, another reader may keep the first."""
    path = RAW / "model.safetensors"
    header, data = read_parts(path)
    text = json.dumps(header)
    again = f'"{NORM}": {json.dumps(header[NORM])}'
    write_parts(path, "{" + again + ", " + text[1:], data)
    refused(FROM_HF, str(path), f'"{NORM}" twice')
    entry = json.dumps(header[NORM])
    write_parts(path, text.replace(entry, '{"dtype": "BF16", ' + entry[1:]), data)
    refused(FROM_HF, str(path), '"dtype" twice')


@pytest.mark.parametrize("text", ["[]", "3", "{", "", '{"a": 3}', '{"a": {}}', "[" * 100_000, '{"a": "\xff'])
def test_a_header_that_is_none(refused: Refused, text: str) -> None:
    write_parts(RAW / "model.safetensors", text, b"")
    refused(FROM_HF, "model.safetensors is damaged")


def test_a_header_that_would_fill_the_memory(refused: Refused) -> None:
    """The file is long enough, but full of holes: a reader that trusts the length would read 200 MB of JSON."""
    path = RAW / "model.safetensors"
    with path.open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(300_000_000)
    refused(FROM_HF, str(path), "a header of 200,000,000")


def test_a_tensor_in_two_shards(refused: Refused) -> None:
    words = [*FROM_HF[:-1], "acme/sharded"]
    shards = sorted(Path("checkpoints/acme/sharded").glob("model-*.safetensors"))
    (header, data), (more, more_data) = read_parts(shards[0]), read_parts(shards[1])
    name = last_entry(more)
    begin, end = more[name]["data_offsets"]
    header[name] = {**more[name], "data_offsets": [len(data), len(data) + end - begin]}
    write_parts(shards[0], header, data + more_data[begin:end])
    refused(words, name, "stands twice", shards[1].name)


# --- indices ---


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("place", ["../raw/{}", "{absolute}", "sub/{}", "..\\{}", "{}\n", ""])
def test_an_index_that_leaves_its_folder(refused: Refused, kind: str, place: str) -> None:
    """The file that is named is there and whole, only not where a model's own files are."""
    weights = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[kind]
    other = Path("checkpoints/acme/raw/sub")
    other.mkdir()
    for folder in (other, RAW):
        shutil.copy(RAW / "model.safetensors", folder / "one.safetensors")
        torch.save(load_file(RAW / "model.safetensors"), folder / "one.bin")
    (RAW / "model.safetensors").unlink()
    named = place.format(f"one.{kind}", absolute=(RAW / f"one.{kind}").resolve())
    index = RAW / f"{weights}.index.json"
    index.write_text(json.dumps({"weight_map": {NORM: named}}))
    refused(FROM_HF, str(index), "no weight file beside it")


def test_shards_that_are_links_are_read(project: Path) -> None:
    """The hub's cache has a model's files as links to where their contents lie."""
    blobs = project / "blobs"
    blobs.mkdir()
    for path in list(RAW.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(os.path.relpath(blobs / path.name, RAW))
    assert main(FROM_HF) == 0
    assert not (blobs / "lit_model.safetensors").exists()
    assert not (RAW / "lit_model.safetensors").is_symlink()


# --- pickles ---


class _Call:
    """Calls a function when it is unpickled by a reader that allows it."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.function, self.given = function, given

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.given


def bombs(ran: Path) -> dict[str, Any]:
    """Gives objects that would make the file `ran`, each in another way."""
    code = f"open({str(ran)!r}, 'w').close()"
    return {
        "system": _Call(os.system, f"touch {ran}"),
        "exec": _Call(exec, code),
        "eval": _Call(eval, code),
        "in a dict": {NORM: torch.ones(32), "more": {"deep": [_Call(os.mkdir, str(ran))]}},
        "as a key": {_Call(os.mkdir, str(ran)): torch.ones(1)},
    }


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", ["system", "exec", "eval", "in a dict", "as a key"])
def test_code_in_a_bin_does_not_run(refused: Refused, project: Path, kind: str, protocol: int) -> None:
    ran = project / "ran"
    (RAW / "model.safetensors").unlink()
    torch.save(bombs(ran)[kind], RAW / "pytorch_model.bin", pickle_protocol=protocol)
    refused(FROM_HF, "pytorch_model.bin", "could run code", "was not loaded")
    assert not ran.exists()
    torch.load(RAW / "pytorch_model.bin", weights_only=False)  # the bomb is a real one
    assert ran.exists()


def test_code_in_a_plain_pickle_does_not_run(refused: Refused, project: Path) -> None:
    """A file that is no zip archive at all, as PyTorch wrote them before 1.6."""
    ran = project / "ran"
    (RAW / "model.safetensors").unlink()
    (RAW / "pytorch_model.bin").write_bytes(pickle.dumps(_Call(os.system, f"touch {ran}")))
    refused(FROM_HF, "pytorch_model.bin")
    assert not ran.exists()
    pickle.loads((RAW / "pytorch_model.bin").read_bytes())
    assert ran.exists()


# --- the disk ---


def test_too_little_disk(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's answer is all that is not real."""
    usage = type(shutil.disk_usage("."))(10**9, 10**9 - 10_000, 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    refused(FROM_HF, "checkpoints/acme/raw has 0.0 MB free and 0.2 MB are needed")


def test_a_folder_that_may_not_be_written(refused: Refused) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    RAW.chmod(0o555)
    refused(FROM_HF, "Permission denied")


def test_what_a_second_run_says(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(FROM_HF) == 0
    first = capsys.readouterr().err.splitlines()
    assert "Writing 0.2 MB to checkpoints/acme/raw/lit_model.safetensors" in first[0], first
    assert " GB are free" in first[0] and "MB of memory" in first[0], first
    assert first[-1].startswith("Converted 24 tensors"), first
    before = tree(project)
    assert main(FROM_HF) == 0
    assert "is converted already" in capsys.readouterr().err
    assert tree(project) == before
