"""`litft chat` over a pipe and with Ctrl-C: what is said is shown, kept, forgotten and saved as told."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_hf
from conftest import assert_one_sentence
from tiny_text import write_json

from litft import LLM
from litft.answer.chat import CtrlC
from litft.answer.chat import Talk as Answering
from litft.api import conversation_of
from litft.cli import main
from litft.config.answer import ChatConfig
from litft.generate.sample import Sampling

ASKED = [{"role": "user", "content": "Say red"}]
Talk = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_hf.write_hf_folder(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=600)
    assert main(["convert", "from_hf", "--checkpoint_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def talk(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Talk:
    """Runs `litft chat` on lines of input and gives what it writes to stdout and to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*lines: str, code: int = 0, folder: Path = model, **flags: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode())))
        words = [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
        base = ["chat", "--checkpoint_dir", str(folder), "--temperature", "0"]
        assert main([*base, *words, *([] if "max_new_tokens" in flags else ["--max_new_tokens", "12"])]) == code
        shown = capsys.readouterr()
        return shown.out, shown.err

    return run


def test_a_conversation_remembers_what_was_said(talk: Talk, model: Path) -> None:
    llm = LLM.load(model)
    first = llm.chat(ASKED, max_new_tokens=12)
    more = [*ASKED, {"role": "assistant", "content": first}, {"role": "user", "content": "  and / blue "}]
    second = llm.chat(more, max_new_tokens=12)
    assert second != llm.chat(more[2:], max_new_tokens=12)  # the history has a say
    out, err = talk("Say red", "", "  and / blue ", "/quit", "Say black")
    assert out == f"{first}\n{second}\n"
    assert "Type a message" in err


def test_a_turn_reads_only_what_was_not_said_before(model: Path) -> None:
    llm, lengths = LLM.load(model), list[int]()
    llm.model.register_forward_pre_hook(lambda module, given: lengths.append(given[0].shape[1]))
    talk = Answering(llm, ChatConfig(checkpoint_dir=model, temperature=0, max_new_tokens=12), print, CtrlC())
    messages: list[dict[str, str]] = []
    for number, line in enumerate(("Say red", "and blue", "and a very long list of colours that I do not know", "and")):
        lengths.clear()
        said = "".join(talk.answer(line)).removesuffix("\n")
        read = lengths[0]
        messages += [{"role": "user", "content": line}]
        size = len(llm.to_answer(conversation_of(messages), 12, Sampling()).prompt_ids)
        assert said == llm.chat(messages, max_new_tokens=12)
        assert read == size if number == 0 else read < size / 2 or number == 2  # then it needs a larger cache
        messages += [{"role": "assistant", "content": said}]


def test_a_draft_changes_no_answer_and_is_told_of_at_the_end(talk: Talk, model: Path) -> None:
    plain, _ = talk("Say red", "and blue")
    out, err = talk("Say red", "and blue", draft_dir=model)
    assert out == plain
    assert err.count("The draft guessed") == 1 and "(100%)" in err.splitlines()[-1]


def test_clear_system_and_help(talk: Talk, model: Path) -> None:
    llm = LLM.load(model)
    plain = llm.chat(ASKED, max_new_tokens=12)

    def told_first(text: str) -> str:
        return llm.chat([{"role": "system", "content": text}, *ASKED], max_new_tokens=12)

    system = next(text for text in ("Be short.", "zzz", "12 34 56", "QQQQQQ", "~") if told_first(text) != plain)
    told = told_first(system)
    out, err = talk(
        "Say red", "/clear", "Say red", "/reset", f"/system {system}", "Say red", "/clear", "/system", "Say red"
    )
    assert out == f"{plain}\n{plain}\n{told}\n{plain}\n"
    assert f"now: {system}" in err and "no system text now" in err
    out, err = talk("Say red", "/nothing", "/help", system=system)
    assert out == f"{told}\n"
    assert "There is no command /nothing; /help shows them." in err and "/save FILE" in err


def test_what_is_saved_is_what_was_said(talk: Talk, model: Path) -> None:
    out, err = talk("Say red", "/save", "/save é.jsonl", "/save é.jsonl", "/save no/where.jsonl", system="Be short.")
    saved = json.loads(Path("é.jsonl").read_text(encoding="utf-8"))
    roles = [message["role"] for message in saved["messages"]]
    assert roles == ["system", "user", "assistant"]
    assert saved["messages"][2]["content"] + "\n" == out
    for content in ("Name a file", "é.jsonl: 3 messages", "é.jsonl is there already", "Cannot write no/where.jsonl"):
        assert content in err
    words = ["prepare", "messages", "--checkpoint_dir", str(model), "--data_file", "é.jsonl"]
    assert main([*words, "--test_split_fraction", "0", "--destination_path", "data"]) == 0


def test_the_first_exchanges_are_forgotten_when_the_context_is_full(talk: Talk, model: Path) -> None:
    llm = LLM.load(model)
    lines = [f"Say a long word number {number}" for number in range(5)]
    out, err = talk(*lines, max_new_tokens=60)
    assert "The context is full: the first 1 exchange was forgotten." in err
    answers = []
    kept: list[dict[str, str]] = []
    for line in lines:
        kept.append({"role": "user", "content": line})
        while len(llm.to_answer(conversation_of(kept), 60, Sampling()).prompt_ids) > 600 - 60:
            kept = kept[2:]
        answers.append(llm.chat(kept, max_new_tokens=60))
        kept.append({"role": "assistant", "content": answers[-1]})
    assert len(kept) < 10 and kept[0]["role"] == "user"
    assert out == "".join(f"{answer}\n" for answer in answers)


def test_a_question_that_cannot_be_answered_changes_nothing(talk: Talk, model: Path) -> None:
    llm = LLM.load(model)
    first = llm.chat(ASKED, max_new_tokens=12)
    more = [*ASKED, {"role": "assistant", "content": first}, *ASKED]
    out, err = talk("Say red", "a" * 600, "Say red")
    assert out == f"{first}\n{llm.chat(more, max_new_tokens=12)}\n"
    assert "reads at most 600" in err


def test_stop_texts_are_never_shown(talk: Talk, model: Path) -> None:
    whole, _ = talk("Say red", max_new_tokens=40)
    stop = whole[5:8]
    out, _ = talk("Say red", max_new_tokens=40, stop=json.dumps([stop]))
    assert out == whole[: whole.index(stop)] + "\n"


def test_a_system_text_that_has_no_place_is_refused_at_once(talk: Talk, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "strict"
    folder.mkdir()
    for path in model.iterdir():
        if path.name != "prompt_style.yaml":
            (folder / path.name).write_bytes(path.read_bytes())
    template = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template += "[{{ m.content }}]{% endfor %}"
    write_json(folder / "tokenizer_config.json", {**tiny_hf.NAMES, "chat_template": template})
    _, err = talk("a", folder=folder, system="Be short.", code=2)
    assert_one_sentence("", err, "no system")
    out, err = talk("/system Be short.", "a", folder=folder)
    assert (
        "no system" in err
        and out == LLM.load(folder).chat([{"role": "user", "content": "a"}], max_new_tokens=12) + "\n"
    )


def test_input_that_is_no_text_ends_in_a_sentence(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Say \xff\n")))
    assert main(["chat", "--checkpoint_dir", str(model)]) == 2
    assert "litft: The input is not UTF-8." in capsys.readouterr().err


def test_ctrl_c_stops_the_answer_and_not_the_chat(model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "litft", "chat", "--checkpoint_dir", str(model), "--max_new_tokens", "550"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin and process.stdout and process.stderr

    def wait_for(content: bytes) -> None:
        said = b""
        while content not in said:
            more = os.read(process.stderr.fileno(), 1000) if process.stderr else b""
            assert more, said
            said += more

    try:
        process.stdin.write(b"Say red\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        wait_for(b"Stopped.")
        process.stdin.write(b"/save chat.jsonl\n")  # it still listens
        process.stdin.flush()
        wait_for(b"2 messages")
        process.send_signal(signal.SIGINT)
        wait_for(b"Ctrl-C once more")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        saved = json.loads(Path("chat.jsonl").read_text(encoding="utf-8"))["messages"][1]["content"]
        assert 0 < len(saved) < 500
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
