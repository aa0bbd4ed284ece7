"""`litft curate` in a user's folder: a finished run as the model that scores, and sentences for mistakes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from conftest import Refused
from scored_rows import draw_rows, write_folder
from tiny_rows import write_lines

from litft import LLM
from litft.asking.asker import Question
from litft.asking.local import Local
from litft.cli import main
from litft.config.curate import AskConfig
from litft.data.store import PreparedData
from litft.text.tokenizer import Tokenizer

NOBODY = ["--endpoint", "http://127.0.0.1:1/v1", "--model", "judge-1", "--retries", "0"]
JUDGE = ["curate", "judge", "--data_dir", "data/csv", "--destination_path", "data/judged", *NOBODY]
SCORE = ["curate", "score", "--data_dir", "data/csv", "--destination_path"]


def scores(folder: str) -> list[float]:
    found = PreparedData.load(Path(folder) / "train.pt").score
    assert found is not None and len(found) == 36
    return [float(number) for number in found]


def test_a_finished_run_scores_too(project: Path) -> None:
    for model in ("acme/tiny", "out/lora/csv/final", "out/adapter/csv/final"):
        assert main([*SCORE, f"data/{Path(model).parts[1]}", "--checkpoint_dir", model, "--by", "loss"]) == 0
    base, lora, adapter = (scores(f"data/{name}") for name in ("tiny", "lora", "adapter"))
    assert base != lora and base != adapter and lora != adapter
    assert base == pytest.approx(lora, rel=0.2)  # two steps from it


def next_command(err: str) -> list[str]:
    """Gives the words of the command that a message ends with."""
    last = err.splitlines()[-1]
    assert last.startswith("Next: litft ")
    return shlex.split(last.removeprefix("Next: litft "))


def test_the_best_rows_become_a_mix(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for by in ("ifd", "loss"):
        assert main([*SCORE, f"data/{by}", "--checkpoint_dir", "acme/tiny", "--by", by]) == 0
        assert main(next_command(capsys.readouterr().err)) == 0
        best = PreparedData.load(project / f"data/{by}-best/train.pt").score
        assert best is not None
        wanted = [score for score in scores(f"data/{by}") if by == "loss" or score <= 1]
        assert sorted(best.tolist()) == sorted(wanted)[-round(len(wanted) * 0.1) :]
        capsys.readouterr()


def test_precision_is_that_of_the_weights(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in (("a", []), ("b", ["--precision", "32-true"]), ("c", ["--precision", "bf16-true"])):
        assert main([*SCORE, f"data/{name}", "--checkpoint_dir", "acme/tiny", *words]) == 0
    assert scores("data/a") == scores("data/b")
    assert scores("data/a") != scores("data/c") and scores("data/a") == pytest.approx(scores("data/c"), rel=0.02)


def test_mistakes_of_score(project: Path, refused: Refused) -> None:
    words = [*SCORE, "data/out"]
    refused([*words, "--checkpoint_dir", "acme/tinny"], "acme/tinny", "acme/tiny")
    refused([*words, "--checkpoint_dir", "acme/tiny", "--by", "perplexity"], "by", "ifd or loss")
    refused(["curate", "score", "--checkpoint_dir", "acme/tiny"], "--data_dir and --destination_path must be given")
    refused([*SCORE, "data/csv", "--checkpoint_dir", "acme/tiny"], "destination_path is data_dir")
    refused(["curate", "scor"], "curate score")
    words[3] = "data/cvs"
    refused([*words, "--checkpoint_dir", "acme/tiny"], "data/cvs")


def test_data_of_another_tokenizer_is_refused(project: Path, refused: Refused) -> None:
    write_folder(
        project / "strange", Tokenizer(project / "checkpoints/acme/tiny"), draw_rows(), tokenizer={"hash": "x"}
    )
    words = ["curate", "score", "--data_dir", "strange", "--checkpoint_dir", "acme/tiny", "--destination_path", "out2"]
    refused(words, "strange/train.pt was prepared with the tokenizer of another model")


def test_mistakes_of_judge(project: Path, refused: Refused) -> None:
    words = [*JUDGE, "--checkpoint_dir", "acme/tiny"]
    refused(words, "http://127.0.0.1:1/v1/chat/completions gave no reply in 1 attempts", "Connection refused")
    refused([*words, "--api_key_env", "NO_SUCH_KEY"], "The environment variable NO_SUCH_KEY", "is not set")
    refused([*words, "--api_key_env", "sk-0-1"], "api_key_env is no NAME of an environment variable")
    refused([*words, "--prompt", "nowhere.txt"], "prompt nowhere.txt cannot be read")


def test_judge_through_the_command_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("A_KEY", "sk-quince")
    with ChatServer(lambda prompt: "4.5") as server:
        words = ["--endpoint", server.url, "--api_key_env", "A_KEY", "--checkpoint_dir", "acme/tiny"]
        assert main([*JUDGE[:6], "--model", "judge-1", *words]) == 0
    assert set(scores("data/judged")) == {4.5}
    assert main(next_command(capsys.readouterr().err)) == 0
    assert set(scores("data/judged-best")) == {4.5}
    written = [path.read_bytes() for path in (project / "data" / "judged").iterdir()]
    assert written and not any(b"sk-quince" in content for content in written)


def test_a_checkpoint_is_asked_as_generate_asks_it(project: Path) -> None:
    asked = [{"role": "user", "content": "Say red"}]
    for folder, chat in (("acme/tiny", False), ("out/lora/csv/final", True)):
        asker = Local(AskConfig(checkpoint_dir=Path(folder), out=Path("x.jsonl")))
        llm = LLM.load(folder)
        for temperature, seed in ((0.0, None), (0.8, 3)):
            reply = asker.ask(Question("Say red", 12, temperature, 0.9, (), seed))
            sampled: dict[str, Any] = {
                "max_new_tokens": 12,
                "temperature": temperature,
                "top_p": 0.9,
                "seed": seed or 0,
            }
            expected = llm.chat(asked, **sampled) if chat else llm.generate("Say red", **sampled)
            assert reply.text == expected and reply.is_whole == (reply.reply_tokens < 12)
        stop = reply.text[2:4]
        cut = asker.ask(Question("Say red", 12, 0.8, 0.9, (stop,), 3))
        assert cut.text == reply.text[: reply.text.find(stop)] and cut.is_whole
    refused = asker.ask(Question("x" * 3000, 5)).refused
    assert refused is not None and "fill the context of 2048" in refused


def test_askers_are_told_apart_by_weights_and_manner(project: Path) -> None:
    configs: list[dict[str, Any]] = [
        {"checkpoint_dir": Path("acme/tiny"), "chat": chat} for chat in (True, False, None)
    ]
    configs += [{"checkpoint_dir": Path("out/lora/csv/final")}, {"checkpoint_dir": Path("acme/tied"), "chat": False}]
    names = [Local(AskConfig(out=Path("x.jsonl"), **config)).name for config in configs]
    assert names[1] == names[2] and len(set(names)) == 4


def test_grow_with_a_checkpoint_that_knows_no_tasks(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds = [
        {"instruction": f"Say the number {number}.", "instances": [{"input": "", "output": "1"}]} for number in range(9)
    ]
    write_lines(project / "seeds.jsonl", *seeds)
    words = ["--seeds", "seeds.jsonl", "--checkpoint_dir", "acme/tiny", "--count", "3", "--out", "g.jsonl"]
    assert main(["curate", "grow", *words, "--max_new_tokens", "20", "--patience", "2"]) == 2
    assert "litft: 2 requests gave no task that can be used: 1 cut off, 1 shorter" in capsys.readouterr().err
    assert len((project / "g.replies.jsonl").read_text().splitlines()) == 2 and not (project / "g.jsonl").exists()


def test_backtranslate_with_a_checkpoint(project: Path) -> None:
    (project / "texts.txt").write_text("Red.\n\nBlue and green.\n")
    words = ["--documents", "texts.txt", "--checkpoint_dir", "out/lora/csv/final", "--max_new_tokens", "30"]
    code = main(["curate", "backtranslate", *words, "--out", "pairs.jsonl"])
    replies = [json.loads(line) for line in (project / "pairs.replies.jsonl").read_text().splitlines()]
    assert len(replies) == 2 and all(reply["prompt_tokens"] > 100 for reply in replies)
    assert (code == 0) == (project / "pairs.jsonl").exists()  # two steps of training teach little
