"""`litft completion`: the scripts are run by the shells themselves; fish and zsh where they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from litft.cli import main
from litft.config.commands import COMMANDS
from litft.config.leaves import list_leaves
from litft.config.run import LoRARun

CASES = [
    ("litft fin", ["finetune"]),
    ("litft finetune ", ["full", "lora", "adapter", "adapter_v2"]),
    ("litft finetune lora --lora.t", ["--lora.targets"]),
    ("litft finetune lora --max_it", ["--max_iters"]),
    ("litft finetune lora --seed 1 --precision bf", ["bf16-true", "bf16-mixed"]),
    ("litft finetune lora --dry_run ", ["true", "false"]),
    ("litft finetune full --lora.t", []),
    ("litft prepare lim", ["lima"]),
    ("litft prepare lima --prompt_s", ["--prompt_style"]),
    ("litft prepare --l", ["--list"]),
    ("litft generate --max", ["--max_new_tokens"]),
    ("litft completion ", ["bash", "zsh", "fish"]),
    ("litft copy-recipe adapter_", ["adapter_v2"]),
    ("litft merge --print", ["--print_config"]),
    ("litft sing ", []),
]


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Writes what `litft completion SHELL` prints."""
    assert main(["completion", shell]) == 0
    path = folder / f"litft.{shell}"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def of_shell(words: list[str], text: str) -> list[list[str]]:
    """Runs a shell, gives the words of each of its lines."""
    done = subprocess.run([*words, text], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"set -u; source {script('bash', tmp_path, capsys)}; complete -p litft >/dev/null || exit 3\n"
    text += 'try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _litft; echo "${COMPREPLY[@]-}"; }\n'
    for line, _ in CASES:
        words = line.split() + ([""] if line.endswith(" ") else [])
        text += f"try {' '.join(repr(word) for word in words)}\n"
    found = of_shell(["bash", "--norc", "-c"], text)
    assert found == [names for _, names in CASES]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"source {script('fish', tmp_path, capsys)}\n"
    text += "".join(f"echo (complete -C '{line}' | string join ' ')\n" for line, names in CASES if names)
    found = of_shell(["fish", "--no-config", "-c"], text)
    assert [sorted(names) for names in found] == [sorted(names) for _, names in CASES if names]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_takes_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"source {script('zsh', tmp_path, capsys)}; print -r -- $_comps[litft]"
    assert "_litft" in of_shell(["zsh", "-f", "-c"], text)[-1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_every_command_and_flag(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = script(shell, tmp_path, capsys).read_text(encoding="utf-8")
    names = set(text.replace('"', " ").replace("'", " ").replace("=", " ").split())
    assert {word for command in COMMANDS for word in command.words} <= names
    assert {f"--{name}" for name, _ in list_leaves(LoRARun)} <= names
    assert "bf16-true,bf16-mixed,32-true" in text
    assert ("bashcompinit" in text) == (shell == "zsh")
