"""What a user gets wrong ends in exit code 2 and one sentence that says what, where and what to do; nothing is written.

Every test goes through the real command line, on real files that are spoilt in one way.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import FINETUNE, Refused, assert_one_sentence, tree
from safetensors.torch import load_file, save_file
from tiny_hf import csv_lines, write_csv
from tiny_text import byte_tokenizer

from litft.cli import main
from litft.data.store import PreparedData

LORA = ["finetune", "lora", *FINETUNE, "--out_dir", "new"]
AGAIN = LORA[:-2]  # to out/lora/csv, where a finished run lies
PREPARE = ["prepare", "csv", "--checkpoint_dir", "acme/tiny", "--destination_path", "data/new"]
CSV = [*PREPARE, "--data_file", "rows.csv"]
LIMA = ["prepare", "lima", "--checkpoint_dir", "acme/tiny", "--data_file", "rows.jsonl"]
GENERATE = ["generate", "--checkpoint_dir", "acme/tiny"]
MERGE = ["merge", "--checkpoint_dir", "out/lora/csv/final"]
ROOT = Path(__file__).parents[2]


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut(path: Path, n_bytes: int = 100) -> None:
    path.write_bytes(path.read_bytes()[:-n_bytes])


# --- flags and YAML ---

BAD_FLAGS: list[tuple[list[str], list[str]]] = [
    (["finetun", "lora"], ["finetun lora", 'Did you mean "finetune lora"']),
    (["finetune", "--seed", "1"], ["finetune needs a name behind it", "litft finetune --help"]),
    (["prepare", "alpacca"], ['Did you mean "prepare alpaca"']),
    (["--checkpoint_dir", "x"], ["litft --help"]),
    ([*LORA, "--max_iterz", "3"], ["--max_iterz", 'Did you mean "--max_iters"']),
    ([*LORA, "--lora.rank", "3"], ["--lora.rank"]),
    ([*LORA, "--train.max_iter", "3"], ["--train.max_iter", 'Did you mean "--train.max_iters"']),
    ([*LORA, "--lora.r", "-4"], ["lora.r is -4", "at least 1"]),
    ([*LORA, "--lora.r", "four"], ["--lora.r", '"four"', "a whole number"]),
    ([*LORA, "--lora.r", "4\n5"], ["--lora.r", "a whole number"]),
    ([*LORA, "--learning_rate", "1e999"], ["--learning_rate", "1e999", "a number"]),
    ([*LORA, "--precision", "fp8"], ["--precision", '"fp8"', "bf16-true, bf16-mixed or 32-true"]),
    ([*LORA, "--overwrite", "perhaps"], ["--overwrite", '"perhaps"', "true or false"]),
    ([*LORA, "--lora.targets", "q,w"], ['"w"', "q, k, v, proj, mlp, head"]),
    ([*LORA, "--lora.targets", "q,q"], ["['q', 'q']", "each once"]),
    ([*LORA, "--max_seq_length", "0"], ["train.max_seq_length is 0", "at least 2"]),
    ([*LORA, "--max_time", "soon"], ['"soon"', "24:00:00"]),
    ([*LORA, "--seed", "-1"], ["seed is -1"]),
    ([*LORA, "--save_interval", "1.5"], ["train.save_interval is 1.5", "whole number of steps"]),
    ([*LORA, "--epochs", "null"], ["no end", "train.max_iters"]),
    ([*LORA, "--micro_batch_size", "3"], ["train.global_batch_size is 16", "train.micro_batch_size is 3", "multiple"]),
    ([*LORA, "--seed", "1", "--seed", "2"], ["--seed", "twice"]),
    ([*LORA, "--seed"], ["--seed needs a value"]),
    ([*LORA, "--seed", "--max_iters", "3"], ["--seed needs a value"]),
    ([*LORA, "--resume"], ["--resume needs a value"]),
    ([*LORA, "--lr", "1e-4"], ["Unknown flag --lr.", 'Did you mean "--optim.learning_rate"?']),
    ([*LORA, "--sweep.lr", "1e-4,3e-4"], ["Unknown flag --sweep.lr.", 'Did you mean "--sweep.optim.learning_rate"?']),
    ([*LORA, "--optim.lr", "1e-4"], ["Unknown flag --optim.lr.", 'Did you mean "--optim.learning_rate"?']),
    ([*LORA, "q,v"], ['"q,v"', "--name value"]),
    (["finetune", "lora", "--data_dir", "data/csv"], ["--checkpoint_dir must be given", "litft finetune lora --help"]),
    (["finetune", "lora"], ["--checkpoint_dir and --data_dir must be given"]),
    ([*CSV, "--max_seq_length", "0"], ["max_seq_length is 0", "at least 2"]),
    ([*CSV, "--test_split_fraction", "1"], ["test_split_fraction is 1"]),
    ([*CSV, "--prompt_style", "alpacca"], ['"alpacca"', 'Did you mean "alpaca"']),
    ([*CSV, "--columns", "out=answer"], ['"out"', 'Did you mean "output"']),
    ([*GENERATE, "--prompt", "a", "--instruction", "b"], ["--prompt", "--instruction", "one of them"]),
    (GENERATE, ["--prompt", "--instruction", "one of them"]),
    ([*GENERATE, "--prompt", "a", "--input", "b"], ["--input goes with --instruction"]),
    ([*GENERATE, "--prompt", "a", "--top_p", "2"], ["top_p is 2"]),
    ([*GENERATE, "--prompt", "a", "--temperature", "-1"], ["temperature is -1"]),
    ([*GENERATE, "--prompt", "a", "--max_new_tokens", "0"], ["max_new_tokens is 0"]),
    (["download", "--repo_id", "tiny"], ['"tiny"', "ORG/NAME"]),
    (["convert", "to_hf", "--checkpoint_dir", "acme/tiny", "--out_dir", "x", "--max_shard_size", "big"], ['"big"']),
]


@pytest.mark.parametrize(("words", "contents"), BAD_FLAGS, ids=lambda value: " ".join(value)[-40:])
def test_a_mistaken_flag(refused: Refused, words: list[str], contents: list[str]) -> None:
    refused(words, *contents)


def test_a_group_without_a_name_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 2
    shown = capsys.readouterr()
    usage, *_, last = shown.err.splitlines()
    assert shown.out == "" and usage.startswith("usage: litft list models|datasets|")
    assert last == "litft: list needs a name behind it: litft list --help lists them."


BAD_YAML: list[tuple[str, list[str]]] = [
    ("train:\n  max_iterz: 3\n", ['"train.max_iterz"', "run.yaml", 'Did you mean "train.max_iters"']),
    ("lora:\n  r: 4\nlora:\n  r: 8\n", ["run.yaml, line 3", '"lora"', "twice"]),
    ("r: 4\nlora:\n  r: 8\n", ["run.yaml", "lora.r", "twice"]),
    ("lora: [\n", ["run.yaml, line 2", "not valid YAML"]),
    ("- lora\n", ["run.yaml", "a list", "a mapping"]),
    ("lora:\n  r: four\n", ["lora.r in run.yaml", '"four"', "a whole number"]),
    ("seed: [1]\n", ["seed in run.yaml", "a whole number"]),
    ("out_dir: [a]\n", ["out_dir in run.yaml", "a path"]),
    ("checkpoint_dir:\n", ["checkpoint_dir in run.yaml", "a path"]),
    ("lora: 4\n", ['"lora"', "run.yaml"]),
    ("? [a]\n: 1\n", ["run.yaml, line 1"]),
    ("seed: \x07\n", ["run.yaml", "not valid YAML"]),
    ("seed: !!python/name:os.system\n", ["run.yaml, line 1"]),
]


@pytest.mark.parametrize(("text", "contents"), BAD_YAML, ids=lambda value: repr(value)[:30])
def test_a_mistaken_yaml(refused: Refused, text: str, contents: list[str]) -> None:
    Path("run.yaml").write_text(text)
    given = [] if text.startswith("checkpoint_dir") else AGAIN[2:]
    refused([*LORA[:2], *given, "--config", "run.yaml"], *contents)


def test_a_yaml_that_is_not_there_or_no_text(refused: Refused) -> None:
    refused([*LORA, "--config", "none.yaml"], "none.yaml", "No such file")
    Path("run.yaml").write_bytes(b"seed: \xff\n")
    refused([*LORA, "--config", "run.yaml"], "run.yaml", "UTF-8")


# --- checkpoints ---


@pytest.mark.parametrize("words", [LORA[:2], ["prepare", "csv"], GENERATE[:1], ["convert", "from_hf"]], ids=" ".join)
def test_a_checkpoint_that_is_not_there(refused: Refused, words: list[str]) -> None:
    needed = {"finetune": LORA[4:], "prepare": CSV[4:], "generate": ["--prompt", "a"], "convert": []}
    refused([*words, "--checkpoint_dir", "acme/tinny", *needed[words[0]]], '"acme/tinny"', 'Did you mean "acme/tiny"')


def test_a_run_where_a_model_is_meant(refused: Refused) -> None:
    for words in (["generate", "--prompt", "a"], ["merge"], ["convert", "to_hf", "--out_dir", "new"]):
        refused([*words, "--checkpoint_dir", "out/lora/csv"], "folder of a run", "out/lora/csv/final")


def test_adapters_where_a_whole_model_is_meant(refused: Refused) -> None:
    words = [*LORA[:2], *LORA[4:], "--checkpoint_dir"]
    command = "`litft merge --checkpoint_dir out/lora/csv/final`"
    refused([*words, "out/lora/csv/final"], "only lora.safetensors", command)
    assert "litft merge" not in refused([*words, "out/adapter/csv/final"], "only adapter.safetensors", "cannot be")


DESCRIPTIONS = [
    ("n_layer: 3", "n_layer: 4", ["lit_model.safetensors lacks", "transformer.h.3"]),
    ("n_embd: 32", "n_embd: 64", ["lm_head.weight", "[320, 32]", "[320, 64]"]),
    ("n_layer: 3", "n_layer: x", ["model_config.yaml", "n_layer", "'x'"]),
    ("norm: rmsnorm", "norm: rms", ["model_config.yaml", "norm", "'rms'"]),
    ("n_head: 4", "n_heads: 4", ["model_config.yaml", '"n_heads"', 'Did you mean "n_head"']),
    ("n_head: 4\n", "", ["model_config.yaml", "lacks n_head"]),
    ("n_layer: 3", "n_layer: 0", ["n_layer of tiny is 0", "at least 1"]),
]


@pytest.mark.parametrize(("old", "new", "contents"), DESCRIPTIONS, ids=lambda value: str(value)[:20])
def test_a_description_that_does_not_fit_the_weights(refused: Refused, old: str, new: str, contents: list[str]) -> None:
    path = Path("checkpoints/acme/tiny/model_config.yaml")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    refused(LORA, *contents)
    refused([*GENERATE, "--prompt", "a"], *contents)


def test_a_checkpoint_that_is_a_file(refused: Refused) -> None:
    refused([*GENERATE[:2], "rows.csv", "--prompt", "a"], "rows.csv is a file")


def test_a_checkpoint_that_is_not_converted(refused: Refused) -> None:
    raw = ["--checkpoint_dir", "acme/raw"]
    command = "`litft convert from_hf --checkpoint_dir checkpoints/acme/raw`"
    for words in ([*LORA[:2], *LORA[4:], *raw], ["generate", *raw, "--prompt", "a"]):
        refused(words, "not converted", command)


def test_a_folder_that_is_no_checkpoint(refused: Refused) -> None:
    folder = ["--checkpoint_dir", "data"]
    refused([*LORA[:2], *LORA[4:], *folder], "data is not a checkpoint")
    for words in (["prepare", "csv", *folder, *CSV[4:]], ["convert", "from_hf", *folder]):
        refused(words, "data/config.json", "is data a model folder?")


def test_a_model_file_cut_short(refused: Refused) -> None:
    path = Path("checkpoints/acme/raw/model.safetensors")
    cut(path)
    refused(["convert", "from_hf", "--checkpoint_dir", "acme/raw"], str(path), "damaged", "bytes")
    path.write_bytes(path.read_bytes()[:4])
    refused(["convert", "from_hf", "--checkpoint_dir", "acme/raw"], str(path), "damaged")


def test_a_converted_file_cut_short(refused: Refused) -> None:
    path = Path("checkpoints/acme/tiny/lit_model.safetensors")
    cut(path)
    refused(LORA, str(path), "damaged", "bytes")
    refused([*GENERATE, "--prompt", "a"], str(path), "damaged")


def test_a_shard_that_is_missing(refused: Refused) -> None:
    folder = Path("checkpoints/acme/sharded")
    words = ["convert", "from_hf", "--checkpoint_dir", "acme/sharded"]
    index = folder / "model.safetensors.index.json"
    whole = index.read_text()
    weight_map = json.loads(whole)["weight_map"]
    last = max(weight_map.values())
    edit_json(index, weight_map={key: name for key, name in weight_map.items() if name != last})
    refused(words, str(index), last)
    index.write_text(whole)
    (folder / last).unlink()
    refused(words, last, "missing")
    index.unlink()
    refused(words, "model.safetensors.index.json is missing")


def test_a_family_that_is_not_known(refused: Refused) -> None:
    edit_json(Path("checkpoints/acme/raw/config.json"), model_type="bert")
    words = ["convert", "from_hf", "--checkpoint_dir", "acme/raw"]
    refused(words, '"bert"', "llama", "mistral", "falcon", "gpt_neox")


def test_a_tensor_too_many_or_too_few(refused: Refused) -> None:
    path = Path("checkpoints/acme/raw/model.safetensors")
    tensors = load_file(path)
    words = ["convert", "from_hf", "--checkpoint_dir", "acme/raw"]
    save_file({**tensors, "model.extra.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    refused(words, "model.extra.weight", "no place")
    tensors.pop("model.norm.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    refused(words, "lacks the tensor model.norm.weight")


def test_a_description_that_is_no_json(refused: Refused) -> None:
    cut(Path("checkpoints/acme/raw/config.json"), 5)
    refused(["convert", "from_hf", "--checkpoint_dir", "acme/raw"], "config.json", "not valid JSON")
    Path("checkpoints/acme/raw/config.json").unlink()
    refused(["convert", "from_hf", "--checkpoint_dir", "acme/raw"], "config.json", "No such file")


def test_a_tokenizer_that_is_missing(refused: Refused) -> None:
    Path("checkpoints/acme/tiny/tokenizer.json").unlink()
    refused(LORA, "checkpoints/acme/tiny", "tokenizer.json")


# --- data ---


def test_data_of_another_tokenizer(refused: Refused) -> None:
    byte_tokenizer(("first",)).save("checkpoints/acme/tiny/tokenizer.json")
    said = refused(
        LORA, "data/csv/train.pt", "litft prepare csv --checkpoint_dir checkpoints/acme/tiny --data_file rows"
    )
    assert "--destination_path data/csv-tiny`" in said and "--overwrite" not in said  # which would lose the other's


def test_a_data_folder_that_is_not_there(refused: Refused) -> None:
    words = ["finetune", "lora", "--checkpoint_dir", "acme/tiny", "--data_dir"]
    refused([*words, "/data/csv"], "/data/csv", 'Did you mean "data/csv"')
    refused([*words, "data/cvs"], "data/cvs", 'Did you mean "data/csv"')
    refused([*words, "rows.csv"], "rows.csv is a file", "litft prepare")
    refused([*words, "data"], "train.pt", "did you mean data/csv?")
    refused([*words, "checkpoints"], "train.pt", "litft prepare")


def test_a_data_folder_that_is_incomplete(refused: Refused) -> None:
    train = Path("data/csv/train.pt")
    whole = train.read_bytes()
    train.write_bytes(whole[: len(whole) // 2])
    refused(LORA, "data/csv/train.pt", "damaged")
    train.write_bytes(whole)
    Path("data/csv/test.pt").unlink()
    refused(LORA, "data/csv", "no test.pt", "--test_split_fraction")
    manifest = Path("data/csv/manifest.yaml")
    manifest.write_bytes(b"")
    given = ["--data_dir", "data/csv"]
    score = ["curate", "score", *given, "--checkpoint_dir", "acme/tiny", "--destination_path", "data/scored"]
    mix = ["prepare", "mix", "--data_dirs", "data/csv", "--destination_path", "data/mix"]
    for words in (LORA, ["inspect", *given], ["export", "data", *given, "--out_dir", "data/out"], score, mix):
        refused(words, "data/csv is unfinished or damaged", "manifest.yaml", "prepare it again")
    assert [path.name for path in Path("data").iterdir()] == ["csv"]
    manifest.unlink()
    refused(LORA, "manifest.yaml", "interrupted")


def test_rows_that_are_all_too_long(refused: Refused) -> None:
    refused([*LORA, "--max_seq_length", "5"], "data/csv/train.pt", "5 tokens")
    refused([*CSV, "--max_seq_length", "5"], "Nothing is left", "5 tokens", "--max_seq_length may go up to 2048")


BAD_CSV: list[tuple[str, list[str]]] = [
    ("question,answer\na,b\n", ['"instruction" and "output"', '"question", "answer"', "--columns"]),
    ("Frage;Antwort\na;b\n", ['"Frage", "Antwort"', "--columns instruction=YOUR_COLUMN,output=YOUR_COLUMN"]),
    ("instruction,output\na,\nb,\n", ["2 of 2 rows", "line 2", '"output" is empty']),
    ("instruction,output\n", ["no rows"]),
    ("", ["empty"]),
    ('instruction,output\na,b\nc,"d\ne,f\n', ["line 3", "quote"]),
    ('instruction,output\na,"b"c\n', ["line 2", "quote"]),
    ("instruction,output\na,b,c\nd,e\n", ["line 2", "3 cells where the header has 2", "max_rejected_fraction"]),
    ("instruction,output,output\na,b,c\n", ['"output" 2 times']),
]


@pytest.mark.parametrize(("text", "contents"), BAD_CSV, ids=lambda value: repr(value)[:30])
def test_a_csv_that_cannot_be_used(refused: Refused, text: str, contents: list[str]) -> None:
    Path("bad.csv").write_text(text)
    refused([*PREPARE, "--data_file", "bad.csv"], "bad.csv", *contents)


def test_a_csv_that_is_no_utf_8(refused: Refused) -> None:
    Path("bad.csv").write_bytes("instruction,output\na,b\ncafé,b\n".encode("latin-1"))
    refused([*PREPARE, "--data_file", "bad.csv"], "bad.csv, line 3", "UTF-8")


def test_a_csv_that_is_not_there(refused: Refused) -> None:
    refused([*PREPARE, "--data_file", "row.csv"], "row.csv", 'Did you mean "rows.csv"')
    refused([*PREPARE, "--data_file", "data"], "data is a folder")
    refused(PREPARE, "--data_file must be given")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
def test_a_byte_order_mark_and_windows_lines_change_nothing(project: Path, start: bytes, end: bytes) -> None:
    Path("other.csv").write_bytes(start + end.join(line.encode() for line in csv_lines()))
    assert main([*PREPARE, "--data_file", "other.csv"]) == 0
    made, wanted = (PreparedData.load(project / "data" / name / "train.pt") for name in ("new", "csv"))
    assert torch.equal(made.input_ids, wanted.input_ids) and torch.equal(made.target_mask, wanted.target_mask)


@pytest.mark.parametrize("row", ["3", '["a"]', '{"conversations": ["a", "b"]', "null"])
def test_a_json_line_that_is_no_object(refused: Refused, row: str) -> None:
    Path("rows.jsonl").write_text('{"conversations": ["a", "b"], "source": "x"}\n' + row + "\n")
    refused(LIMA, "rows.jsonl, line 2", "JSON")


def test_data_that_is_there_already(refused: Refused) -> None:
    refused([*CSV[:4], "--data_file", "rows.csv"], "data/csv already holds", "--overwrite true")
    refused([*CSV[:4], "--data_file", "rows.csv", "--destination_path", "rows.csv"], "rows.csv is a file")


# --- runs ---


def test_an_out_dir_that_is_taken(refused: Refused) -> None:
    refused([*AGAIN, "--out_dir", "rows.csv"], "rows.csv is a file")
    refused([*AGAIN, "--out_dir", "rows.csv/new"], "rows.csv is a file")
    refused(AGAIN, "out/lora/csv is not empty", "--resume auto", "--overwrite true")
    refused([*AGAIN, "--out_dir", "data", "--overwrite", "true"], "holds data/csv, which this command reads")
    refused([*AGAIN, "--out_dir", "checkpoints/acme/raw", "--overwrite", "true"], "this command did not write it")


def test_a_method_that_does_not_fit_the_model(refused: Refused) -> None:
    refused(
        ["finetune", "adapter", *LORA[2:], "--adapter.start_layer", "3"],
        "adapter.start_layer is 3",
        "tiny has 3 blocks",
    )
    tied = ["finetune", "lora", "--checkpoint_dir", "acme/tied", *LORA[4:]]
    refused([*tied, "--lora.targets", "q,head"], '"head"', "tied", "leave head out")


def test_a_run_that_has_ended_is_resumed(refused: Refused) -> None:
    refused([*AGAIN, "--resume", "auto"], "out/lora/csv has ended", "--overwrite true")


def test_a_run_resumed_under_other_settings(refused: Refused) -> None:
    Path("out/lora/csv/summary.json").unlink()  # as if it had been killed
    same = ["--micro_batch_size", "8", "--eval.max_new_tokens", "2", "--precision", "32-true", "--max_steps", "2"]
    same += ["--save_interval", "1", "--global_batch_size", "8"]
    refused([*AGAIN, *same, "--resume", "auto", "--lora.r", "4"], "lora.r 8", "this run has 4")
    refused([*AGAIN, *same, "--resume", "out/lora/csv/step-00000001", "--seed", "5"], "seed 1337", "this run has 5")


def test_a_step_checkpoint_that_is_damaged(refused: Refused) -> None:
    Path("out/lora/csv/summary.json").unlink()  # as if it had been killed
    step = Path("out/lora/csv/step-00000001")
    words = [*AGAIN, "--resume", str(step)]
    refused([*AGAIN, "--resume", "out/lora/csv/step-00000009"], "step-00000009", "not a whole step checkpoint")
    cut(step / "optimizer.safetensors")
    refused(words, str(step / "optimizer.safetensors"), "damaged", "sha256")
    (step / "optimizer.safetensors").unlink()
    refused(words, str(step), "not a whole step checkpoint")
    (step / "state.yaml").unlink()
    refused(words, str(step), "not a whole step checkpoint")


# --- what comes out of a run ---


def test_merging_what_cannot_be_merged(refused: Refused) -> None:
    refused(["merge", "--checkpoint_dir", "out/adapter/csv/final"], "run of adapter", "cannot be merged")
    refused(["merge", "--checkpoint_dir", "acme/tiny"], "method.yaml", "final")
    path = Path("out/lora/csv/final/lora.safetensors")
    tensors = load_file(path)
    save_file({name: tensor * (".lora_A" in name) for name, tensor in tensors.items()}, path)
    refused(MERGE, str(path), "has changed since it was written")
    Path(f"{path}.sha256").unlink()
    refused(MERGE, "change nothing", "train before merging")
    cut(path)
    refused(MERGE, str(path))


def test_merging_to_a_place_that_is_taken(refused: Refused) -> None:
    refused([*MERGE, "--out_dir", "rows.csv"], "rows.csv is a file")
    refused([*MERGE, "--out_dir", "data"], "data is not empty")
    refused([*MERGE, "--out_dir", "checkpoints/acme/tiny", "--overwrite", "true"], "which this command reads")
    refused([*MERGE, "--out_dir", "checkpoints/acme/tied", "--overwrite", "true"], "this command did not write it")


def test_a_base_that_is_not_the_one_trained_on(refused: Refused) -> None:
    final = ["--checkpoint_dir", "out/lora/csv/final"]
    weights = Path("checkpoints/acme/tiny/lit_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(["generate", *final, "--prompt", "a"], str(weights), "has changed since it was written", ".sha256")
    Path(f"{weights}.sha256").unlink()  # the change is meant
    refused(["generate", *final, "--prompt", "a"], str(weights), "out/lora/csv/final", "sha256 differs")
    refused(["merge", *final], str(weights), "sha256 differs")
    shutil.rmtree(weights.parent)
    refused(["generate", *final, "--prompt", "a"], "checkpoints/acme/tiny", "No checkpoint folder")


def test_a_method_file_that_is_damaged(refused: Refused) -> None:
    path = Path("out/lora/csv/final/method.yaml")
    words = ["generate", "--checkpoint_dir", "out/lora/csv/final", "--prompt", "a"]
    whole = path.read_text()
    path.write_text(whole.replace("method: lora", "method: lara"))
    refused(words, str(path), '"lara"', 'Did you mean "lora"')
    path.write_text(whole.replace("base:", "bases:"))
    refused(words, str(path), "incomplete or damaged")
    path.write_text("[")
    refused(words, str(path), "not valid YAML")


def test_an_export_to_a_place_that_is_taken(refused: Refused) -> None:
    words = ["convert", "to_hf", "--checkpoint_dir", "acme/tiny", "--out_dir"]
    refused([*words, "rows.csv"], "rows.csv", "a file")
    refused([*words, "data"], "data", "not empty")
    refused([*words, "checkpoints/acme/tiny", "--overwrite", "true"], "which this command reads")
    refused([*words, "rows.csv/new/hf"], "rows.csv is a file; name a folder")
    refused([*CSV[:4], "--data_file", "rows.csv", "--destination_path", "rows.csv/new"], "rows.csv", "Not a directory")


def test_a_prompt_that_cannot_be_answered(refused: Refused) -> None:
    refused([*GENERATE, "--prompt", "a" * 2100], "2101 tokens", "2048")


def test_a_step_that_is_too_large_stops_the_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--learning_rate", "1e30", "--precision", "32-true", "--max_steps", "1"]
    assert main([*LORA, *flags]) == 2
    assert "The held-out loss is nan after step 1; lower optim.learning_rate" in capsys.readouterr().err
    assert not Path("new/final").exists() and not Path("new/summary.json").exists()


# --- as a process ---


@pytest.mark.parametrize(
    "words",
    [["-m", "litft", "finetune", "lora"], [str(ROOT / "finetune" / "lora.py")]],
    ids=["litft", "script"],
)
def test_the_process_exits_with_two(project: Path, words: list[str]) -> None:
    before = tree(project)
    for flags, content in ((["--max_iterz", "3"], "max_iterz"), (["--checkpoint_dir", "acme/tinny"], "data_dir")):
        done = subprocess.run([sys.executable, *words, *flags], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert_one_sentence(done.stdout, done.stderr, content)
    assert tree(project) == before


def test_a_repaired_mistake_goes_through(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The refusals above would be worth nothing if the same commands, put right, did not run."""
    write_csv(Path("rows.csv"), 12)
    assert main(CSV) == 0
    assert main([*GENERATE, "--prompt", "a", "--max_new_tokens", "2"]) == 0
    assert main(MERGE) == 0
    assert main([*MERGE, "--overwrite", "true"]) == 0
    assert main(["convert", "from_hf", "--checkpoint_dir", "acme/sharded"]) == 0
    assert "Traceback" not in capsys.readouterr().err
