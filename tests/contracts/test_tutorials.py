"""The pages under tutorials/ run: the commands of a page, in order, on the demo's model and a few of its rows.

Pages stay as their readers see them. The tables here say which tiny thing stands for each model, file and folder that
they name, and which settings are made small. A block that begins with `# untested: REASON` is parsed, by test_docs.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
import torch
from test_docs import ROOT, SHELLS, command_words, fences, words_of_lines

from litft.cli import main
from litft.config.io import load_yaml
from litft.config.leaves import list_leaves
from litft.config.other_names import OTHERS_NAMES
from litft.config.prepare import PrepareConfig
from litft.config.run import LoRARun
from litft.data.prepare import prepare
from litft.data.reading.rows import Source
from litft.data.sources import SOURCES
from litft.demo.tasks import load_rows
from litft.families import FAMILIES
from litft.text.styles import STYLES

FIXTURES = ROOT / "tests" / "fixtures"
PAGES = sorted((ROOT / "tutorials").glob("*.md"))
MARK = re.compile(r"(?:#!.*\n)?# untested: \S")

# Each is the demo's model, converted.
MODELS = (
    "EleutherAI/pythia-160m",
    "HuggingFaceTB/SmolLM2-135M",
    "Qwen/Qwen3-0.6B",
    "meta-llama/Llama-2-7b-hf",
    "mistralai/Mistral-7B-v0.1",
    "mistralai/Mistral-7B-v0.3",
    "my-org/my-model",
    "tiiuae/falcon-7b",
)
# Each is a few rows of the demo, other ones in each, prepared; with this score, where there is one.
DATA = {
    "data/alpaca": None,
    "data/alpaca-ifd": 0.5,
    "data/alpaca-judged": 5,
    "data/csv": None,
    "data/dolly": None,
    "data/lima": None,
    "data/mix": None,
    "data/neurips": None,
    "data/p3": None,
    "data/part-1": None,
    "data/part-2": None,
    "lit-gpt/data/alpaca": None,
}
# Each is a run of two steps.
RUNS = {
    "out/full/lima": "full",
    "out/full/small": "full",
    "out/lora/lima": "lora",
    "out/lora/lima-sweep/r-16": "lora",
    "out/lora/lima-sweep/r-8": "lora",
    "out/lora/litgpt": "lora",
    "out/neurips/4090": "lora",
}
# What a page reads: rows of the tests' own fixtures, or a text.
FILES = {
    "MyDataset.csv": "instruction,input,output\n" + "".join(f"Name it.,box {n},the {n}th box\n" for n in range(12)),
    "alpaca_gpt4_data.json": "alpaca_gpt4/alpaca_gpt4_data.json",
    "calls.csv": "csv/rows.csv",
    "chats.json": "sharegpt/sharegpt.json",
    "chats.jsonl": "messages/chats.jsonl",
    "documents.txt": "text/documents.txt",
    "faq.csv": "question,answer\nWhere is the key?,Under the mat.\nWhen does it open?,At nine.\n",
    "faq.jsonl": "alpaca_2k/alpaca_2000.jsonl",
    "flan/riddles_train.tsv": "flan/riddles_train.tsv",
    "frames.txt": "Please answer: {instruction}\nTell me. {instruction}\n",
    "grown.jsonl": "self_instruct/generated_tasks.jsonl",
    "gsm8k_train.tsv": "flan/riddles_train.tsv",
    "mine.jinja": "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}",
    "natural-instructions/tasks/task006_plural.json": "natural_instructions/task001_plural.json",
    "natural-instructions/tasks/task1146_country_capital.json": "natural_instructions/task001_plural.json",
    "p3.jsonl": "p3/prompts.jsonl",
    "packed.jsonl": "tokenized/shifted.jsonl",
    "pairs.jsonl": "alpaca_2k/alpaca_2000.jsonl",
    "questions.jsonl": '{"prompt": "One, two,"}\n{"instruction": "Give the plural.", "input": "owl"}\n',
    "quiz.jsonl": '{"instruction": "Which is a bird?\\nA. owl\\nB. oak", "output": "A"}\n' * 2,
    "rows.json": "json/pairs.json",
    "sharegpt.json": "sharegpt/sharegpt.json",
    "train.jsonl": "lima/train.jsonl",
}
# What `prepare` would fetch.
FETCHED = {
    "alpaca": "alpaca/alpaca_data.json",
    "alpaca_2k": "alpaca_2k/alpaca_2000.jsonl",
    "dolly": "dolly/databricks-dolly-15k.jsonl",
    "guanaco": "guanaco/openassistant_best_replies_train.jsonl",
    "lima": "lima/train.jsonl",
    "longform": "longform/longform.jsonl",
    "magpie": "magpie/conversations.jsonl",
    "oasst1": "oasst1/trees.jsonl",
    "self_instruct": "self_instruct/seed_tasks.jsonl",
}
# Settings of each command by its first word: these always, and those below where a page sets them.
SMALL: dict[str, dict[str, object]] = {
    "chat": {"max_new_tokens": 4},
    "convert": {"overwrite": True},
    "curate": {"overwrite": True},
    "evaluate": {"max_new_tokens": 4},
    "export hf": {"certificate": "tensors", "overwrite": True},
    "export peft": {"certificate": "tensors", "overwrite": True},
    "finetune": {"max_steps": 2, "precision": "32-true", "eval.max_new_tokens": 1, "overwrite": True},
    "generate": {"max_new_tokens": 4},
    "plan": {"overwrite": True},
    "prepare": {"overwrite": True},
}
SMALLER: dict[str, object] = {"example": "0,1", "generate": 2, "grep": "the"}
# Commands that do not end, take long, or want another model's answers or another program's files, as regular
# expressions of their beginnings: these tests run them.
ELSEWHERE = {
    "check": "tests/unit/test_check.py",
    "convert from_litgpt": "tests/unit/test_from_litgpt.py",
    "curate backtranslate": "tests/unit/test_curate_backtranslate.py",
    "curate grow": "tests/unit/test_curate_grow.py",
    "curate judge": "tests/unit/test_curate_judge.py",
    "demo": "Makefile",
    "judge": "tests/unit/test_judge.py",
    "finetune .*--train.freeze_embed": "tests/unit/test_freezing.py",
    "(finetune|plan) .*--devices": "tests/unit/test_distributed.py",
    "finetune .*--logger": "tests/unit/test_loggers.py",
    "finetune .*--sweep": "tests/unit/test_sweep.py",
    "plan adapter": "tests/unit/test_planning.py",
    "prepare mix --config": "tests/contracts/test_docs.py",
    "repeat": "tests/unit/test_repeat.py",
    "serve": "tests/unit/test_serve.py",
    "submit": "tests/contracts/test_submit.py",
}
OTHER_PROGRAMS = {"curl", "export", "hf", "helm-run", "helm-summarize", "make", "pip", "python", "source"}


def blocks(page: Path) -> list[tuple[bool, str]]:
    """Gives the shell blocks of a page, and whether each is marked as untested."""
    return [(MARK.match(block) is not None, block) for block in fences(page, *SHELLS)]


def commands(page: Path) -> Iterator[list[str]]:
    """Gives the commands of litft that a page runs, as words behind `litft`."""
    copies: dict[str, str] = {}
    for marked, block in blocks(page):
        for words in [] if marked else words_of_lines(block):
            words = list(dropwhile(lambda word: "=" in word, words))  # variables of the program behind them
            if words[:2] == ["litft", "copy-recipe"]:
                copies[words[3]] = f"finetune/{words[2]}.py"
            known = command_words(words, copies)
            if known:
                yield known
            else:
                assert words[0] in OTHER_PROGRAMS, f"{page.name}: {words[0]} is neither litft's nor known here"


def is_plan(words: Sequence[str]) -> bool:
    """Says whether a command tells what a run would need."""
    return words[0] == "plan" or "--dry_run" in words


def is_elsewhere(words: Sequence[str]) -> bool:
    """Says whether another test runs a command."""
    return any(re.match(beginning, " ".join(words)) for beginning in ELSEWHERE)


def made_small(words: list[str]) -> list[str]:
    """Gives a command of a page with the settings of the tables, and the rows that it would fetch."""
    settings = SMALL.get(" ".join(words[:2]), SMALL.get(words[0], {}))
    settings = settings | {name: value for name, value in SMALLER.items() if f"--{name}" in words}
    if "--resume" in words:
        settings = {name: value for name, value in settings.items() if name != "overwrite"}
    kept, is_set = [], False
    for word in words:
        if word.startswith("--"):
            is_set = word.split(".")[-1].removeprefix("--") in {name.split(".")[-1] for name in settings}
        if not is_set:
            kept.append(word)
    if words[0] == "prepare" and words[1] in FETCHED and "--data_file" not in words:
        settings["data_file"] = FIXTURES / FETCHED[words[1]]
    if words[:2] in (["prepare", "--list"], ["prepare", "--help"]) or {"--help"} & set(words):
        return kept
    return [*kept, *(f"--{name}={str(value).lower() if value is True else value}" for name, value in settings.items())]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Makes the folder in which each page begins; a page works in a copy whose files are links."""
    folder, before = tmp_path_factory.mktemp("world"), Path.cwd()
    os.chdir(folder)
    try:
        for name, given in FILES.items():
            write(name, given if "\n" in given or "{" in given else (FIXTURES / given).read_text(encoding="utf-8"))
        for name in ("config_hub", "finetune", "scripts"):
            shutil.copytree(ROOT / name, name)
        make_models()
        make_data()
        make_runs()
    finally:
        os.chdir(before)
    yield folder


def write(name: str, text: str) -> Path:
    """Writes a file where the test stands."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def run(*words: str) -> None:
    """Runs a command of litft, which must go well."""
    assert main(list(words)) == 0, words


def make_models() -> None:
    shutil.copytree(str(files("litft.demo") / "model"), f"checkpoints/{MODELS[0]}")
    run("convert", "from_hf", "--checkpoint_dir", MODELS[0])
    for name in MODELS[1:]:
        linked(Path("checkpoints") / MODELS[0], Path("checkpoints") / name)


def make_data() -> None:
    rows = load_rows("train")
    for number, (name, score) in enumerate(DATA.items()):
        own = [{**row, "score": score} for row in rows[12 * number : 12 * number + 12]]
        file = write(f"rows/{number}.json", json.dumps(own))
        scored = ["--score_field", "score"] if score else []
        words = ["--data_file", str(file), "--destination_path", name, "--test_split_fraction", "0.3", *scored]
        run("prepare", "alpaca", "--checkpoint_dir", MODELS[0], *words)
    ids = torch.tensor([1, 5, 6, 7, 2])
    old = [{"input_ids": ids + number * (ids > 2), "labels": ids + number * (ids > 2)} for number in range(4)]
    Path("old").mkdir()
    torch.save(old, "old/train.pt")


def make_runs() -> None:
    for method in ("full", "lora"):
        words = [
            "--checkpoint_dir",
            "meta-llama/Llama-2-7b-hf",
            "--data_dir",
            "data/lima",
            "--out_dir",
            f"made/{method}",
        ]
        run(*made_small(["finetune", method, *words]))
    for name, method in RUNS.items():
        linked(Path("made") / method, Path(name))


def linked(folder: Path, to: Path) -> None:
    """Copies a folder by links: what litft writes appears under its name whole, so that no other name sees it."""
    shutil.copytree(folder, to, copy_function=os.link)


@pytest.fixture(scope="module")
def planned() -> set[str]:
    """The methods that were planned: another forecast would take its second for nothing."""
    return set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs(
    page: Path, world: Path, planned: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked(world, tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    for words in commands(page):
        if is_elsewhere(words) or (is_plan(words) and words[1] in planned):
            continue
        planned |= {words[1]} if is_plan(words) else set()
        monkeypatch.setattr(sys, "stdin", io.StringIO("Give the plural of the noun.\n/exit\n"))
        assert main(made_small(words)) == 0, words


def test_tests_that_run_the_rest_exist() -> None:
    assert [path for path in ELSEWHERE.values() if not (ROOT / path).is_file()] == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "tutorials" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "tutorials").iterdir() if path.suffix in (".md", ".ipynb")} - {"README.md"}
    assert set(re.findall(r"\]\(([\w.]+)\)", index)) == pages


def text_of(name: str) -> str:
    return (ROOT / "tutorials" / name).read_text(encoding="utf-8")


def test_the_row_that_is_shown_is_the_demos(world: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(world)
    (shown,) = fences(ROOT / "tutorials" / "masking_and_packing.md", "text")
    run("inspect", "data/alpaca", "--example", "0", "--checkpoint_dir", MODELS[0])
    assert shown.strip() in capsys.readouterr().out


def test_the_dataset_of_its_page_is_one(world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(world)
    names: dict[str, Any] = {}
    exec(fences(ROOT / "tutorials" / "add_a_dataset.md", "python")[0], names)  # noqa: S102 - the page's own example
    source: Source = names["SOURCE"]
    monkeypatch.setitem(SOURCES, source.name, source)
    rows = write(
        str(tmp_path / source.files[0]), '{"question": "What has keys?", "hint": "", "answer": "A piano."}\n' * 2
    )
    config = PrepareConfig(checkpoint_dir=Path(MODELS[0]), data_file=rows, destination_path=tmp_path / "riddles")
    prepare(source.name, config)
    assert load_yaml(tmp_path / "riddles" / "manifest.yaml")["sources"]["riddles"]["rows_read"] == 2


def test_the_family_of_its_page_is_the_codes() -> None:
    names: dict[str, Any] = {}
    exec(fences(ROOT / "tutorials" / "add_a_model_family.md", "python")[0], names)  # noqa: S102 - as above
    assert names["OLMO"] == FAMILIES["olmo"]


def test_the_tables_of_the_experiments_are_those_of_the_result() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "data_experiments.py"), "--table"]
    command.append(str(ROOT / "benchmarks" / "results" / "data_experiments.json"))
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [table for table in printed.strip().split("\n\n") if table not in text_of("data_experiments.md")] == []


def test_the_modelfiles_write_the_frames_of_the_styles() -> None:
    alpaca, chatml = fences(ROOT / "tutorials" / "vllm_and_ollama.md", "text")
    style = STYLES["alpaca"]
    for frame in (style.first, style.later):
        assert frame.replace("{instruction}", "{{ .Content }}") in alpaca
    style = STYLES["chatml"]
    frame = (
        style.first.replace("{system}", "").replace("user", "{{ .Role }}").replace("{instruction}", "{{ .Content }}")
    )
    assert frame in chatml.replace("{{ end }}", "")
    assert f'PARAMETER stop "{style.end}"' in chatml


def test_the_names_that_are_compared_are_litfts() -> None:
    section = text_of("coming_from.md").split("## Settings\n")[1].split("**Set when")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    leaves = dict(list_leaves(LoRARun))
    named = {word.split(" ")[0] for cell in cells for word in re.findall(r"`([^`]+)`", cell)}
    assert named - leaves.keys() == set()
    theirs = {other for other, leaf in OTHERS_NAMES.items() if leaf in named}
    assert theirs - set(re.findall(r"\w+", section)) <= {
        "lr",
        "max_norm",
        "batch_size",
        "rank",
        "lora_rank",
        "model",
        "dataset",
    }
