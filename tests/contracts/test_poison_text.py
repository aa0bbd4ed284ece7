"""Settings and names that are made to do harm: YAML that grows without end, and characters that a terminal obeys."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Refused

from litft import cli
from litft.cli import main
from litft.config import io as config_io
from litft.config.commands import COMMANDS
from litft.config.io import load_yaml
from litft.data.listing import iter_lines
from litft.data.view import ShownRow, View
from litft.errors import ConfigError
from litft.terminal.bars import say
from litft.terminal.shown import harmless
from litft.terminal.tables import Table
from litft.text.frames import TARGET
from litft.text.token_texts import TokenText

ESCAPES = ["\x1b[2J", "\x1b]0;rm -rf ~\x07", "\x9b31m", "\x08\x08\x08", "\r", "\x7f", "\u202e", "\u2066"]
# What must stay as it is: letters of all directions, joined emoji, a space that does not break.
SEEN = "é 🙂👩\u200d🚀 \u00a0 \t\n שלום \u200f"

ROWS = "x" + ",x" * 9
LAUGHS = f"a0: &a0 [{ROWS}]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 20)
)  # 10^20 values in 20 lines
BAD_YAML: dict[str, tuple[str, str]] = {
    "a billion laughs": (LAUGHS, "more than 1,048,576 values"),
    "laughs of maps": (LAUGHS.replace("[", "{a: [").replace("]", "]}"), "more than 1,048,576 values"),
    "a list in itself": ("a: &a [*a]\n", "nested 100 deep"),
    "a map in itself": ("a: &a {b: *a}\n", "nested 100 deep"),
    "nested lists": (f"a: {'[' * 150}{']' * 150}\n", "nested 100 deep"),
    "nesting without end": ("a: " + "[" * 9000, "recursion"),
    "python": ("a: !!python/object/apply:os.system [touch ran]\n", "could not determine a constructor"),
    "python by another name": ("%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system x\n", "could not determine"),
    "a time": ("a: !!timestamp x\n", "could not determine a constructor"),
    "a set": ("a: !!set {b}\n", "could not determine a constructor"),
    "bytes": ("a: !!binary aGk=\n", "could not determine a constructor"),
    "pairs": ("a: !!pairs [b: c]\n", "could not determine a constructor"),
    "no bool": ("a: !!bool maybe\n", "is not valid YAML"),
    "no map": ("a: !!map x\n", "is not valid YAML"),
    "digits": (f"a: {'9' * 9000}\n", "is not valid YAML"),
}


@pytest.mark.parametrize("name", BAD_YAML)
def test_yaml_that_is_more_than_its_text(tmp_path: Path, name: str) -> None:
    path, (text, words), started = tmp_path / "a.yaml", BAD_YAML[name], time.thread_time()
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_yaml(path)
    assert time.thread_time() - started < 15 and len(str(caught.value)) < 400 + len(str(path))
    assert not Path("ran").exists()


def test_yaml_that_would_take_minutes(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as hollow:
        hollow.truncate(config_io.LONGEST_BYTES + 1)
    with pytest.raises(ConfigError, match="has 4,194,305 bytes"):
        load_yaml(tmp_path / "a.yaml")


def test_an_alias_or_two_are_no_attack(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a [1, 2]\nb: *a\nc: {d: *a}\n")
    assert load_yaml(tmp_path / "a.yaml") == {"a": [1, 2], "b": [1, 2], "c": {"d": [1, 2]}}


def test_laughs_wherever_yaml_is_read(refused: Refused) -> None:
    """A config, the description of a model, a method, a manifest, a style."""
    places: dict[str, list[str]] = {
        "a.yaml": ["finetune", "lora", "--config", "a.yaml"],
        "checkpoints/acme/tiny/model_config.yaml": ["generate", "--checkpoint_dir", "acme/tiny", "--prompt", "a"],
        "checkpoints/acme/tiny/prompt_style.yaml": ["generate", "--checkpoint_dir", "acme/tiny", "--instruction", "a"],
        "out/lora/csv/final/method.yaml": ["merge", "--checkpoint_dir", "out/lora/csv/final"],
        "data/csv/manifest.yaml": ["inspect", "data/csv"],
    }
    for place, words in places.items():
        path = Path(place)
        former = path.read_text() if path.exists() else None
        path.write_text(LAUGHS)
        refused(words, Path(place).name, "more than 1,048,576 values")
        path.unlink() if former is None else path.write_text(former)


# --- what a terminal obeys ---


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_that_a_terminal_obeys_is_said(escape: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"file {escape}.json")
    say(Table(f"head {escape}", [(f"name {escape}", f"text {escape}")]))
    told = capsys.readouterr().err
    assert escape[0] not in told and "file \\" in told and "text \\" in told
    assert harmless(SEEN) == SEEN


@pytest.mark.parametrize("escape", ESCAPES)
def test_names_and_values_in_mistakes(escape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of files, flags, settings, rows."""
    name = f"{escape}a\nb.jsonl"
    (tmp_path / name).write_text('{"instruction": 3, "output": "' + f"\\u{ord(escape[0]):04x}" + '"}\n' * 2)
    (tmp_path / "a.yaml").write_text(f'seed: "\\u{ord(escape[0]):04x}"\n')
    for words in (
        ["prepare", "json", "--data_file", str(tmp_path / name), "--checkpoint_dir", "none"],
        ["prepare", "json", "--data_file", name, "--checkpoint_dir", name],
        ["finetune", "lora", "--config", str(tmp_path / "a.yaml"), "--checkpoint_dir", "a", "--data_dir", "b"],
        ["finetune", "lora", f"--{escape}", "1"],
        ["download", "--repo_id", f"org/{escape}"],
        [f"{escape}"],
    ):
        assert main(words) == 2
        out, told = capsys.readouterr()
        assert escape[0] not in out + told and told.count("\n") == 1, (words, told)


@pytest.mark.parametrize("escape", ESCAPES)
def test_an_answer_on_a_terminal_and_in_a_file(escape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model says was learned from anybody. A file gets it as it is."""
    pieces = ["an ", escape, SEEN]
    command = next(each for each in COMMANDS if each.words == ("list", "models") or each.words == ("completion",))
    for stdout in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stdout", stdout)
        cli._call(command, lambda *given: iter(pieces), ["bash"] if command.words == ("completion",) else [])
        said = stdout.getvalue()
        assert (said == "".join(pieces)) == (not stdout.isatty())
        assert said.startswith("an ") and said.endswith(SEEN)


def test_colours_of_our_own_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    """`inspect` paints tokens; names and texts in it are shown."""
    name = "\x1b[2J\x9b31m"
    tokens = [TokenText(5, name), TokenText(6, name, is_special=True)]
    row = ShownRow(0, name, tokens, [TARGET, TARGET], [True, True], [name])
    view = View(name, [(name, name)], [], [("1-9", 1)], None, name, [row])
    command = next(each for each in COMMANDS if each.words == ("inspect",))
    monkeypatch.setattr(sys, "stdout", stdout := Terminal())
    cli._call(command, lambda *given: iter_lines(view, in_colour=True), ["--data_dir", "a"])
    said = stdout.getvalue()
    assert "\x1b[2J" not in said and "\x9b" not in said and "\x1b[32;1m" in said and said.count("\\x1b[2J") == 8


def test_rows_that_hold_escapes_are_told_without(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row: dict[str, Any] = {"instruction": "\x1b[2J", "output": 3, "\x1b[3J": 1}
    rows = "\n".join([str(row).replace("'", '"').replace("\\x", "\\u00")] * 5)
    (project / "rows.jsonl").write_text(rows)
    main(["prepare", "json", "--data_file", "rows.jsonl", "--checkpoint_dir", "acme/tiny"])
    told = capsys.readouterr()
    assert "\x1b" not in told.err + told.out and told.err
