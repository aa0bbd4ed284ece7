"""`litft generate` with a file of prompts: checked first, answered together, never twice; and several samples."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_hf
from conftest import assert_one_sentence
from tiny_text import write_json

from litft import LLM
from litft.cli import main
from litft.generate.sample import Sampling
from litft.text.conversation import USER, Conversation, Message

ROWS: list[dict[str, Any]] = [
    {"prompt": "Say red", "id": 7, "tags": ["é", None]},
    {"instruction": "Say blue", "input": "for box 3"},
    {"messages": [{"role": "user", "content": "Say green"}], "source": "mine"},
    {"instruction": "Say black"},
    *({"prompt": f"box {number}"} for number in range(6)),
]
WORDS = ["generate", "--checkpoint_dir", "tiny", "--prompt_file", "in.jsonl", "--out_file", "out.jsonl"]
GREEDY = ["--temperature", "0", "--max_new_tokens", "12"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_hf.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=512)
    convert(folder)
    return folder


@pytest.fixture
def here(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(model)
    write(ROWS)
    return tmp_path


def write(rows: list[Any], path: str = "in.jsonl") -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_each_row_gets_the_answer_it_would_get_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, *GREEDY, "--at_once", "4"]) == 0
    assert capsys.readouterr().out == ""
    got, llm = read(), LLM.load("tiny")
    assert [{key: row[key] for key in row if key not in ("answer", "finish")} for row in got] == ROWS
    wanted = [llm.generate("Say red", max_new_tokens=12)]
    question = Conversation((Message(USER, "Say blue", "for box 3"),))
    wanted.append(llm.answer(llm.to_answer(question, 12, Sampling())).text)
    wanted += [
        llm.chat([{"role": "user", "content": f"Say {colour}"}], max_new_tokens=12) for colour in ("green", "black")
    ]
    wanted += llm.generate_many([f"box {number}" for number in range(6)], max_new_tokens=12, at_once=3)
    assert [row["answer"] for row in got] == wanted
    assert wanted[4:] == [llm.generate(f"box {number}", max_new_tokens=12) for number in range(6)]
    assert {row["finish"] for row in got} <= {"stop", "length"}
    assert not Path("out.jsonl.partial").exists()


def test_a_model_in_4_bits_answers_together_as_alone(here: Path) -> None:
    llm, prompts = LLM.load("tiny", quantize="bnb.nf4"), [f"box {number}" for number in range(5)]
    together = llm.generate_many(prompts, max_new_tokens=12)
    assert together == [llm.generate(prompt, max_new_tokens=12) for prompt in prompts]
    assert together != LLM.load("tiny").generate_many(prompts, max_new_tokens=12)


def test_samples_differ_and_come_again_with_their_seeds(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--max_new_tokens", "12", "--seed", "5", "--num_samples", "3"]
    assert main(words) == 0
    first = read()
    assert all(len(set(row["answer"])) == 3 and len(row["finish"]) == 3 for row in first)
    assert main([*words, "--overwrite", "true", "--at_once", "2"]) == 0
    assert read() == first
    capsys.readouterr()
    for sample, seed in enumerate("567"):
        one = ["generate", "--checkpoint_dir", "tiny", "--prompt", "Say red", "--max_new_tokens", "12", "--seed", seed]
        assert main(one) == 0
        assert capsys.readouterr().out == first[0]["answer"][sample] + "\n"
    several = ["generate", "--checkpoint_dir", "tiny", "--prompt", "Say red", "--max_new_tokens", "12"]
    assert main([*several, "--seed", "5", "--num_samples", "3"]) == 0
    assert capsys.readouterr().out == "\n---\n".join(first[0]["answer"]) + "\n"


def test_a_draft_changes_no_greedy_answer_and_is_told_of(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(tiny_hf.write_hf_folder(here / "small", max_position_embeddings=512, num_hidden_layers=1))
    one = ["generate", "--checkpoint_dir", "tiny", "--prompt", "Say red", *GREEDY]
    for words in (one, WORDS + GREEDY):
        said = []
        for flags in ([], ["--draft_dir", "small"], ["--draft_dir", "tiny", "--draft_tokens", "2"]):
            assert main([*words, *flags, *(["--overwrite", "true"] if words is not one else [])]) == 0
            out, err = capsys.readouterr()
            said.append(out if words is one else Path("out.jsonl").read_text(encoding="utf-8"))
            assert ("The draft guessed" in err) == bool(flags)
        assert said[0] == said[1] == said[2]
    assert re.search(r"The draft guessed (\d+) tokens; \1 of them were taken \(100%\)\.", err.replace(",", ""))


def test_a_draft_that_cannot_guess_is_refused_before_weights_are_read(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_hf.write_hf_folder(here / "small", max_position_embeddings=64)
    convert(folder)
    capsys.readouterr()
    one = ["generate", "--checkpoint_dir", "tiny", "--prompt", "Say red", "--draft_dir", "small"]
    assert main([*one, "--max_new_tokens", "99"]) == 2
    assert_one_sentence(*capsys.readouterr(), "reads at most 64 tokens", "go without the draft")
    assert main([*one, "--draft_tokens", "0"]) == 2
    assert_one_sentence(*capsys.readouterr(), "draft_tokens is 0; it must be at least 1")
    write_json(folder / "tokenizer_config.json", {**tiny_hf.NAMES, "bos_token": "</s>"})
    (folder / "lit_model.safetensors").write_bytes(b"")
    assert main(one) == 2
    assert_one_sentence(*capsys.readouterr(), "draft_dir small has another tokenizer than tiny", "same family")
    assert main([*one[:-1], "nowhere"]) == 2
    assert_one_sentence(*capsys.readouterr(), "nowhere")


def convert(folder: Path) -> None:
    assert main(["convert", "from_hf", "--checkpoint_dir", str(folder)]) == 0


def test_the_same_command_goes_on_where_it_was_killed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write([{"prompt": f"box {number}"} for number in range(40)])
    words = [*WORDS, "--temperature", "0"]
    begun = [*words, "--max_new_tokens", "60", "--at_once", "1"]
    partial = Path("out.jsonl.partial")
    process = subprocess.Popen([sys.executable, "-m", "litft", *begun], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        for _ in range(600):
            if partial.exists() and partial.read_bytes().count(b"\n") > 2:
                break
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = partial.read_bytes()
    whole = kept[: kept.rindex(b"\n") + 1]
    partial.write_bytes(whole + b'{"prompt": "half a li')
    done = whole.splitlines()[1:]
    assert 2 <= len(done) < 40 and not Path("out.jsonl").exists()
    for count, penalty in (("99", "1"), ("60", "1.1")):  # not the same command
        assert main([*words, "--max_new_tokens", count, "--repetition_penalty", penalty]) == 2
        assert_one_sentence(*capsys.readouterr(), "out.jsonl.partial was begun with other prompts, settings or weights")
    words += ["--max_new_tokens", "60"]
    assert main([*words, "--at_once", "16"]) == 0  # how many at once changes no answer
    assert f"{len(done)} of 40 rows were answered before" in capsys.readouterr().err
    got = read()
    assert [row["prompt"] for row in got] == [f"box {number}" for number in range(40)]
    assert [json.dumps(row).encode() for row in got[: len(done)]] == [
        json.dumps(json.loads(row)).encode() for row in done
    ]
    assert main(words) == 2
    assert_one_sentence(*capsys.readouterr(), "out.jsonl is there already", "--overwrite true")


def test_the_prompts_are_not_written_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write([{"prompt": "a"}])
    before = Path("in.jsonl").read_bytes()
    assert main([*WORDS[:-1], "./in.jsonl", "--overwrite", "true"]) == 2
    assert_one_sentence(*capsys.readouterr(), "in.jsonl is prompt_file itself", "name another file")
    assert Path("in.jsonl").read_bytes() == before


GOOD = {"prompt": "a"}


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ({"text": "a"}, "a row needs prompt, messages or instruction, one of them; it has none of them, but text."),
        ({}, "none of them, but nothing"),
        ({"prompt": "a", "instruction": "b"}, "it has prompt and instruction."),
        ({"prompt": 3}, "its prompt is no text."),
        ({"instruction": "a", "input": ["b"]}, "its input is no text."),
        ({"messages": "a"}, "its messages are no list."),
        ({"messages": []}, "the last must not be the assistant's"),
        ({"messages": [{"role": "user", "content": 3}]}, "content must be text"),
        ({"messages": [{"role": "king", "content": "a"}]}, "roles ['king']"),
        ({"prompt": "a", "answer": "b"}, 'it has "answer" already'),
        ({"prompt": "a" * 600}, "line 2 has 601 tokens; tiny reads from 1 to 511"),
        ({"prompt": "a\ud800"}, "half a character"),
        ([1], "line 2"),
    ],
)
def test_a_bad_row_is_named_before_the_model_is_loaded(
    here: Path, row: Any, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("tiny", "broken/tiny")  # cannot be loaded
    path = Path("broken/tiny/model_config.yaml")
    path.write_text(path.read_text().replace("intermediate_size: 48", "intermediate_size: 64"))
    words = [*WORDS, *GREEDY]
    words[2] = "broken/tiny"
    write([GOOD])
    assert main(words) == 2
    assert_one_sentence(*capsys.readouterr(), "this model needs")
    write([GOOD, row])
    assert main(words) == 2
    assert_one_sentence(*capsys.readouterr(), "in.jsonl, line 2", content)
    assert sorted(path.name for path in here.iterdir()) == ["broken", "in.jsonl", "tiny"]


@pytest.mark.parametrize(
    ("words", "content"),
    [
        (["--prompt", "a", "--prompt_file", "in.jsonl", "--out_file", "o"], "one of them; or --prompt_file"),
        (["--prompt_file", "in.jsonl"], "--prompt_file and --out_file go together"),
        (["--prompt", "a", "--num_samples", "0"], "num_samples is 0"),
        (["--prompt", "a", "--num_samples", "2", "--temperature", "0"], "raise --temperature"),
        (["--prompt", "a", "--min_p", "2"], "min_p is 2"),
        (["--prompt", "a", "--repetition_penalty", "0"], "repetition_penalty is 0"),
        (["--prompt_file", "none.jsonl", "--out_file", "o"], "none.jsonl"),
        (["--prompt_file", "empty.jsonl", "--out_file", "o"], "empty.jsonl holds no row"),
    ],
)
def test_flags_that_do_not_go_together(
    here: Path, words: list[str], content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.jsonl").write_text("")
    assert main(["generate", "--checkpoint_dir", "tiny", *words]) == 2
    assert_one_sentence(*capsys.readouterr(), content)
    assert not Path("o").exists() and not Path("o.partial").exists()
