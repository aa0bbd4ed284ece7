"""What is said and drawn while work goes on: bars and tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from litft.terminal.bars import Bar, can_draw, say, tracked
from litft.terminal.tables import Table
from litft.train import terminal
from litft.train.terminal import StepBar, closing_words

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]|38;")  # of letters
CURSOR = "\x1b[?25h"  # is shown again


def drawn(code: str, stdout: Path | None = None, **variables: str) -> tuple[int, str]:
    """Runs some lines whose stderr is a terminal; gives the exit code and what came there."""
    variables = {"TERM": "xterm-256color", "COLUMNS": "110", "LINES": "40", **variables}
    before = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "FORCE_COLOR")}
    ours, theirs = pty.openpty()
    with open(stdout, "wb") if stdout else os.fdopen(os.dup(theirs), "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=theirs, stdout=out, stderr=theirs, env=before | variables
        )
    os.close(theirs)
    said = b""
    while True:
        try:
            said += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    return process.wait(), said.decode()


STEPS = """
import time
from litft.terminal.bars import say
from litft.train.terminal import StepBar
with StepBar(10, 20, say, eval_every=8) as bar:
    for step in range(11, 14):
        time.sleep(0.01)
        bar.show(step, 1.5, 1e-3, 1234.0, 2_100_000_000)
        say("a line of /a/rather/long/path/" + "x" * 120)
"""


def test_a_terminal_has_two_lines_that_follow_the_steps() -> None:
    code, said = drawn(STEPS)
    assert code == 0 and said.rstrip().endswith(CURSOR)
    last = said.rpartition("training")[2]
    shown = ("13/20", "steps", "left", "loss 1.500", "rate 1.0e-03", "1,234 tokens/s", "2.1 GB", "evaluation after 16")
    for part in shown:
        assert part in last, part
    assert COLOUR.search(said)
    assert "/a/rather/long/path/" + "x" * 120 in said  # above the bar, and not broken


def test_no_color_and_ci_are_heard() -> None:
    assert not COLOUR.search(drawn(STEPS, NO_COLOR="1")[1])
    code, said = drawn(STEPS, CI="true")
    assert code == 0 and "\x1b" not in said and said.count("a line of") == 3


def test_an_error_gives_the_cursor_back() -> None:
    code, said = drawn("from litft.terminal.bars import tracked\nfor row in tracked([1, 2], 'work', 'rows'): 1 / 0")
    assert code == 1 and CURSOR in said and "ZeroDivisionError" in said
    left = "from litft.cli import _answer\nfrom litft.terminal.bars import Bar\nkept = []\n"
    left += "def work():\n    kept.append(Bar('work', 3, 'rows'))\n    raise KeyboardInterrupt\nprint(_answer(work))"
    code, said = drawn(left)
    assert code == 0 and "litft: stopped." in said and CURSOR in said


def test_bars_within_bars_share_the_screen_and_answers_go_to_their_file(tmp_path: Path) -> None:
    code = "import time\nfrom litft.terminal.bars import Bar, tracked\nwith Bar('outer', 2, 'steps') as bar:\n"
    code += (
        "    for row in tracked(range(3), 'inner', 'rows'):\n        print('answer', row)\n        time.sleep(0.3)\n"
    )
    code += "    bar.update(2)\n"
    status, said = drawn(code, stdout=tmp_path / "answers.txt")
    assert status == 0 and "inner" in said and "/3 rows" in said
    assert said.rpartition("outer")[2].count("2/2 steps") == 1 and "inner" not in said.rpartition("outer")[2]
    assert (tmp_path / "answers.txt").read_text() == "answer 0\nanswer 1\nanswer 2\n"


def test_a_table_is_drawn_on_a_terminal_and_plain_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("The run", [("base", "a model"), ("", "on two lines"), ("a longer name", "of " + "words " * 30)])
    say(table)
    assert capsys.readouterr().err == f"{table}\n"
    assert [line[:16] for line in table.splitlines()] == ["  base          ", " " * 16, "  a longer name "]
    code = "from litft.terminal.bars import say\nfrom litft.terminal.tables import Table\n"
    code += f"say(Table('The run', {table.rows}))"
    _, said = drawn(code, NO_COLOR="1")
    assert "The run" in said and len(said.splitlines()) > 6  # the words are wrapped
    assert all(len(line.rstrip()) <= 110 for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines())


def test_without_a_terminal_nothing_is_drawn_and_rich_not_imported() -> None:
    code = "import sys\nfrom litft.terminal.bars import tracked, say\n"
    code += "print(sum(tracked(range(5), 'work', 'rows')))\nsay('done')\nprint('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("10\nFalse\n", "done\n")


def test_a_bar_passes_everything_on() -> None:
    assert list(tracked(iter("abc"), "work", "letters", total=3)) == ["a", "b", "c"]
    with Bar("work", None, "B", is_shown=False) as bar:
        bar.update(3)
        assert not bar.is_drawn


def test_ci_and_dumb_terminals_draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert can_draw()
    monkeypatch.setenv("TERM", "dumb")
    assert not can_draw()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("CI", "true")
    assert not can_draw()


def test_a_line_comes_only_after_a_while_and_says_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    said: list[str] = []
    with StepBar(10, 20, said.append, eval_every=8) as bar:
        for step, seconds in ((11, 5.0), (12, 40.0), (13, 50.0), (17, 80.0), (20, 120.0)):
            now[0] = seconds
            bar.show(step, 1.5, 1e-3, 1234.0, 2_100_000_000)
    assert said == [
        "step 12/20: training loss 1.5000, rate 1.0e-03, 1,234 tokens/s, 2.1 GB, about 3 min left, evaluation after 16",
        "step 17/20: training loss 1.5000, rate 1.0e-03, 1,234 tokens/s, 2.1 GB, about 34 s left, evaluation after 20",
        "step 20/20: training loss 1.5000, rate 1.0e-03, 1,234 tokens/s, 2.1 GB, about 0 s left, the last step",
    ]


def test_what_is_left_is_what_time_leaves_where_time_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    said: list[str] = []
    with StepBar(0, 1000, said.append) as bar:
        for step, seconds, left in ((1, 40.0, 200.0), (2, 80.0, 61.0), (3, 120.0, 1e9)):
            now[0] = seconds
            bar.show(step, 1.5, 1e-3, 1234.0, 10**9, left)
    assert [line.rpartition("about ")[2].partition(",")[0] for line in said] == [
        "3 min left",
        "61 s left",
        "665 min left",
    ]


def test_the_end_of_a_run_says_what_came_of_it_and_what_to_type_next() -> None:
    summary = {
        "first_val_loss": 3.0, "val_loss": 1.0, "first_loss": 3.25, "final_loss": 1.5, "steps": 1560, "epochs": 1.0,
        "stopped_by": "max_iters", "train_seconds": 754.0, "tokens_per_second": 3210.4, "peak_memory_bytes": 2 * 10**9,
    }  # fmt: skip
    table, after = closing_words(summary, Path("out/lora/lima/final"), Path("data/lima"), "lora")
    for part in (
        "held-out 3.0000 -> 1.0000",
        "3.2500 -> 1.5000",
        "1,560 steps",
        "max_iters",
        "13 min",
        "3,210",
        "2.0 GB",
    ):
        assert part in table, part
    head, *commands = after.splitlines()
    assert head == "Next:" and all(line.startswith("  litft ") and "out/lora/lima/final" in line for line in commands)
    assert {line.split()[1] for line in commands} == {"chat", "generate", "evaluate", "merge"}
    assert "merge" not in closing_words(summary, Path("x"), Path("y"), "full")[1]
