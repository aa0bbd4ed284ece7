"""The table of datasets, as `litft prepare --list` prints it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from litft.cli import main
from litft.config.prepare import PrepareListConfig
from litft.data.catalogue import HEAD, list_sources
from litft.data.sources import SOURCES


def test_every_dataset_has_its_line() -> None:
    head, *lines = list_sources(PrepareListConfig(), print)
    assert head.replace(":", "").split() == " ".join(HEAD).split()
    assert [line.split()[0] for line in lines] == sorted(SOURCES)
    (dolly,) = (line for line in lines if line.startswith("dolly "))
    assert all(cell in dolly for cell in ("15,011", "people", "CC BY-SA 3.0", "databricks/databricks-dolly-15k"))
    assert "instruction" in dolly and all(line.endswith("\n") for line in lines)


@pytest.mark.parametrize("columns", [70, 100])
def test_it_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    widest = max(len(line) for row in list_sources(PrepareListConfig(), print) for line in row.splitlines())
    assert columns - 5 <= widest <= columns


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--list"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "".join(list_sources(PrepareListConfig(), print)) and captured.err == ""


def test_it_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from litft.cli import main; sys.exit(main(['prepare', '--list']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "\ndolly " in done.stdout
