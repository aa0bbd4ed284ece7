"""`litft judge`: both orders, what counts, flips, rubbish, cost, resuming, the interval, the page and mistakes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from read_pages import read_page
from scored_rows import draw_rows, write_folder
from tiny_rows import write_lines
from tiny_run import make_world

from litft import LLM
from litft.asking.asker import Reply
from litft.cli import main
from litft.config.evaluate import PairwiseConfig
from litft.errors import CheckpointError, ConfigError, DataError, GenerationError, LitftError
from litft.evaluate.judge import judge
from litft.evaluate.rates import tally, wilson
from litft.evaluate.subject import Subject
from litft.evaluate.verdicts import Outcome, Verdict, ask_text, outcome_of, read_verdict
from litft.text.tokenizer import Tokenizer

FRUITS = ("plum", "pear", "quince", "medlar", "cherry", "sloe")
BUSY = (429, {"Retry-After": "0"}, {"error": {"message": "slow down"}})
Judging = Callable[[str, str, str], Any]


def answer_files() -> tuple[Path, Path]:
    """Writes answers to six prompts: those of a are longer but for the last two; two of them are the same."""
    asked = [f"What is a {fruit}?" for fruit in FRUITS]
    for name, texts in {
        "a.jsonl": ("long and good",) * 3 + ("the same", "bad", "{first} bad"),
        "b.jsonl": ("short", "{question}", "short", "the same", "much longer", "longer than that"),
    }.items():
        lines = ({"prompt": prompt, "answer": text} for prompt, text in zip(asked, texts, strict=True))
        write_lines(Path(name), *lines)
    return Path("a.jsonl"), Path("b.jsonl")


def parts_of(prompt: str) -> tuple[str, str, str]:
    """Gives question and answers as a judge reads them."""
    found = re.search(r"=== user ===\n(.*)\n=== answer 1 ===\n(.*)\n=== answer 2 ===\n(.*)\n=== end", prompt, re.DOTALL)
    assert found is not None
    return found[1], found[2], found[3]


def longer(question: str, first: str, second: str) -> str:
    return json.dumps({"reason": "It says <b>more</b>.", "better": "1" if len(first) > len(second) else "2"})


def always_first(question: str, first: str, second: str) -> str:
    return '{"reason": "It came first.", "better": 1}'


def run(by: Judging, **changes: Any) -> tuple[dict[str, Any], str, list[str], ChatServer]:
    """Judges the answer files; gives the numbers, the lines, what was told, and the server."""
    a, b = answer_files()
    with ChatServer(lambda prompt: by(*parts_of(prompt))) as server:
        given: dict[str, Any] = {"a": a, "b": b, "judge": server.url, "model": "judge-1", "retries": 1}
        config = PairwiseConfig(**{**given, "out_dir": Path("out"), **changes})
        told: list[str] = []
        lines = "".join(judge(config, told.append))
    return json.loads(Path("out/judgement.json").read_text()), lines, told, server


def counts(values: dict[str, Any]) -> dict[str, int]:
    names = ("wins", "losses", "ties", "flips", "first", "second", "unreadable", "unanswered", "counted")
    return {name: values[name] for name in names if values[name]}


def test_a_consistent_judge_counts() -> None:
    values, lines, told, server = run(longer)
    assert counts(values) == {"wins": 3, "losses": 2, "ties": 1, "counted": 6}
    assert values["rate"] == 3.5 / 6 and values["interval"] == list(wilson(3.5 / 6, 6))
    assert [pair["outcome"] for pair in values["pairs"]] == ["a", "a", "a", "tie", "b", "b"]
    assert [verdict["side"] for verdict in values["pairs"][0]["verdicts"]] == ["a", "a"]
    asked = [parts_of(prompt) for prompt in server.prompts]
    assert len(asked) == 10  # equal answers are not asked
    assert {(one, two) for _, one, two in asked} == {(two, one) for _, one, two in asked}
    assert ("What is a pear?", "long and good", "{question}") in asked
    assert {(body["seed"], body["temperature"]) for body in server.bodies} == {(42, 0)}
    assert lines.startswith("a.jsonl wins 58.3% against b.jsonl (24.1% to 86.1% with 95% confidence), by judge-1\n")
    assert told[-1].startswith("10 requests this time: 100 tokens of prompts and ")
    assert (values["prompt_tokens"], values["reply_tokens"]) == (100, 60)


def test_a_judge_of_positions_only_flips() -> None:
    values, lines, _, _ = run(always_first)
    assert counts(values) == {"ties": 1, "flips": 5, "first": 5, "counted": 1}
    values, lines, _, _ = run(lambda *_: '{"better": "2"}', out_dir=Path("out"), model="judge-2", count=3)
    assert counts(values) == {"flips": 3, "second": 3}
    assert values["rate"] is None and values["interval"] is None
    assert lines.startswith("No pair of a.jsonl and b.jsonl counts, by judge-2.")


def test_equal_answers_cost_nothing() -> None:
    write_lines(Path("c.jsonl"), *({"prompt": f"What is a {fruit}?", "answer": " the same"} for fruit in FRUITS))
    write_lines(Path("d.jsonl"), *({"prompt": f"What is a {fruit}?", "answer": "the same "} for fruit in FRUITS))
    values, _, _, server = run(longer, a=Path("c.jsonl"), b=Path("d.jsonl"))
    assert counts(values) == {"ties": 6, "counted": 6} and values["rate"] == 0.5 and server.bodies == []


def test_a_judge_that_answers_rubbish_is_stopped() -> None:
    with pytest.raises(
        GenerationError, match=r"None of the first 10 replies of judge-1 is a verdict \(\"no verdict in: I"
    ):
        run(lambda *_: "I like both!")
    assert sorted(path.name for path in Path("out").iterdir()) == ["replies.jsonl"]
    values, _, _, _ = run(
        lambda question, first, second: "Well..." if "pear" in question else longer(question, first, second),
        model="judge-2",
    )
    assert counts(values) == {"wins": 2, "losses": 2, "ties": 1, "unreadable": 1, "counted": 5}


def test_a_refused_pair_is_not_counted() -> None:
    refusal = (400, {}, {"error": {"message": "too long"}})
    values, _, _, _ = run(lambda question, *rest: refusal if "pear" in question else longer(question, *rest))
    assert counts(values)["unreadable"] == 1
    [pair] = [pair for pair in values["pairs"] if pair["outcome"] == "unreadable"]
    assert "the server refused the request: 400 Bad Request: too long" in pair["verdicts"][0]["reason"]


def test_a_second_run_asks_nothing_and_gives_the_same_bytes() -> None:
    values, *_ = run(longer)
    files = {path: path.read_bytes() for path in Path("out").iterdir()}
    again, _, told, idle = run(longer)
    assert again == values and idle.bodies == [] and told[-1].startswith("0 requests this time")
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == files
    Path("out").rename("first")
    assert run(longer)[0] == values
    assert Path("out/verdicts.html").read_bytes() == Path("first/verdicts.html").read_bytes()
    assert len(run(longer, seed=7)[3].bodies) == 10


def test_a_run_that_was_stopped_goes_on() -> None:
    seen: list[str] = []

    def tiring(*parts: str) -> Any:
        seen.append(parts[0])
        return longer(*parts) if len(seen) <= 4 else BUSY

    with pytest.raises(GenerationError, match="what was answered before is kept, and the same command goes on"):
        run(tiring, requests_at_once=1)
    values, _, _, server = run(longer)
    assert len(server.bodies) == 6 and counts(values)["counted"] == 6


def test_the_page_shows_the_verdicts() -> None:
    run(longer)
    text = Path("out/verdicts.html").read_text(encoding="utf-8")
    said = read_page(Path("out/verdicts.html"))
    assert "a first: a. It says <b>more</b>." in said and "<b>more</b>" not in text
    assert text.count('class="text chosen"') == 5 and "prompt 3: tie" in said
    assert "both answers are the same text" in said and "1,000" not in said


@pytest.mark.parametrize(
    ("reply", "side"),
    [
        ('{"reason": "r", "better": "1"}', "b"),
        ('{"reason": "r", "better": 2}', "a"),
        ('Sure:\n```json\n{"reason": "r {x}", "better": "Tie"}\n```', "tie"),
        ('<think>{"better": "1"}</think> {"reason": "r", "better": "2"}', "a"),
        ('{"better": "1"} no: {"reason": "r", "better": "2"}', "a"),
        ('{"reason": "r", "better": "both"}', None),
        ('{"reason": "r", "better":', None),
        ("[1]", None),
        ("", None),
    ],
)
def test_replies_are_read(reply: str, side: str | None) -> None:
    found = read_verdict(Reply(reply), is_swapped=True)
    assert found.side == side and found.reason


def test_two_orders_come_to_one_outcome() -> None:
    def kind(first: Any, second: Any) -> tuple[str, int | None]:
        outcome = outcome_of((Verdict(first, ""), Verdict(second, "")))
        return outcome.kind, outcome.favoured

    assert [kind(side, side)[0] for side in ("a", "b", "tie")] == ["a", "b", "tie"]
    assert kind("a", "b") == ("flip", 1) and kind("b", "a") == ("flip", 2) and kind("a", "tie") == ("flip", None)
    assert kind("a", None) == ("unreadable", None) == kind(None, None)


def test_the_interval_is_wilsons() -> None:
    """Source of the numbers: scipy 1.17, binomtest(k, n).proportion_ci(method="wilson")."""
    assert wilson(0.5, 10) == pytest.approx((0.2365931, 0.7634069), abs=1e-6)
    assert wilson(0.0, 5) == pytest.approx((0.0, 0.4344825), abs=1e-6)
    assert wilson(0.81, 100) == pytest.approx((0.7222115, 0.8748525), abs=1e-6)
    empty = tally([Outcome("unanswered"), Outcome("flip")])
    assert empty.rate is None and empty.interval is None and (empty.flips, empty.unanswered) == (1, 1)


def test_braces_of_answers_are_text() -> None:
    assert parts_of(ask_text("{second}", "{question}", "{first}")) == ("{second}", "{question}", "{first}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has `model/` and `other/`, `small/` with a context of 300 tokens, and `fruit/`."""
    folder = make_world(tmp_path_factory.mktemp("judge") / "world", block_size=1400)
    for name, seed, size in (("other", 7, 1400), ("small", 8, 300)):
        made = make_world(folder / f"{name}-world", seed=seed, block_size=size)
        shutil.move(made / "model", folder / name)
    write_folder(folder / "fruit", Tokenizer(folder / "model"), draw_rows())
    return folder


def test_checkpoints_answer_as_chat_does(world: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "prompts.jsonl", {"prompt": "?"}, {"prompt": "!" * 40}, {"prompt": "?"})
    config: dict[str, Any] = {"a": world / "other", "b": world / "second.jsonl", "max_new_tokens": 5, "slots": 2}
    write_lines(config["b"], {"prompt": "?", "answer": "one"}, {"prompt": "!" * 40, "answer": "two"})
    values, _, _, _ = run(longer, prompt_file=tmp_path / "prompts.jsonl", **config)
    llm = LLM.load(world / "other")
    for pair in values["pairs"]:
        assert pair["a"] == llm.chat([{"role": "user", "content": pair["prompt"]}], max_new_tokens=5)
    assert [pair["b"] for pair in values["pairs"]] == ["one", "two"]


def test_a_prompt_that_no_model_can_read_is_told(world: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("?\n\n" + "!" * 290 + "\n")
    write_lines(tmp_path / "b.jsonl", {"prompt": "?", "answer": "x"}, {"prompt": "!" * 290, "answer": "y"})
    given = {"a": world / "small", "b": tmp_path / "b.jsonl", "prompt_file": tmp_path / "prompts.txt"}
    values, _, _, server = run(longer, max_new_tokens=4, **given)
    assert values["unanswered"] == 1 and "fill the context of 300" in values["pairs"][1]["note"]
    assert len(server.bodies) == 2


def test_held_out_rows_are_asked_and_a_checkpoint_judges(world: Path) -> None:
    given: dict[str, Any] = {"a": world / "model", "b": world / "other", "data_dir": world / "fruit"}
    config = PairwiseConfig(
        **given, judge=str(world / "other"), max_new_tokens=4, judge_tokens=4, count=2, out_dir=Path("out")
    )
    with pytest.raises(GenerationError, match=r"None of the first 4 replies of other \(.*\) is a verdict"):
        judge(config)  # random weights know no JSON
    assert len(Path("out/replies.jsonl").read_text().splitlines()) == 4
    assert len(Path("out/answers.jsonl").read_text().splitlines()) == 4


def wrong(kind: type[LitftError], said: str) -> Any:
    return pytest.raises(kind, match=said)


def test_mistakes_are_told_before_anybody_is_asked(
    world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Subject, "llm", property(lambda self: pytest.fail("a model was loaded")))
    with wrong(ConfigError, "--a and --b are both a.jsonl"):
        run(longer, b=Path("a.jsonl"))
    with wrong(CheckpointError, "nowhere"):
        run(longer, a=Path("nowhere"), prompt_file=Path("a.jsonl"))
    with wrong(CheckpointError, "nobody"):
        run(longer, judge="nobody", model=None)
    with wrong(DataError, "Cannot read no.jsonl"):
        run(longer, a=Path("no.jsonl"))
    with wrong(DataError, r'bad.jsonl, line 2 has no text "answer"'):
        write_lines(Path("bad.jsonl"), {"prompt": "x", "answer": "y"}, {"prompt": "x", "response": "y"})
        run(longer, a=Path("bad.jsonl"))
    with wrong(DataError, r'b.jsonl has no answer to 1 of 1 prompts, such as "A new one\?"'):
        write_lines(Path("a.jsonl.prompts.jsonl"), {"prompt": "A new one?"})
        run(longer, a=world / "model", prompt_file=Path("a.jsonl.prompts.jsonl"))
    with wrong(DataError, "prompt_file empty.txt holds no prompts"):
        Path("empty.txt").write_text("\n")
        run(longer, prompt_file=Path("empty.txt"))
    with wrong(DataError, 'train_on "all", so its answers cannot be told'):
        folder = write_folder(tmp_path / "all", Tokenizer(world / "model"), draw_rows(), train_on="all")
        run(longer, a=world / "model", data_dir=folder)
    with wrong(ConfigError, "The environment variable NO_SUCH_KEY"):
        run(longer, api_key_env="NO_SUCH_KEY")
    Path("out").mkdir(exist_ok=True)
    Path("out/verdicts.html").write_text("<p>mine</p>")
    with wrong(ConfigError, "verdicts.html exists and is no page of litft judge"):
        run(longer)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"judge": "http://localhost:1/v1", "model": None}, "--model goes with --judge ADDRESS"),
        ({"judge": "runs/judge", "model": "m"}, "--model goes with --judge ADDRESS"),
        ({"judge": "http://user:secret@localhost/v1"}, "holds a user name, a password"),
        ({"prompt_file": Path("p")}, "Give --data_dir .* or --prompt_file, not both"),
        ({"data_dir": None}, "Give the prompts: --data_dir"),
        ({"count": 0}, "count is 0; it must be at least 1"),
        ({"api_key_env": "sk-1"}, "api_key_env is no NAME"),
    ],
)
def test_flags_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"a": Path("x"), "b": Path("y"), "judge": "http://localhost/v1", "model": "m"}
    with wrong(ConfigError, said) as caught:
        PairwiseConfig(**{**given, "data_dir": Path("d"), **changes})
    assert "secret" not in str(caught.value)


def test_the_command_line_prints_the_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "sk-quince")
    a, b = answer_files()
    with ChatServer(lambda prompt: longer(*parts_of(prompt))) as server:
        words = ["--a", str(a), "--b", str(b), "--judge", server.url, "--model", "m", "--api_key_env", "A_KEY"]
        assert main(["judge", *words]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("a.jsonl wins 58.3%")
    assert server.headers[0]["Authorization"] == "Bearer sk-quince"
    files = list(Path("out/judge/a-or-b").iterdir())
    assert len(files) == 3 and not any(b"sk-quince" in path.read_bytes() for path in files)
