"""Flags and YAML become a config as people mean them, jsonargparse's own habits notwithstanding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from litft.config.answer import DemoConfig, GenerateConfig, MergeConfig
from litft.config.convert import FromHfConfig, ToHfConfig
from litft.config.download import DownloadConfig
from litft.config.io import dump_yaml, load_yaml
from litft.config.parse import HelpRequest, config_to_dict, parse_config
from litft.config.prepare import PrepareConfig, PrepareCsvConfig
from litft.config.run import AdapterRun, FullRun, LoRARun
from litft.config.train import parse_duration
from litft.errors import ConfigError

RUN = ["--checkpoint_dir", "model", "--data_dir", "data"]
RUNS = {"full": FullRun, "lora": LoRARun, "adapter": AdapterRun}


def parse(kind: type[Any], *words: str) -> Any:
    return parse_config(kind, words, "litft x", "what it does")


def lora(*words: str) -> LoRARun:
    return parse_config(LoRARun, [*RUN, *words], "litft finetune lora", "what it does")


def lora_from(tmp_path: Path, text: str, *words: str) -> LoRARun:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return lora("--config", str(path), *words)


def printed(kind: type[Any], *words: str) -> str:
    with pytest.raises(HelpRequest) as asked:
        parse(kind, *words, "--print_config")
    return str(asked.value)


# --- the defaults people rely on ---


def test_defaults_of_a_run() -> None:
    config = lora()
    assert (config.precision, config.resume, config.seed, config.out_dir) == ("bf16-true", False, 1337, None)
    assert (config.train.global_batch_size, config.train.micro_batch_size, config.train.epochs) == (16, 1, 1)
    assert (config.optim.betas, config.optim.weight_decay, config.optim.clip_norm) == ((0.9, 0.95), 0.01, 1.0)
    assert (config.lora.r, config.lora.alpha, config.lora.dropout, config.lora.targets) == (8, 16, 0.05, ("q", "v"))


@pytest.mark.parametrize(("method", "rate"), [("full", 2e-5), ("lora", 3e-4), ("adapter", 3e-3)])
def test_each_method_has_its_own_learning_rate(method: str, rate: float) -> None:
    assert parse(RUNS[method], *RUN).optim.learning_rate == rate


# --- spellings ---


@pytest.mark.parametrize("text", ["24:00:00", "24h", "1440m", "86400", "86400s", "1d"])
def test_a_duration_stays_as_it_is_written(tmp_path: Path, text: str) -> None:
    from_flag, from_yaml = lora("--max_time", text), lora_from(tmp_path, f"train:\n  max_time: {text}\n")
    assert from_flag.train.max_time == from_yaml.train.max_time == text
    assert parse_duration(text) == 86400


@pytest.mark.parametrize("text", ["q,v", "q, v", "[q,v]", "[q, v]", '["q", "v"]'])
def test_a_list_is_written_with_or_without_brackets(tmp_path: Path, text: str) -> None:
    assert lora("--lora.targets", text).lora.targets == ("q", "v")
    assert lora_from(tmp_path, f"lora:\n  targets: {text}\n").lora.targets == ("q", "v")


def test_a_list_of_one_and_a_list_of_numbers() -> None:
    assert lora("--targets", "proj").lora.targets == ("proj",)
    assert lora("--betas", "0.8,1e-1").optim.betas == lora("--betas", "[0.8, 0.1]").optim.betas == (0.8, 0.1)


@pytest.mark.parametrize("text", ["3e-4", "0.0003", "3E-04", ".0003", "+3e-4"])
def test_a_number_may_have_an_exponent(tmp_path: Path, text: str) -> None:
    from_flag, from_yaml = lora("--learning_rate", text), lora_from(tmp_path, f"learning_rate: {text}\n")
    assert from_flag.optim.learning_rate == from_yaml.optim.learning_rate == 3e-4


def test_a_leaf_name_that_is_unique_stands_alone(tmp_path: Path) -> None:
    config = lora("--max_iters", "1000", "--max_seq_length=2048", "--r", "4", "--interval", "epoch")
    assert (config.train.max_iters, config.train.max_seq_length, config.lora.r) == (1000, 2048, 4)
    assert config.eval.interval == "epoch"
    text = "max_iters: 1000\nmax_seq_length: 2048\nr: 4\ninterval: epoch\n"
    assert lora_from(tmp_path, text) == config
    dotted = "train.max_iters: 1000\ntrain.max_seq_length: 2048\nlora.r: 4\neval:\n  interval: epoch\n"
    assert lora_from(tmp_path, dotted) == config


def test_lit_gpts_spellings() -> None:
    for flag in ("--csv_dir", "--csv_path"):
        config = parse(PrepareCsvConfig, "--checkpoint_dir", "model", flag, "rows.csv")
        assert config.data_file == Path("rows.csv")
    assert lora("--override_max_seq_length", "256").train.max_seq_length == 256
    config = parse(PrepareConfig, "--checkpoint_dir", "model", "--override_max_seq_length", "256")
    assert config.max_seq_length == 256
    with pytest.raises(ConfigError, match=r"Unknown flag --csv_dir"):
        lora("--csv_dir", "x")


def test_columns_of_a_csv() -> None:
    for text in ("instruction=question,output=answer", "{instruction: question, output: answer}"):
        config = parse(PrepareCsvConfig, "--checkpoint_dir", "model", "--data_file", "a.csv", "--columns", text)
        assert config.columns == {"instruction": "question", "output": "answer"}


def test_resume_is_false_true_auto_or_a_path(tmp_path: Path) -> None:
    for text, wanted in {"false": False, "true": True, "auto": "auto", "out/step-1": "out/step-1"}.items():
        assert lora("--resume", text).resume == lora_from(tmp_path, f"resume: {text}\n").resume == wanted


def test_null_unsets_what_yaml_set(tmp_path: Path) -> None:
    text = "out_dir: x\ntrain:\n  max_time: 1h\noptim:\n  clip_norm: 2\n"
    assert lora_from(tmp_path, text).train.max_time == "1h"
    config = lora_from(tmp_path, text, "--out_dir", "null", "--max_time", "null", "--clip_norm", "null")
    assert (config.out_dir, config.train.max_time, config.optim.clip_norm) == (None, None, None)


def test_flags_override_yaml_and_a_heading_may_be_empty(tmp_path: Path) -> None:
    config = lora_from(tmp_path, "lora:\n  r: 4\n  alpha: 2\ntrain:\n", "--lora.r", "6")
    assert (config.lora.r, config.lora.alpha, config.train) == (6, 2, lora().train)


def test_a_path_opens_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert lora("--out_dir=~/run").out_dir == lora_from(tmp_path, "out_dir: ~/run\n").out_dir == Path("/home/ada/run")
    assert lora("--out_dir", "#1").out_dir == Path("#1")


# --- text for the model arrives letter for letter ---

ODD_TEXTS = [
    "null", "~", "true", "no", "1e3", "0x10", "007", "24:00:00", "{a: b}", "[1, 2]", "[", "{", "- x", "a: b", "#x",
    "  leading and trailing  ", "\n", "two\nlines\n", "\ttab", "'quoted'", '"quoted"', "@file", "!!tag", "&a *b", "",
    "$HOME ${x} %d {}", "a=b,c=d", "--", "-5", "--not-a-flag", "née 🦙", "back\\slash \\n", "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: repr(text)[:20])
@pytest.mark.parametrize("leaf", ["prompt", "instruction"])
def test_odd_text_is_not_changed(tmp_path: Path, leaf: str, text: str) -> None:
    for words in ([f"--{leaf}", text], [f"--{leaf}={text}"]):
        assert getattr(parse(GenerateConfig, "--checkpoint_dir", "x", *words), leaf) == text
    config = parse(GenerateConfig, "--checkpoint_dir", "x", f"--{leaf}", text)
    path = tmp_path / "ask.yaml"
    path.write_text(dump_yaml(config_to_dict(config)), encoding="utf-8")
    assert parse(GenerateConfig, "--config", str(path)) == config


@pytest.mark.parametrize("text", ODD_TEXTS[:-1], ids=lambda text: repr(text)[:20])
def test_odd_input_is_not_changed(text: str) -> None:
    words = ["--checkpoint_dir", "x", "--instruction", "a", "--input", text]
    assert parse(GenerateConfig, *words).input == text


@given(st.text(st.characters(codec="utf-8")))
@settings(max_examples=50, deadline=None)
def test_any_text_is_not_changed(text: str) -> None:
    assert parse(GenerateConfig, "--checkpoint_dir", "x", f"--prompt={text}").prompt == text


def test_a_flag_is_a_value_only_after_an_equals_sign() -> None:
    assert parse(GenerateConfig, "--checkpoint_dir", "x", "--prompt=--help").prompt == "--help"
    with pytest.raises(ConfigError, match="--prompt needs a value"):
        parse(GenerateConfig, "--checkpoint_dir", "x", "--prompt", "--seed", "3")


@pytest.mark.parametrize(
    ("text", "stops"),
    [
        ("User:", ("User:",)),
        ("User:,AI:", ("User:", "AI:")),
        ("\n", ("\n",)),
        (" ", (" ",)),
        ("3", ("3",)),
        ("[INST]", ("[INST]",)),
        ('["a,b", "\\n"]', ("a,b", "\n")),
    ],
)
def test_stop_texts(text: str, stops: tuple[str, ...]) -> None:
    assert parse(GenerateConfig, "--checkpoint_dir", "x", "--prompt", "a", "--stop", text).stop == stops


# --- what is refused, and how ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_iterz", "3"], r'Unknown flag --max_iterz\. Did you mean "--max_iters"\?'),
        (["--train.max_iterz", "3"], r'Unknown flag --train\.max_iterz\. Did you mean "--train\.max_iters"\?'),
        (["--optim", "3"], r"^--optim is a section, not a value; set the keys in it, such as --optim\.\w+ VALUE\.$"),
        (["--zzz", "3"], r"^Unknown flag --zzz\. --help lists all flags\.$"),
        (["--seed", "x"], r'^--seed is "x"; it must be a whole number\.$'),
        (["--lora.dropout", "nan"], r'^--lora\.dropout is "nan"; it must be a number\.$'),
        (["--learning_rate=1e999"], r'^--learning_rate is "1e999"; it must be a number\.$'),
        (["--interval", "often"], r"must be a number or epoch\.$"),
        (["--betas", "0.9"], r"must be a list such as \[0\.9, 0\.9\]\.$"),
        (["--max_iters", "3", "--train.max_iters", "3"], r"^--train\.max_iters is given twice\.$"),
        (["--config"], r"^--config needs a value\.$"),
        (["-r", "3"], r'^"-r" on the command line belongs to no flag'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_mistaken_flag_is_named(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lora(*words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_iterz: 3\n", r'^Unknown key "max_iterz" in .*run\.yaml\. Did you mean "max_iters"\?$'),
        ("lora:\n  rank: 3\n", r'^Unknown key "lora\.rank" in .*run\.yaml\.'),
        ("seed: x\n", r'^seed in .*run\.yaml is "x"; it must be a whole number\.$'),
        ("seed: 1.5\n", r'"1\.5"; it must be a whole number'),
        ("r: 1\nlora.r: 2\n", r"run\.yaml sets lora\.r twice\.$"),
        ("out_dir: {a: b}\n", r"must be a path or null\.$"),
        ("learning_rate: .nan\n", r"must be a number\.$"),
        ("1: 2\n", r'^Unknown key "1"'),
        ("optimm:\n  seed: 3\n", r'^Unknown key "optimm" in .*run\.yaml\. Did you mean "optim"\?$'),
        (
            "optim: [a]\n",
            r'^"optim" in .*run\.yaml is a section, not a value; set the keys in it, such as optim\.\w+\.$',
        ),
    ],
)
def test_a_mistaken_key_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        lora_from(tmp_path, text)


def test_what_must_be_given_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--checkpoint_dir and --data_dir must be given; see litft x --help\.$"):
        parse(LoRARun)


# --- help and --print_config ---


def test_help_shows_every_leaf_its_default_and_the_examples() -> None:
    with pytest.raises(HelpRequest) as asked:
        parse_config(LoRARun, ["--help"], "litft finetune lora", "train adapters\n\nexample: litft ...")
    text = str(asked.value)
    for name in ("--checkpoint_dir", "--train.max_iters", "--lora.targets", "--optim.learning_rate", "--config"):
        assert name in text
    assert "(required)" in text and "example: litft ..." in text and "litft finetune lora" in text


CHANGED = ["--learning_rate", "1e-4", "--max_time", "24:00:00", "--eval.interval", "epoch", "--max_iters", "7"]
KINDS: list[tuple[type[Any], list[str]]] = [
    *((kind, [*RUN, *CHANGED]) for kind in RUNS.values()),
    *((kind, RUN) for kind in RUNS.values()),
    (LoRARun, [*RUN, "--targets", "q,k", "--resume", "auto", "--clip_norm", "null", "--betas", "0.5,0.6"]),
    (PrepareCsvConfig, ["--checkpoint_dir", "x", "--columns", "output=null,input=1e3", "--data_file", "no"]),
    (PrepareConfig, ["--checkpoint_dir", "x", "--revision", "1e3"]),
    (GenerateConfig, ["--checkpoint_dir", "x", "--prompt", "null", "--stop", "1e3,no", "--top_p", "0.5"]),
    (MergeConfig, ["--checkpoint_dir", "x"]),
    (FromHfConfig, ["--checkpoint_dir", "007"]),
    (ToHfConfig, ["--checkpoint_dir", "x", "--out_dir", "y"]),
    (DownloadConfig, ["--repo_id", "a/b"]),
    (DemoConfig, []),
]


@pytest.mark.parametrize(("kind", "words"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_printed_is_read_back(tmp_path: Path, kind: type[Any], words: list[str]) -> None:
    path = tmp_path / "printed.yaml"
    path.write_text(printed(kind, *words), encoding="utf-8")
    assert parse(kind, "--config", str(path)) == parse(kind, *words)
    assert config_to_dict(parse(kind, *words)) == load_yaml(path) | (
        {"access_token": None} if kind is DownloadConfig else {}
    )


def test_print_config_works_before_everything_is_given() -> None:
    values = yaml.safe_load(printed(LoRARun, "--r", "3"))
    assert values["checkpoint_dir"] is None and values["lora"]["r"] == 3


def test_a_secret_is_not_printed() -> None:
    words = ["--repo_id", "a/b", "--access_token", "hf_secret"]
    assert "hf_secret" not in printed(DownloadConfig, *words)
    assert "hf_secret" not in repr(parse(DownloadConfig, *words))
    assert parse(DownloadConfig, *words).access_token == "hf_secret"
