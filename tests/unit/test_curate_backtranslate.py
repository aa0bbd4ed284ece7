"""Instructions for texts that are there: what is asked, what is dropped, the rating, and a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from tiny_rows import rows_of, write_lines

from litft.asking.asker import Reply
from litft.config.curate import BacktranslateConfig
from litft.config.io import load_yaml
from litft.curate.backtranslate import backtranslate, read_instruction
from litft.data.reading.rows import Row
from litft.errors import ConfigError, DataError, GenerationError

TEXTS = {
    "plum": "A plum is a fruit with one stone. {text}",
    "boat": "To fold a boat, take a sheet of paper.\n\nFold it twice.",
    "bear": "The bear slept until March.",
    "clock": "Clocks strike at noon in every square of the town.",
    "rain": "Rain fell for nine days.",
}
BUSY = (429, {"Retry-After": "0"}, {"error": {"message": "slow down"}})


def write_texts(folder: Path, *more: Any) -> Path:
    return write_lines(folder / "texts.jsonl", *({"text": text} for text in TEXTS.values()), *more)


def config_of(folder: Path, server: ChatServer, **changes: Any) -> BacktranslateConfig:
    given: dict[str, Any] = {"documents": folder / "texts.jsonl", "out": folder / "pairs.jsonl"}
    return BacktranslateConfig(**{**given, "endpoint": server.url, "model": "medlar", "retries": 0, **changes})


def name_of(prompt: str) -> str:
    return next(name for name, text in TEXTS.items() if text in prompt)


def writer(prompt: str) -> Any:
    """Writes an instruction, or gives a score: plum 5, boat 4, bear none."""
    name = name_of(prompt)
    if prompt.endswith("=== end of conversation ==="):
        return {"plum": "5", "boat": "4\nNot bad."}.get(name, "Who knows?")
    if name == "rain":
        return 400, {}, {"error": {"message": "too wet"}}
    return {"clock": "Clocks strike at noon in every square of the town."}.get(name, f'"Tell me of a {name}."\n\nDone?')


def pairs_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_text_gets_an_instruction(tmp_path: Path) -> None:
    write_texts(tmp_path, {"text": TEXTS["bear"]}, {"title": "no text"})
    told: list[str] = []
    with ChatServer(writer) as server:
        assert backtranslate(config_of(tmp_path, server), told.append) == tmp_path / "pairs.jsonl"
    expected = [(f"Tell me of a {name}.", TEXTS[name]) for name in ("plum", "boat", "bear")]
    assert [(row["instruction"], row["output"]) for row in pairs_in(tmp_path / "pairs.jsonl")] == expected
    assert all(isinstance(row, Row) for row in rows_of("alpaca", tmp_path / "pairs.jsonl"))
    dropped = {"copied from the text": 1, "equal to an earlier one": 1, "no text in the row": 1, "request refused": 1}
    assert load_yaml(tmp_path / "pairs.yaml")["dropped"] == dropped
    assert f"{tmp_path / 'pairs.jsonl'}: 3 pairs of 7 texts" in told
    assert len(server.bodies) == 5 and {body["temperature"] for body in server.bodies} == {0}
    [plum] = [prompt for prompt in server.prompts if name_of(prompt) == "plum"]
    assert f"=== text ===\n{TEXTS['plum']}\n=== end of text ===\n\nInstruction:" in plum


def test_pairs_are_rated(tmp_path: Path) -> None:
    write_texts(tmp_path)
    with ChatServer(writer) as server:
        backtranslate(config_of(tmp_path, server, score=True))
        assert [row["score"] for row in pairs_in(tmp_path / "pairs.jsonl")] == [5, 4, None]
        [asked] = [prompt for prompt in server.prompts if "conversation" in prompt and name_of(prompt) == "plum"]
        assert f"User:\nTell me of a plum.\n\nAssistant:\n{TEXTS['plum']}" in asked
        count = len(server.bodies)
        backtranslate(config_of(tmp_path, server, score=True, min_score=4.5, overwrite=True))
        assert len(server.bodies) == count == 8  # nothing was asked again
    assert [row["score"] for row in pairs_in(tmp_path / "pairs.jsonl")] == [5]
    dropped = load_yaml(tmp_path / "pairs.yaml")["dropped"]
    assert dropped["no score"] == 1 and dropped["score below 4.5"] == 1


def test_a_run_that_ended_early_goes_on(tmp_path: Path) -> None:
    write_texts(tmp_path)
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    ends = pytest.raises(GenerationError, match="the same command goes on")
    with ChatServer(lambda prompt: writer(prompt) if len(server.bodies) < 3 else BUSY) as server, ends:
        backtranslate(config_of(tmp_path, server, out=cut, requests_at_once=1))
    assert not cut.exists()
    with ChatServer(writer) as server:
        backtranslate(config_of(tmp_path, server, out=cut, documents=tmp_path / "texts.jsonl"))
        assert len(server.bodies) == 3
        backtranslate(config_of(tmp_path, server, out=whole))
    assert whole.read_bytes() == cut.read_bytes()


def test_plain_text_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text(f"{TEXTS['plum']}\n\n{TEXTS['bear']}\n")
    with ChatServer(writer) as server:
        backtranslate(config_of(tmp_path, server, documents=tmp_path / "texts.txt"))
    assert [row["output"] for row in pairs_in(tmp_path / "pairs.jsonl")] == [TEXTS["plum"], TEXTS["bear"]]


def test_what_is_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "texts.jsonl", {"text": TEXTS["clock"]})
    with ChatServer(writer) as server:
        with pytest.raises(DataError, match=r"Of 1 texts of .*texts.jsonl no pair is left: 1 copied from the text"):
            backtranslate(config_of(tmp_path, server))
        assert not (tmp_path / "pairs.jsonl").exists()
        write_lines(tmp_path / "texts.jsonl", {"title": "no text"})
        with pytest.raises(DataError, match=r"documents .*texts.jsonl holds no text"):
            backtranslate(config_of(tmp_path, server, out=tmp_path / "other.jsonl"))
        for changes in ({"min_score": 4.5}, {"min_score": 6.0, "score": True}):
            with pytest.raises(ConfigError, match=r"min_score is .*; it may be up to 5, and needs --score true"):
                config_of(tmp_path, server, **changes)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply("Sing."), ("Sing.", None)),
        (Reply(' Instruction: "Sing\nnow." \n\nmore', is_whole=False), ("Sing\nnow.", None)),
        (Reply("<think>a\n\nb</think>\n\nSing."), ("Sing.", None)),
        (Reply("Sing a so", is_whole=False), ("Sing a so", "cut off")),
        (Reply("Here it is:\n\nSing."), ("Here it is:", "ends in a colon")),
        (Reply(" \n"), ("", "no instruction")),
        (Reply("", refused="too long"), ("", "request refused")),
        (Reply("One two three four five six seven."), ("One two three four five six seven.", None)),
        (
            Reply("Eight, NINE ten eleven twelve one two three!"),
            ("Eight, NINE ten eleven twelve one two three!", "copied from the text"),
        ),
    ],
)
def test_replies_as_models_write_them(reply: Reply, expected: tuple[str, str | None]) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve one two three four"
    assert read_instruction(reply, text) == expected
