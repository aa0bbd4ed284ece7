"""Files of a model, of a run or of prepared data that are made to do harm: no code in them runs, nothing fills the
memory, each ends in one sentence.

What reads downloaded weights is tried in test_bad_weights.py; here is the rest: the files of a run, adapters, exports,
Lit-GPT's and prepared files, tokenizers, descriptions.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import resource
import time
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import sentencepiece
import torch
from conftest import FINETUNE, SHORT, STEPS, Refused
from safetensors.torch import load_file, save_file
from test_bad_weights import _Call, read_parts, write_parts
from tiny_text import byte_tokenizer, piece_model, write_checkpoint, write_json

from litft.checkpoint.disk import read_json, sha256_file
from litft.checkpoint.download import wanted_files
from litft.checkpoint.pickled import load_pickled
from litft.checkpoint.sealed import load_sealed, write_sealed
from litft.checkpoint.tensors import read_safetensors_header
from litft.cli import main
from litft.config.download import DownloadConfig
from litft.config.model import LARGEST, ModelConfig
from litft.data.reading.parquet import iter_parquet_rows
from litft.data.sources.tokenized import read_tokenized
from litft.data.store import load_pt
from litft.errors import CheckpointError, ConfigError, DataError, LitftError, TokenizerError
from litft.families import FAMILIES, model_config_from_hf
from litft.text import settings
from litft.text.style_files import load_style
from litft.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
STEP = Path("out/lora/csv/step-00000001")
FINAL = Path("out/lora/csv/final")
RESUME = ["finetune", "lora", *FINETUNE, *SHORT, *STEPS, "--resume", str(STEP)]


def bomb(ran: Path) -> _Call:
    """Gives what makes the file `ran` when it is unpickled."""
    return _Call(os.system, f"touch {ran}")


def lie(path: Path) -> None:
    """Lets the first tensor of a safetensors file begin behind bytes that no tensor has, and overlap the next."""
    header, data = read_parts(path)
    first = min((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    begin, end = header[first]["data_offsets"]
    header[first]["data_offsets"] = [begin + 8, end + 8]
    write_parts(path, header, data if len(header) > 2 else data + b"8 bytes.")


def grow(path: Path) -> None:
    """Adds a tensor with a size that no number of a processor holds."""
    header, data = read_parts(path)
    header["more"] = {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [len(data), len(data)]}
    write_parts(path, header, data)


# --- what a run wrote ---


@pytest.mark.parametrize("name", ["trainable", "optimizer", "rng", "row_losses"])
def test_a_step_checkpoint_that_is_another_file(project: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Its hash is right: whoever wrote the file wrote that too."""
    Path("out/lora/csv/summary.json").unlink()  # as if it had been killed
    path, ran = STEP / f"{name}.safetensors", project / "ran"
    good = path.read_bytes()
    for spoil in (lambda: torch.save(bomb(ran), path), lambda: lie(path), lambda: grow(path)):
        path.write_bytes(good)
        spoil()
        state = load_sealed(STEP / "state.yaml")
        write_sealed(STEP / "state.yaml", {**state, "sha256": {**state["sha256"], name: sha256_file(path)}})
        assert main(RESUME) == 2
        *_, said = capsys.readouterr().err.splitlines()  # behind what the run is to be
        assert said.startswith("litft: ") and f"{name}.safetensors" in said and "damaged" in said
        assert not ran.exists()


def test_adapters_that_are_another_file(refused: Refused, project: Path) -> None:
    path, ran = FINAL / "lora.safetensors", project / "ran"
    good = path.read_bytes()
    for spoil in (lambda: torch.save(bomb(ran), path), lambda: lie(path), lambda: grow(path)):
        path.write_bytes(good)
        spoil()
        refused(["generate", "--checkpoint_dir", str(FINAL), "--prompt", "a"], "lora.safetensors")
        refused(["merge", "--checkpoint_dir", str(FINAL)], "lora.safetensors")
        assert not ran.exists()


def test_a_model_that_is_another_file_is_not_exported(refused: Refused, project: Path) -> None:
    path, ran = Path("checkpoints/acme/tiny/lit_model.safetensors"), project / "ran"
    good = path.read_bytes()
    for spoil in (lambda: torch.save(bomb(ran), path), lambda: lie(path), lambda: grow(path)):
        path.write_bytes(good)
        spoil()
        refused(
            ["export", "hf", "--checkpoint_dir", "acme/tiny", "--out_dir", "hf"], "lit_model.safetensors", "damaged"
        )
        assert not ran.exists()


def test_a_link_is_not_written_through(project: Path) -> None:
    """A model's folder may hold links; what litft writes takes their place, and leaves what they name as it was."""
    other = project / "other"
    other.write_text("mine")
    for name in ("lit_model.safetensors", "model_config.yaml"):
        (Path("checkpoints/acme/raw") / name).symlink_to(other)
    assert main(["convert", "from_hf", "--checkpoint_dir", "acme/raw"]) == 0
    assert other.read_text() == "mine" and not Path("checkpoints/acme/raw/lit_model.safetensors").is_symlink()


# --- pickles, and archives of torch ---


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("is_zip", [True, False])
def test_no_code_in_rows_of_tokens_is_run(tmp_path: Path, protocol: int, is_zip: bool) -> None:
    path, ran = tmp_path / "rows.pt", tmp_path / "ran"
    rows = [{"input_ids": torch.tensor([1, 2]), "labels": bomb(ran)}]
    torch.save(rows, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(DataError, match=r"no whole file of torch\.save with plain tensors"):
        list(read_tokenized(path))
    with pytest.raises(DataError, match="damaged or not prepared data"):
        load_pt(path)
    with pytest.raises(CheckpointError, match=r"could run code|saved before PyTorch 1\.6"):
        load_pickled(path, "download it again")
    assert not ran.exists()


def test_an_archive_that_is_larger_unpacked(tmp_path: Path) -> None:
    """torch packs nothing; 300 MB of zeros become 300 kB."""
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save({"a": torch.zeros(10)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    for read in (load_pt, lambda path: load_pickled(path, "download it again")):
        assert set(read(plain)) == {"a"}  # type: ignore[call-overload]
        with pytest.raises(LitftError, match=r"packed\.pt (is damaged|cannot be read)"):
            read(packed)


@pytest.mark.parametrize("deep", [False, True])
def test_a_tensor_that_is_larger_than_its_file(tmp_path: Path, deep: bool) -> None:
    """One number, said to be all of a trillion."""
    path = tmp_path / "rows.pt"
    wide = torch.zeros(1).expand(10**12)
    torch.save([{"a": wide}] if deep else {"a": wide}, path)
    for read in (load_pt, lambda path: load_pickled(path, "download it again")):
        with pytest.raises(LitftError, match=r"rows\.pt (is damaged|cannot be read)"):
            read(path)


def test_a_list_that_holds_itself_many_times(tmp_path: Path) -> None:
    path, inner = tmp_path / "rows.pt", list[Any]()
    for _ in range(60):
        inner = [inner, inner]
    torch.save(inner, path)
    assert load_pt(path) is not None and load_pickled(path, "") is not None


# --- headers, indices, descriptions ---


@pytest.mark.parametrize("shape", [[2**62, 4], [2**64], [1] * 1000, [10**4000] * 200])
def test_a_shape_that_no_memory_holds(tmp_path: Path, shape: list[int]) -> None:
    """The product of many numbers of many digits alone would take minutes."""
    path, started = tmp_path / "a.safetensors", time.thread_time()
    write_parts(path, {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}, b"0000")
    with pytest.raises(CheckpointError, match="damaged: its header is not that of tensors") as caught:
        read_safetensors_header(path)
    assert len(str(caught.value)) < 400 and time.thread_time() - started < 15


@pytest.mark.parametrize("name", ["a\nb.safetensors", "a\x1b[2J.safetensors", "\u202ea.bin"])
def test_an_index_with_names_that_cannot_be_shown(refused: Refused, name: str) -> None:
    folder = Path("checkpoints/acme/raw")
    (folder / name).write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"model.norm.weight": name}})
    said = refused(["convert", "from_hf", "--checkpoint_dir", "acme/raw"], "no weight file beside it")
    assert "\x1b" not in said and "\u202e" not in said


@pytest.mark.parametrize(
    "name", ["../config.json", "tokenizer\x1b[2J.json", "tokenizer\n.json", "tokenizer_\u202e", "a/b"]
)
def test_names_of_a_repository_that_leave_the_folder_or_cannot_be_shown(name: str) -> None:
    sizes = {"config.json": 1, "model.safetensors": 2, name: 3, f"{name}.bin": 3, f"model-{name}-of-1.safetensors": 3}
    wanted = wanted_files(sizes, DownloadConfig(repo_id="org/name"))
    assert sorted(wanted) == ["config.json", "model.safetensors"]


HF: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 64,
}
ABSURD = [-(10**30), -1, 10**9, 2**63, 10**30, 10**400]


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "mixtral", "qwen2"])
@pytest.mark.parametrize("field", HF)
def test_sizes_that_no_model_has(model_type: str, field: str) -> None:
    """Refused before anything is built, and before a block is so much as listed."""
    started = time.thread_time()
    for value in (*ABSURD, *([] if field == "num_key_value_heads" else [0])):
        if field == "max_position_embeddings" and value == 10**9:
            continue  # less than a gigatoken is said of some
        with pytest.raises(CheckpointError, match=r"^config\.json of m ") as caught:
            model_config_from_hf({"model_type": model_type, **HF, field: value}, "m")
        assert len(str(caught.value)) < 700
    assert time.thread_time() - started < 1


NUMBERS = [0, -1.0, float("nan"), float("inf"), 1e308, 10**400]


@pytest.mark.parametrize("kind", ["linear", "llama3", "yarn", "dynamic"])
@pytest.mark.parametrize("field", ["factor", "original_max_position_embeddings", "low_freq_factor"])
def test_rotations_that_cannot_be_computed(kind: str, field: str) -> None:
    scaling = {"rope_type": kind, "factor": 2.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    for value in NUMBERS:
        values = {"model_type": "llama", **HF, "rope_scaling": {**scaling, field: value}}
        try:
            config = model_config_from_hf(values, "m")
        except CheckpointError as error:
            assert str(error).startswith("config.json of m "), error
        else:
            assert config.rope_scaling is not None and 0 < config.rope_scaling.factor < 1e30
    for value in NUMBERS:
        theta = {"model_type": "llama", **HF, "rope_theta": value}
        with pytest.raises(CheckpointError, match="rope_base" if value in (0, -1) else "has rope_theta"):
            model_config_from_hf(theta, "m")
    for value in NUMBERS[2:]:
        with pytest.raises(CheckpointError, match="its factor must be a number"):
            model_config_from_hf({"model_type": "llama", **HF, "rope_scaling": {**scaling, "factor": value}}, "m")


def test_a_saved_description_is_held_to_the_same() -> None:
    good = model_config_from_hf({"model_type": "llama", **HF}, "m").to_dict()
    for field, largest in LARGEST.items():
        with pytest.raises(ConfigError, match="absurdly large"):
            ModelConfig.from_dict({**good, field: largest + 1})
    for number in (float("nan"), 1e308):
        with pytest.raises(ConfigError, match="no number that can be computed with"):
            ModelConfig.from_dict({**good, "norm_eps": number})


@pytest.mark.parametrize("model_type", [["llama"], {"a": 1}, 3, None, ""])
def test_a_model_type_that_is_no_text(model_type: object) -> None:
    with pytest.raises(CheckpointError, match="litft knows the model types"):
        model_config_from_hf({"model_type": model_type}, "m")


def test_every_family_refuses_what_it_cannot_compute() -> None:
    """And types of blocks that are no list, which random changes found."""
    for family in FAMILIES.values():
        with pytest.raises(CheckpointError, match="layer_types"):
            model_config_from_hf({"model_type": family.model_types[0], "layer_types": True}, "m")
        fields = {"hidden_size": 0, "d_model": 0, "n_layers": 0, "num_hidden_layers": 0}
        with pytest.raises(CheckpointError):
            model_config_from_hf({"model_type": family.model_types[0], **fields}, "m")


# --- tokenizers ---


GOOD = json.loads(byte_tokenizer().to_str())
LONG = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
ADDED = {"content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
NESTED = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
TERABYTES = {"normalizer": {"type": "Sequence", "normalizers": [LONG] * 4}}
TERABYTES_BACK = {"decoder": {"type": "Sequence", "decoders": [LONG] * 4}}
NO_TOKEN = {"post_processor": {**GOOD["post_processor"], "single": [{"SpecialToken": {"id": "<no>", "type_id": 0}}]}}
TOKENIZERS: dict[str, tuple[str, Any, str]] = {
    "an id of 2**31": ("tokenizer.json", {"model": {**GOOD["model"], "vocab": {"a": 2**31}}}, "no model has more than"),
    "an added id of 2**40": ("tokenizer.json", {"added_tokens": [{**ADDED, "id": 2**40}]}, "cannot be read"),
    "a text a trillion times as long": ("tokenizer.json", TERABYTES, "times as long"),
    "an answer a trillion times as long": ("tokenizer.json", TERABYTES_BACK, "times as long"),
    "a frame without its token": ("tokenizer.json", NO_TOKEN, "cannot encode a text"),
    "nesting": ("tokenizer_config.json", NESTED, "not JSON that can be read"),
    "digits": ("config.json", '{"a":' + "9" * 5000 + "}", "not JSON that can be read"),
    "nesting with a comma": ("generation_config.json", '{"a":,}' + NESTED, "is not JSON"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_no_model_has(tmp_path: Path, name: str) -> None:
    file, content, words = TOKENIZERS[name]
    folder = write_checkpoint(tmp_path / "c")
    content = {**GOOD, **content} if file == "tokenizer.json" else content
    (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(TokenizerError, match=words):
        Tokenizer(folder)


@pytest.mark.parametrize("number", [2**31, 2**40, 2**70])
@pytest.mark.parametrize("place", ["added_tokens.json", "tokenizer_config.json"])
def test_an_added_id_that_no_matrix_has_a_row_for(tmp_path: Path, place: str, number: int) -> None:
    folder = write_checkpoint(tmp_path / "c")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(piece_model())
    decoder = {"added_tokens_decoder": {str(number): {"content": "<x>"}, "²": {"content": "<y>"}}}
    write_json(folder / place, {"<x>": number} if place == "added_tokens.json" else decoder)
    if number < 10**20:
        with pytest.raises(TokenizerError, match="no model has more than"):
            Tokenizer(folder)


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json", "chat_template.jinja"]
)
def test_a_file_of_a_tokenizer_that_would_fill_the_memory(tmp_path: Path, file: str) -> None:
    """A file of holes: it has no bytes on the disk."""
    folder = write_checkpoint(tmp_path / "c")
    if file == "tokenizer.model":
        (folder / "tokenizer.json").unlink()
    with (folder / file).open("wb") as hollow:
        hollow.truncate(settings.LARGEST_FILE + 1)
    with pytest.raises(TokenizerError, match=re.escape(file) + " has 134,217,729 bytes"):
        (Tokenizer(folder), load_style(folder))


def test_a_description_that_would_fill_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as hollow:
        hollow.truncate(10**9)
    with pytest.raises(CheckpointError, match="has 1,000,000,000 bytes"):
        read_json(tmp_path / "config.json")


def test_a_pattern_that_goes_back_too_often(tmp_path: Path) -> None:
    """The library panics, which is no exception that `except Exception` would meet."""
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    steps = {"type": "Sequence", "pretokenizers": [split, GOOD["pre_tokenizer"]]}
    folder = write_checkpoint(tmp_path / "c")
    write_json(folder / "tokenizer.json", {**GOOD, "pre_tokenizer": steps})
    tokenizer, text = Tokenizer(folder), "a" * 40 + "b"
    for encode in (lambda: tokenizer.encode(text), lambda: tokenizer.encode_batch([text])):
        with pytest.raises(TokenizerError, match=r"cannot encode a text .*retry-limit"):
            encode()


def test_pieces_that_are_no_text(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "c")
    (folder / "tokenizer.json").unlink()
    pieces = piece_model()
    loaded = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    piece = loaded.id_to_piece(loaded.get_piece_size() - 1).encode()
    (folder / "tokenizer.model").write_bytes(
        pieces.replace(b"\n" + bytes([len(piece)]) + piece, b"\n" + bytes([len(piece)]) + b"\xff" * len(piece))
    )
    with pytest.raises(TokenizerError, match="not a readable sentencepiece model"):
        Tokenizer(folder)


def test_a_sentencepiece_model_without_pieces(tmp_path: Path) -> None:
    """Random changes found it: the library opens what begins so, and has nothing then."""
    folder = write_checkpoint(tmp_path / "c")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b'""null' + piece_model())
    with pytest.raises(TokenizerError, match="not a readable sentencepiece model"):
        Tokenizer(folder)


# --- code of a checkpoint ---


CODE = "import pathlib; pathlib.Path({ran!r}).touch()\n"
AUTO = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}


def test_code_that_a_checkpoint_names_is_not_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither here nor in the library that proves an export."""
    folder, ran = Path("checkpoints/acme/raw"), project / "ran"
    for name in ("evil.py", "modeling_llama.py", "conftest.py", "setup.py", "__init__.py"):
        (folder / name).write_text(CODE.format(ran=str(ran)))
    for name in ("config.json", "tokenizer_config.json"):
        write_json(folder / name, {**json.loads((folder / name).read_text()), "auto_map": AUTO})
    assert main(["convert", "from_hf", "--checkpoint_dir", "acme/raw"]) == 0
    assert "names code of its own (auto_map); litft runs no code of a checkpoint." in capsys.readouterr().err
    assert main(["export", "hf", "--checkpoint_dir", "acme/raw", "--out_dir", "exported"]) == 0
    assert not ran.exists() and not list(Path("exported").glob("*.py"))


def test_nothing_imports_or_unpickles_what_a_file_says() -> None:
    """Each place where code is run by name or by file is known; a new one belongs into this list with a reason."""
    named = {
        "__init__.py", "cli.py", "finetune.py",  # commands, and the recipe that the user names
        "config/completion.py", "export/data.py", "export/elsewhere.py", "answer/chat.py",  # packages, by our own names
        "data/reading/parquet.py", "data/sources/tokenized.py", "data/sources/__init__.py", "train/loggers.py",
        "check/checks/__init__.py", "check/bench.py",
    }  # fmt: skip
    found, remote, unsafe = set(), [], []
    for path in (ROOT / "litft").rglob("*.py"):
        text, place = path.read_text(encoding="utf-8"), path.relative_to(ROOT / "litft").as_posix()
        if re.search(r"import_module\(|__import__\(|\bexec\(|(?<![.\w])eval\(|exec_module\(|runpy", text):
            found.add(place)
        remote += [place] * len(re.findall(r"trust_remote_code=(?!False)", text))
        remote += [place] * (
            len(re.findall(r"transformers\.Auto\w+\.from_pretrained", text)) > text.count("trust_remote_code=False")
        )
        unsafe += [place] * len(re.findall(r"torch\.load\((?![^()]*(?:\([^()]*\)[^()]*)*weights_only=True)", text))
        unsafe += [place] * len(re.findall(r"(?<!\w)(?:pickle|joblib|dill|marshal|shelve)\.loads?\(", text))
    assert found <= named, found - named
    assert not remote and unsafe == ["checkpoint/pickled.py"], (remote, unsafe)  # that one by an unpickler of tensors


def test_lengths_of_tensors_are_checked_where_safetensors_are_opened(tmp_path: Path) -> None:
    """The library's own reader is behind ours: it would take a name that stands twice."""
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(4)}, path)
    header, data = read_parts(path)
    entry = json.dumps(header["a"])
    write_parts(path, '{"a": ' + entry + ', "a": ' + entry + "}", data)
    with pytest.raises(CheckpointError, match="twice"):
        read_safetensors_header(path)
    save_file({"a": torch.ones(4)}, path)
    assert load_file(path)["a"].tolist() == [1.0] * 4
    assert dataclasses.asdict(read_safetensors_header(path)["a"]) == {"kind": "F32", "shape": (4,)}


# --- rows ---


@pytest.mark.parametrize(("megabytes", "rows"), [(1, 20_000), (70, 2)])
def test_a_text_that_stands_very_often_in_a_few_bytes(tmp_path: Path, megabytes: int, rows: int) -> None:
    """300 kB of parquet that say 20,000 times that a megabyte stands there: read row by row, and not at once."""
    path, before = tmp_path / "rows.parquet", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    places, texts = pyarrow.array([0] * rows, pyarrow.int32()), pyarrow.array(["a" * megabytes * 2**20])
    column = pyarrow.DictionaryArray.from_arrays(places, texts)
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path, store_schema=False)
    found = itertools.islice(iter_parquet_rows(path), 200)
    if megabytes > 64:
        with pytest.raises(DataError, match="row 1 has more than 64 MiB unpacked"):
            list(found)
    else:
        assert {len(values["text"]) for _, values in found} == {2**20}
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kB
    assert path.stat().st_size < 6 * 2**20


def test_a_text_that_stands_very_often_within_lists(tmp_path: Path) -> None:
    """As above, where arrow cannot read each text once: few rows are read at a time."""
    path, before, rows = tmp_path / "rows.parquet", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 2000
    places, texts = pyarrow.array([0] * rows, pyarrow.int32()), pyarrow.array(["a" * 2**20])
    talk = pyarrow.StructArray.from_arrays([pyarrow.DictionaryArray.from_arrays(places, texts)], ["content"])
    column = pyarrow.ListArray.from_arrays(pyarrow.array(range(rows + 1), pyarrow.int32()), talk)
    pyarrow.parquet.write_table(pyarrow.table({"messages": column}), path, store_schema=False)
    found = itertools.islice(iter_parquet_rows(path), 50)
    assert {len(values["messages"][0]["content"]) for _, values in found} == {2**20}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert path.stat().st_size < 2**20
