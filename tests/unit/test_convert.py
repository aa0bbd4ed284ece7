"""Conversion: Hugging Face to litft to Hugging Face is bit for bit the same, and what cannot be converted is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, FalconConfig, GPTNeoXConfig, LlamaConfig, MistralConfig

from litft.checkpoint.convert import from_hf
from litft.checkpoint.files import load_model_config
from litft.checkpoint.tensors import load_weights, read_safetensors_header
from litft.config.convert import FromHfConfig, ToHfConfig
from litft.errors import CheckpointError, ConfigError
from litft.export.hf import to_hf
from litft.families.shapes import state_shapes

STORIES = Path(__file__).parents[2] / ".." / "shared" / "data" / "models" / "stories260K-hf"

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
LLAMA: dict[str, Any] = {**SIZES, "intermediate_size": 48}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 10000.0,
}
VARIATIONS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**LLAMA),
    "llama_gqa_biased": lambda: LlamaConfig(**LLAMA, num_key_value_heads=2, attention_bias=True, mlp_bias=True),
    "llama_tied_wide_heads": lambda: LlamaConfig(**LLAMA, tie_word_embeddings=True, head_dim=16),
    "llama_linear": lambda: LlamaConfig(
        **LLAMA, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
    ),
    "llama_llama3": lambda: LlamaConfig(**LLAMA, num_key_value_heads=1, rope_parameters=LLAMA3_ROPE),
    "mistral": lambda: MistralConfig(**LLAMA, num_key_value_heads=2, sliding_window=None),
    "mistral_window": lambda: MistralConfig(**LLAMA, num_key_value_heads=2, sliding_window=8),
    "falcon_7b": lambda: FalconConfig(**SIZES),
    "falcon_40b": lambda: FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=2),
    "falcon_11b": lambda: FalconConfig(
        **SIZES, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1, tie_word_embeddings=False
    ),
    "falcon_sequential": lambda: FalconConfig(**SIZES, multi_query=False, parallel_attn=False, bias=True),
    "pythia": lambda: GPTNeoXConfig(**LLAMA),
    "pythia_sequential": lambda: GPTNeoXConfig(**LLAMA, use_parallel_residual=False, attention_bias=False),
}


def save_model(folder: Path, config: Any, dtype: torch.dtype = torch.float32, max_shard_size: str = "5GB") -> Path:
    """Writes a random model as transformers does, with norms and biases that are not all ones and zeros."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.to(dtype).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def hf_tensors(folder: Path) -> dict[str, Tensor]:
    """Reads every tensor of a folder with the official readers."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        # copies: with torch 2.7 they are the file's own bytes, which tests write over
        tensors |= {name: tensor.clone() for name, tensor in load_file(path).items()}
    for path in sorted(folder.glob("pytorch_model*.bin")):
        tensors |= torch.load(path, weights_only=True)
    return tensors


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype, name
        assert torch.equal(tensor, second[name]), name


def convert(folder: Path, overwrite: bool = False) -> list[str]:
    """Converts and gives what was reported."""
    said: list[str] = []
    from_hf(FromHfConfig(checkpoint_dir=folder, overwrite=overwrite), said.append)
    return said


def round_trip(folder: Path, out_dir: Path, **options: Any) -> dict[str, Tensor]:
    convert(folder)
    return hf_tensors(to_hf(ToHfConfig(checkpoint_dir=folder, out_dir=out_dir, **options)))


def to_bin(folder: Path) -> Path:
    """Turns a folder of safetensors into one of pickled files, index included."""
    for path in sorted(folder.glob("model*.safetensors")):
        torch.save(load_file(path), folder / f"pytorch_{path.stem}.bin")
        path.unlink()
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()
    return folder


@pytest.fixture(autouse=True)
def _quiet() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save_model(tmp_path / "llama", LlamaConfig(**LLAMA))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Changes the tensors of a single-file folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def set_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", VARIATIONS)
def test_round_trip_is_bit_equal(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    folder = save_model(tmp_path / name, VARIATIONS[name](), dtype)
    before = hf_tensors(folder)
    assert_same(before, round_trip(folder, tmp_path / "out"))
    assert (tmp_path / "out/config.json").read_bytes() == (folder / "config.json").read_bytes()
    ours, shapes = load_weights(folder / "lit_model.safetensors"), state_shapes(load_model_config(folder))
    assert {key: tuple(tensor.shape) for key, tensor in ours.items()} == shapes


@pytest.mark.parametrize("kind", ["sharded", "bin", "sharded_bin"])
@pytest.mark.parametrize("name", ["llama_gqa_biased", "falcon_40b", "pythia"])
def test_round_trip_of_every_kind_of_file(tmp_path: Path, name: str, kind: str) -> None:
    sharded = "sharded" in kind
    folder = save_model(tmp_path / name, VARIATIONS[name](), max_shard_size="20KB" if sharded else "5GB")
    before = hf_tensors(folder)
    if "bin" in kind:
        to_bin(folder)
    assert len(list(folder.glob("*model*-of-*"))) > 1 if sharded else True
    out = tmp_path / "out"
    assert_same(before, round_trip(folder, out, max_shard_size="15KB" if sharded else "5GB"))
    if sharded:
        index = json.loads((out / "model.safetensors.index.json").read_text())
        assert index["weight_map"].keys() == before.keys()
        for tensor, shard in index["weight_map"].items():
            assert tensor in read_safetensors_header(out / shard)
            assert (out / shard).stat().st_size < 20_000


@pytest.mark.parametrize("name", ["falcon_40b", "pythia", "llama_tied_wide_heads"])
def test_transformers_loads_what_we_write(tmp_path: Path, name: str) -> None:
    folder = save_model(tmp_path / name, VARIATIONS[name]())
    round_trip(folder, tmp_path / "out", max_shard_size="20KB")
    first, second = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, tmp_path / "out"))
    assert_same(first.state_dict(), second.state_dict())


def test_fused_rows_are_all_queries_then_keys_then_values(tmp_path: Path) -> None:
    """Pythia's rows lie head by head: q, k, v, q, k, v."""
    folder = save_model(tmp_path / "pythia", VARIATIONS["pythia"]())
    convert(folder)
    theirs = hf_tensors(folder)["gpt_neox.layers.1.attention.query_key_value.weight"].view(4, 3, 8, 32)
    ours = load_weights(folder / "lit_model.safetensors")["transformer.h.1.attn.qkv.weight"].view(3, 4, 8, 32)
    assert torch.equal(ours, theirs.transpose(0, 1))


def test_old_buffers_are_dropped_and_real_biases_kept(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "pythia", VARIATIONS["pythia"]())
    before = hf_tensors(folder)

    def add(tensors: dict[str, Tensor]) -> None:
        for index in range(2):
            prefix = f"gpt_neox.layers.{index}.attention"
            tensors[f"{prefix}.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.bool)
            tensors[f"{prefix}.masked_bias"] = torch.tensor(-1e9)
            tensors[f"{prefix}.rotary_emb.inv_freq"] = torch.ones(4)

    rewrite(folder, add)
    assert_same(before, round_trip(folder, tmp_path / "out"))


def test_a_tied_head_in_the_file_is_dropped_if_equal_and_refused_if_not(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "falcon", FalconConfig(**SIZES))
    before = hf_tensors(folder)
    embedding = before["transformer.word_embeddings.weight"]
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": embedding.clone()}))
    assert_same(before, round_trip(folder, tmp_path / "out"))
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": embedding + 1}))
    with pytest.raises(CheckpointError, match=r'lm_head\.weight .* differs .* set "tie_word_embeddings": false'):
        convert(folder, overwrite=True)
    set_config(folder, tie_word_embeddings=False)
    convert(folder)
    assert "lm_head.weight" in load_weights(folder / "lit_model.safetensors")


def test_dtypes_are_kept_tensor_by_tensor(llama: Path, tmp_path: Path) -> None:
    rewrite(llama, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"].half()}))
    before = hf_tensors(llama)
    assert_same(before, round_trip(llama, tmp_path / "out"))


def test_config_json_names_the_dtype_of_the_weights(llama: Path, tmp_path: Path) -> None:
    """Weights finetuned in another dtype would else be rounded when transformers loads them."""
    set_config(llama, torch_dtype="float16", dtype="float16")
    round_trip(llama, tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"


@pytest.mark.skipif(not STORIES.is_dir(), reason="the model is not here")
def test_a_real_model_goes_through(tmp_path: Path) -> None:
    folder = tmp_path / "stories260K-hf"
    shutil.copytree(STORIES, folder)
    before = hf_tensors(folder)
    after = round_trip(folder, tmp_path / "out")
    assert_same({name: tensor for name, tensor in before.items() if name in after}, after)
    assert set(before) - set(after) <= {"lm_head.weight"}
    for name in ("tokenizer.json", "tokenizer.model", "generation_config.json", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


def test_a_finished_conversion_is_not_repeated(llama: Path) -> None:
    made = llama / "lit_model.safetensors"
    assert "Converted" in convert(llama)[-1]
    stamp = made.stat().st_mtime_ns
    assert "converted already" in convert(llama)[0]
    assert made.stat().st_mtime_ns == stamp
    assert "Converted" in convert(llama, overwrite=True)[-1]
    made.write_bytes(b"cut short")
    assert "Converted" in convert(llama)[-1]
    (llama / "model_config.yaml").unlink()
    assert "Converted" in convert(llama)[-1]
    os.utime(llama / "config.json", ns=(2 * stamp, 2 * stamp))
    assert "Converted" in convert(llama)[-1]


def test_other_weights_are_converted_though_their_date_is_older(llama: Path, tmp_path: Path) -> None:
    """A file that is moved here, or copied with its date, is older than what was made of the one before it."""
    other = tmp_path / "other.safetensors"
    save_file({name: tensor + 1 for name, tensor in hf_tensors(llama).items()}, other, {"format": "pt"})
    os.utime(other, ns=(10**18, 10**18))
    convert(llama)
    other.rename(llama / "model.safetensors")
    assert "Converted" in convert(llama)[-1]
    ours = load_weights(llama / "lit_model.safetensors")["transformer.wte.weight"]
    assert torch.equal(ours, hf_tensors(llama)["model.embed_tokens.weight"])
    assert "converted already" in convert(llama)[0]


def test_nothing_is_left_of_a_refused_conversion(llama: Path) -> None:
    rewrite(llama, lambda tensors: tensors.pop("model.norm.weight"))
    before = sorted(llama.iterdir())
    with pytest.raises(CheckpointError):
        convert(llama)
    assert sorted(llama.iterdir()) == before


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.pop(NORM), rf"lacks the tensor {NORM}"),
        (lambda tensors: tensors.update({NORM: torch.ones(31)}), rf"{NORM} .* shape \[31\]; .* asks for \[32\]"),
        (lambda tensors: tensors.update({NORM: torch.ones(32).char()}), rf"{NORM} .* is int8; litft reads"),
        (lambda tensors: tensors.update({"model.layers.2.x": torch.ones(1)}), r"holds the tensor model\.layers\.2\.x"),
        (
            lambda tensors: tensors.update(
                {"model.layers.0.self_attn.q_proj.weight": tensors["model.layers.0.self_attn.q_proj.weight"].half()}
            ),
            r"must share a dtype.*q_proj\.weight is float16.*k_proj\.weight is float32",
        ),
    ],
)
def test_wrong_tensors_are_named(llama: Path, change: Callable[[dict[str, Tensor]], Any], sentence: str) -> None:
    rewrite(llama, change)
    with pytest.raises(CheckpointError, match=sentence):
        convert(llama)


def test_a_missing_or_unnamed_shard_is_named(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", LlamaConfig(**LLAMA), max_shard_size="20KB")
    index = folder / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    last = sorted(set(values["weight_map"].values()))[-1]
    (folder / last).rename(folder / "away")
    with pytest.raises(CheckpointError, match=f"shard {last} .* missing from"):
        convert(folder)
    (folder / "away").rename(folder / last)
    fewer = {name: shard for name, shard in values["weight_map"].items() if shard != last}
    index.write_text(json.dumps({"weight_map": fewer}))
    with pytest.raises(CheckpointError, match=f"does not name the shard {last}"):
        convert(folder)
    index.write_text(json.dumps({"weight_map": {**values["weight_map"], "ghost": last}}))
    with pytest.raises(CheckpointError, match="ghost should be in"):
        convert(folder)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"the index model\.safetensors\.index\.json is missing"):
        convert(folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/x.safetensors", "a\\b.safetensors", "c:x.bin", ".."])
def test_an_index_that_leaves_its_folder_is_refused(llama: Path, shard: str) -> None:
    (llama / "model.safetensors").rename(llama.parent / "model.safetensors")
    (llama / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
    with pytest.raises(CheckpointError, match="no weight file beside it"):
        convert(llama)


def test_truncated_weights_are_a_sentence(llama: Path) -> None:
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged: it has"):
        convert(llama)


class _Code:
    """Runs a command when unpickled by a reader that allows it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_code_in_a_bin_file_is_refused_and_not_run(llama: Path, tmp_path: Path) -> None:
    torch.save({"model.norm.weight": _Code(tmp_path / "ran")}, llama / "pytorch_model.bin")
    (llama / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin holds something else than tensors"):
        convert(llama)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_or_odd_bin_file_is_a_sentence(llama: Path) -> None:
    (llama / "model.safetensors").unlink()
    path = llama / "pytorch_model.bin"
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="cannot be read"):
        convert(llama)
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="cannot be read"):
        convert(llama)
    torch.save({"step": 3}, path)
    with pytest.raises(CheckpointError, match="not a map from names to tensors"):
        convert(llama)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("adapter_config.json", "PEFT adapter"),
        ("m.gguf", "HF format"),
        ("lit_model.pth", "from_litgpt"),
        ("x.txt", "no Hugging Face weights"),
    ],
)
def test_a_folder_without_weights_says_what_it_is(llama: Path, file: str, sentence: str) -> None:
    (llama / "model.safetensors").unlink()
    (llama / file).touch()
    with pytest.raises(CheckpointError, match=sentence):
        convert(llama)


def test_export_refuses_what_it_would_destroy(llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match="is not converted"):
        to_hf(ToHfConfig(checkpoint_dir=llama, out_dir=out))
    convert(llama)
    with pytest.raises(ConfigError, match="which this command reads"):
        to_hf(ToHfConfig(checkpoint_dir=llama, out_dir=llama, overwrite=True))
    to_hf(ToHfConfig(checkpoint_dir=llama, out_dir=out, max_shard_size="20KB"))
    with pytest.raises(ConfigError, match="not empty"):
        to_hf(ToHfConfig(checkpoint_dir=llama, out_dir=out))
    to_hf(ToHfConfig(checkpoint_dir=llama, out_dir=out, overwrite=True))
    assert [path.name for path in sorted(out.glob("model*"))] == ["model.safetensors"]
    (out / "export_report.json").unlink()
    with pytest.raises(ConfigError, match="this command did not write it"):
        to_hf(ToHfConfig(checkpoint_dir=llama, out_dir=out, overwrite=True))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_export_refuses_a_config_json_of_another_model(llama: Path, tmp_path: Path) -> None:
    convert(llama)
    set_config(llama, rms_norm_eps=0.5)
    with pytest.raises(CheckpointError, match=r"norm_eps is 1e-06 in .*model_config\.yaml and 0\.5 by"):
        to_hf(ToHfConfig(checkpoint_dir=llama, out_dir=tmp_path / "out"))


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5 MiB", 3 * 2**19), ("700", 700)])
def test_shard_sizes(text: str, size: int) -> None:
    assert ToHfConfig(checkpoint_dir=Path("a"), out_dir=Path("b"), max_shard_size=text).max_shard_bytes == size


@pytest.mark.parametrize("text", ["", "5XB", "-1GB", "0"])
def test_wrong_shard_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match="max_shard_size"):
        ToHfConfig(checkpoint_dir=Path("a"), out_dir=Path("b"), max_shard_size=text)
