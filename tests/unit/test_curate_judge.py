"""Rows judged over HTTP: what is asked, which replies are scores, what is kept, and what a second run asks again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from tiny_rows import write_lines
from tiny_text import write_checkpoint

from litft.config.curate import JudgeConfig
from litft.config.io import load_yaml
from litft.config.prepare import PrepareFileConfig
from litft.curate.judge import judge
from litft.curate.rating import fill_prompt, read_prompt, read_score
from litft.data.prepare import prepare
from litft.data.store import PreparedData
from litft.data.texts import RowText, TextReader
from litft.errors import ConfigError, DataError, GenerationError
from litft.text.frames import Said
from litft.text.tokenizer import Tokenizer

FRUITS = ("plum", "pear", "quince", "medlar", "cherry", "apple", "damson", "sloe", "fig", "date")
SOUR = {"role": "assistant", "content": "Sour."}
SPLITS = ("train.pt", "test.pt")
BUSY = (429, {"Retry-After": "0"}, {"error": {"message": "slow down"}})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has ten rows about fruits, one of them of two answers, and one of ten held out."""
    root = tmp_path_factory.mktemp("judge")
    write_checkpoint(root / "model")
    asked = [[("user", f"What is a {fruit}?"), ("assistant", f"A {fruit} is {{answer}} fruit.")] for fruit in FRUITS]
    asked[2] += [("user", "And raw?"), ("assistant", "Sour.")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in told]} for told in asked]
    path = write_lines(root / "fruits.jsonl", *rows)
    given = {"checkpoint_dir": root / "model", "data_file": path, "destination_path": root / "fruits"}
    prepare("messages", PrepareFileConfig(**given, prompt_style="alpaca", test_split_fraction=0.1))
    return root


def config_of(world: Path, out: Path, server: ChatServer, **changes: Any) -> JudgeConfig:
    given: dict[str, Any] = {"data_dir": world / "fruits", "checkpoint_dir": world / "model", "destination_path": out}
    return JudgeConfig(**{**given, "endpoint": server.url, "model": "judge-1", "retries": 1, **changes})


def fruit_of(text: str) -> str:
    return next(fruit for fruit in FRUITS if f"A {fruit} " in text)


def rating(prompt: str) -> str:
    """Gives each fruit the length of its name, of at most 5, but no number to some."""
    fruit = fruit_of(prompt)
    return {"sloe": "Lovely!", "fig": "7\nout of range", "date": "-1"}.get(fruit, f"{min(len(fruit), 5)}\nWell.")


def scores_of(world: Path, path: Path) -> dict[str, float]:
    data = PreparedData.load(path)
    assert data.score is not None
    reader = TextReader(data, Tokenizer(world / "model"))
    return {fruit_of(reader.read(row).whole): float(data.score[row]) for row in range(len(data))}


EXPECTED = {fruit: min(len(fruit), 5) for fruit in FRUITS if fruit not in ("sloe", "fig", "date")}


def test_rows_carry_what_the_model_gave(world: Path, tmp_path: Path) -> None:
    told: list[str] = []
    with ChatServer(rating) as server:
        judge(config_of(world, tmp_path / "out", server), told.append)
    found = {**scores_of(world, tmp_path / "out" / "train.pt"), **scores_of(world, tmp_path / "out" / "test.pt")}
    assert {fruit: score for fruit, score in found.items() if not math.isnan(score)} == EXPECTED
    assert len(found) == 10 == len(server.bodies)
    manifest = load_yaml(tmp_path / "out" / "manifest.yaml")
    reason = "the reply's first line is no number from 0 to 5"
    assert manifest["score"]["kind"] == "judge" and manifest["score"]["unscored"] == {reason: 3}
    assert manifest["score"] == PreparedData.load(tmp_path / "out" / "train.pt").meta["score"]
    counts = {name: sum(map(math.isnan, scores_of(world, tmp_path / "out" / name).values())) for name in SPLITS}
    lines = [f"{count} rows of {name} have no score: {reason}" for name, count in counts.items() if count]
    assert [line for line in told if "have no score" in line] == lines and sum(counts.values()) == 3
    assert any(line.startswith("scores of the rows of train.pt by judge-1\n") for line in told)
    assert " --filters.min_score 4.5 " in told[-1]
    assert any("10 requests this time: 100 tokens of prompts and" in message for message in told)
    assert {body["temperature"] for body in server.bodies} == {0}
    [quince] = [prompt for prompt in server.prompts if "quince" in prompt]
    said = "User:\nWhat is a quince?\n\nAssistant:\nA quince is {answer} fruit.\n\nUser:\nAnd raw?\n\nAssistant:\nSour."
    assert f"=== conversation ===\n{said}\n=== end" in quince and "### Instruction" not in quince


def test_a_second_run_asks_only_what_is_open(world: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ends = pytest.raises(GenerationError, match="what was answered before is kept, and the same command goes on")
    with ChatServer(lambda prompt: rating(prompt) if len(server.bodies) < 5 else BUSY) as server, ends:
        judge(config_of(world, cut, server, requests_at_once=1))
    assert [path.name for path in cut.iterdir()] == ["judge.jsonl"]
    told: list[str] = []
    with ChatServer(rating) as server:
        judge(config_of(world, cut, server), told.append)
        assert len(server.bodies) == 6 and "4 of 10 rows are judged; going on from there." in told
        judge(config_of(world, whole, server, endpoint=server.url))
        judge(config_of(world, cut, server, overwrite=True))  # all known
        assert len(server.bodies) == 16
        judge(config_of(world, tmp_path / "other", server, model="judge-2"))
        assert len(server.bodies) == 26
    assert (whole / "train.pt").read_bytes() == (cut / "train.pt").read_bytes()


def test_a_judge_that_gives_no_score_is_stopped(world: Path, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"A fig {number}?"}, SOUR]} for number in range(40)]
    given = {"checkpoint_dir": world / "model", "data_file": write_lines(tmp_path / "many.jsonl", *rows)}
    prepare("messages", PrepareFileConfig(**given, destination_path=tmp_path / "many", prompt_style="alpaca"))
    sentence = r'first 20 replies of judge-1 gives a score.* one begins "I would say\\n\\"four\\""; all are in .*judge'
    with ChatServer(lambda prompt: 'I would say\n"four"') as server, pytest.raises(GenerationError, match=sentence):
        judge(config_of(world, tmp_path / "out", server, data_dir=tmp_path / "many"))
    assert len(server.bodies) == 20 and [path.name for path in (tmp_path / "out").iterdir()] == ["judge.jsonl"]
    with ChatServer(lambda prompt: "4" if " 7?" in prompt else "four") as server:
        judge(config_of(world, tmp_path / "other", server, data_dir=tmp_path / "many", requests_at_once=1))
    assert len(server.bodies) == 40


def test_what_is_done_is_not_done_again(world: Path, tmp_path: Path) -> None:
    with ChatServer(rating) as server:
        judge(config_of(world, tmp_path / "out", server))
        told: list[str] = []
        assert judge(config_of(world, tmp_path / "out", server), told.append) == tmp_path / "out"
        assert told == [f"{tmp_path / 'out'} is whole already: these rows, scored in this way."]
        for options in ({"model": "judge-2"}, {"max_new_tokens": 9}, {"held_out": False}):
            with pytest.raises(DataError, match="already holds prepared data, not scored in this way"):
                judge(config_of(world, tmp_path / "out", server, **options))
    assert len(server.bodies) == 10


def test_held_out_rows_may_be_left_out(world: Path, tmp_path: Path) -> None:
    with ChatServer(rating) as server:
        judge(config_of(world, tmp_path / "out", server, held_out=False))
    assert len(server.bodies) == 9
    assert all(math.isnan(score) for score in scores_of(world, tmp_path / "out" / "test.pt").values())


def test_a_refused_row_has_no_score(world: Path, tmp_path: Path) -> None:
    def answer(prompt: str) -> Any:
        return (400, {}, {"error": {"message": "too long"}}) if "cherry" in prompt else "3"

    told: list[str] = []
    with ChatServer(answer) as server:
        judge(config_of(world, tmp_path / "out", server), told.append)
    assert any(line.endswith("have no score: the server refused the request") for line in told)
    lines = [json.loads(line) for line in (tmp_path / "out" / "judge.jsonl").read_text().splitlines()]
    assert [line["refused"] for line in lines if line["refused"]] == ["400 Bad Request: too long"]


def test_the_users_own_prompt(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("Is it short? {answer}\nTo: {question} {other}")
    with ChatServer(rating) as server:
        judge(config_of(world, tmp_path / "out", server, prompt=path))
    assert "Is it short? A plum is {answer} fruit.\nTo: What is a plum? {other}" in server.prompts
    path.write_text("Rate it.")
    with pytest.raises(ConfigError, match=r"holds neither \{conversation\} nor \{answer\}"):
        read_prompt(path)
    with pytest.raises(ConfigError, match=r"prompt .*nowhere.txt cannot be read"):
        read_prompt(tmp_path / "nowhere.txt")


def test_the_destination_is_checked_before_anybody_is_asked(world: Path, tmp_path: Path) -> None:
    with ChatServer(rating) as server:
        for out in (world / "fruits", world / "fruits.jsonl"):
            with pytest.raises(DataError, match="destination_path"):
                judge(config_of(world, out, server))
    assert server.bodies == []


def test_braces_of_a_row_are_text() -> None:
    row = RowText((Said(False, "{answer}?"), Said(True, "{question} {conversation}")))
    assert fill_prompt("{question}|{answer}", row) == "{answer}?|{question} {conversation}"


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("4", 4),
        ("4.5\nIt is right.", 4.5),
        ("\n  Score: 3 \nbecause", 3),
        ("**4/5**", 4),
        ("Rating: **2.5 out of 5.**", 2.5),
        ("[[0]]", 0),
        ("5.0.", 5),
        ("<think>\n1?\n</think>\n\n4", 4),
        ("5.5", None),
        ("-3", None),
        ("9/10", None),
        ("On a scale of 0 to 5, a 4", None),
        ("It is good.\n4", None),
        ("4 5", None),
        ("nan", None),
        ("", None),
    ],
)
def test_only_a_first_line_that_is_a_number_counts(reply: str, score: float | None) -> None:
    assert read_score(reply) == score
